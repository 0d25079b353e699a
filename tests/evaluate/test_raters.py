"""How far raters agree: against published figures, and where nothing can be said."""

from typing import Any

import pytest

from ponder.evaluate.raters import alpha_of, ordinal_alpha, pairs_alike

# The reliability data of section C of Krippendorff's paper: four observers, twelve units.
UNITS = [
    [1, 1, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [5, 5, 5],
    [1, 1],
]


def judged(rater: str, number: int, *ranks: int | None, **more: Any) -> dict[str, Any]:
    return {"rater": rater, "set": number, "ranks": list(ranks), **more}


def test_alpha_is_that_of_the_paper() -> None:
    found = alpha_of([[unit] for unit in UNITS])
    assert found is not None
    assert found.value == pytest.approx(0.815, abs=5e-4)
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high


def test_raters_who_agree_have_one_and_who_are_opposed_less_than_chance() -> None:
    same = [judged(rater, number, 1, 2, 3) for rater in "ab" for number in range(4)]
    turned = [judged("a", number, 1, 2, 3) for number in range(4)] + [judged("b", n, 3, 2, 1) for n in range(4)]
    for records, share, alpha in ((same, 1.0, 1.0), (turned, 0.0, -0.9)):
        pairs, beyond = pairs_alike(records), ordinal_alpha(records)
        assert pairs is not None
        assert beyond is not None
        assert (pairs.value, pairs.count) == (share, 12)
        assert beyond.value == pytest.approx(alpha, abs=0.1)


def test_ties_skips_and_what_one_person_judged_twice() -> None:
    records = [
        judged("a", 0, 1, 1, 3),
        judged("b", 0, 1, 2, 3),  # two of three pairs as a has them: the tie differs
        judged("b", 0, 3, 2, 1, repeat=True),  # not counted between raters
        judged("a", 1, None, None, None),
        judged("b", 1, 1, 2, 3),
    ]
    pairs = pairs_alike(records)
    assert pairs is not None
    assert (pairs.value, pairs.count, pairs.interval) == (pytest.approx(2 / 3), 3, None)


def test_one_rater_alone_says_nothing() -> None:
    alone = [judged("a", 0, 1, 2), judged("a", 0, 2, 1, repeat=True)]
    assert pairs_alike(alone) is None
    assert ordinal_alpha(alone) is None
    assert ordinal_alpha([judged(rater, 0, 1, 1) for rater in "ab"]) is None  # ranks that are all the same
