from __future__ import annotations

import random

import pytest

from ponder.evaluate.intervals import wilson
from ponder.evaluate.paired import holm, paired_rates, unpaired_rates, worse


def test_only_problems_that_one_of_the_two_solves_count():
    same = [True] * 40 + [False] * 40
    assert worse(same, same) == 1.0
    old, new = [True] * 5 + same, [False] * 5 + same
    assert worse(old, new) == pytest.approx(1 / 32)
    assert worse(new, old) == 1.0
    assert worse([True, False, True], [False, True, True]) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="not paired"):
        worse([True], [])


def test_holm_multiplies_by_the_tests_that_are_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_difference_of_pairs_has_an_interval_that_holds_it():
    old, new = [True] * 30 + [False] * 10, [True] * 18 + [False] * 22
    found = paired_rates(old, new)
    assert found.value == pytest.approx(-0.3)
    assert -1 <= found.interval.low < found.value < found.interval.high < 0
    assert found.measurable
    back = paired_rates(new, old)
    assert (back.interval.low, back.interval.high) == pytest.approx((-found.interval.high, -found.interval.low))
    apart = unpaired_rates((30, 40), (18, 40))
    assert apart.interval.low < found.interval.low < found.interval.high < apart.interval.high, "pairs say more"


def test_newcombe_s_own_example():
    """Stat. Med. 17, 1998, 873, table II, example (a): 56 of 70 against 48 of 80, method 10: 0.0524 to 0.3339."""
    found = unpaired_rates((48, 80), (56, 70))
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_pairs_that_never_differ_have_an_interval_all_the_same():
    for same in ([True] * 20, [False] * 20):
        found = paired_rates(same, same)
        assert found.value == 0
        assert found.interval.high == -found.interval.low > 0
        assert found.interval.high <= 2 * (wilson(0, 20).high - wilson(0, 20).low)
        assert not found.measurable


def test_the_interval_holds_the_truth_most_of_the_time():
    rng, held = random.Random(0), 0
    for _ in range(400):
        old, new = [], []
        for _ in range(30):  # right with 0.7, then with 0.5, in pairs that go together
            shared = rng.random()
            old.append(shared < 0.7)
            new.append(shared < 0.5 if rng.random() < 0.6 else rng.random() < 0.5)
        interval = paired_rates(old, new).interval
        held += interval.low <= -0.2 <= interval.high
    assert held / 400 >= 0.93


def test_pairs_are_of_one_length():
    with pytest.raises(ValueError, match="at least 1"):
        paired_rates([], [])
    with pytest.raises(ValueError, match="one length"):
        paired_rates([True], [])
