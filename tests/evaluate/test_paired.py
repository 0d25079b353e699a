from __future__ import annotations

import pytest

from ponder.evaluate.paired import holm, worse


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
