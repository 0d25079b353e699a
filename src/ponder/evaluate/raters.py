"""How far raters agree: with themselves, with each other pair by pair, and beyond chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ponder.evaluate.intervals import Interval

_RESAMPLES = 1000
Ranks = Sequence[int | None]
Judged = Mapping[str, Any]  # a record of a file of judgements


@dataclass(frozen=True, slots=True)
class Agreed:
    """How far raters agree.

    value: 1 is perfect; what 0 is depends on the measure.
    interval: the middle 95% of the values of resampled sets; None: one set alone says nothing about others.
    count: pairs of judgements that were compared.
    """

    value: float
    interval: Interval | None
    count: int


def self_agreement(records: Sequence[Judged]) -> tuple[float, int] | None:
    """(the share of pairs that a person ordered alike both times, how many pairs); ties among them. None: none was
    shown twice."""
    alike: list[bool] = []
    first = {(record.get("rater"), record.get("set")): record for record in records if not record.get("repeat")}
    for record in records:
        before = first.get((record.get("rater"), record.get("set")))
        if record.get("repeat") and before is not None:
            alike += _alike(before["ranks"], record["ranks"])
    return (sum(alike) / len(alike), len(alike)) if alike else None


def pairs_alike(records: Sequence[Judged]) -> Agreed | None:
    """The share of pairs of answers that two raters ordered alike, ties among them. None: no two raters judged the same
    pair."""
    alike = [
        [same for one, other in combinations(ranks, 2) for same in _alike(one, other)] for ranks in _by_set(records)
    ]
    sums = np.array([(sum(each), len(each)) for each in alike if each], dtype=float).reshape(-1, 2)
    if not len(sums):
        return None
    share, num_pairs = sums[:, 0].sum() / sums[:, 1].sum(), int(sums[:, 1].sum())
    drawn_RC = _resampled(sums)
    return Agreed(float(share), _middle(drawn_RC[:, 0] / drawn_RC[:, 1], len(sums)), num_pairs)


def ordinal_alpha(records: Sequence[Judged]) -> Agreed | None:
    """Krippendorff's alpha with the ordinal metric over the ranks of each answer: 1 is perfect agreement, 0 is chance.

    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011. None: no answer has two raters, or all
    ranks are the same.
    """
    units = [
        [[rank for rank in answer if rank is not None] for answer in zip(*ranks, strict=True)]
        for ranks in _by_set(records)
    ]
    return alpha_of([[values for values in unit if len(values) > 1] for unit in units])


def alpha_of(sets: Sequence[Sequence[Sequence[int]]]) -> Agreed | None:
    """The same of sets of units of values, each unit with the values that at least two raters gave it."""
    values = sorted({value for units in sets for unit in units for value in unit})
    place = {value: number for number, value in enumerate(values)}
    sums = []
    for units in sets:
        found = np.zeros((len(values), len(values)))
        for unit in units:
            for one, other in combinations(unit, 2):
                found[place[one], place[other]] += 1 / (len(unit) - 1)
                found[place[other], place[one]] += 1 / (len(unit) - 1)
        if found.any():
            sums.append(found)
    if len(values) < 2 or not sums:
        return None
    coincidences_SKK = np.array(sums)
    whole = _alpha(coincidences_SKK.sum(0)[None])[0]
    drawn_R = _alpha(_resampled(coincidences_SKK))
    count = sum(len(unit) * (len(unit) - 1) // 2 for units in sets for unit in units)
    return Agreed(float(whole), _middle(drawn_R[np.isfinite(drawn_R)], len(sums)), count)


def _alpha(coincidences_RKK: NDArray[np.float64]) -> NDArray[np.float64]:
    counts_RK = coincidences_RKK.sum(2)
    middle_RK = counts_RK.cumsum(1) - counts_RK / 2
    distance_RKK = (middle_RK[:, :, None] - middle_RK[:, None, :]) ** 2
    observed_R = (coincidences_RKK * distance_RKK).sum((1, 2))
    expected_R = (counts_RK[:, :, None] * counts_RK[:, None, :] * distance_RKK).sum((1, 2))
    with np.errstate(invalid="ignore"):  # a draw whose ranks are all the same has no alpha
        return 1 - (counts_RK.sum(1) - 1) * observed_R / expected_R


def _resampled(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The totals of that many sets drawn with replacement, for each resample; the same every time."""
    draws_RS = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), _RESAMPLES)
    return np.tensordot(draws_RS, sums, axes=1)


def _middle(values: NDArray[np.float64], num_sets: int) -> Interval | None:
    if num_sets < 2 or not len(values):
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))


def _by_set(records: Sequence[Judged]) -> list[list[Ranks]]:
    """For each set, the ranks that each rater gave its answers the first time."""
    found: dict[Any, list[Ranks]] = defaultdict(list)
    for record in records:
        if not record.get("repeat"):
            found[record.get("set")].append(record["ranks"])
    return list(found.values())


def _alike(one: Ranks, other: Ranks) -> list[bool]:
    found = []
    for a, b in combinations(range(len(one)), 2):
        before, after = _compared(one[a], one[b]), _compared(other[a], other[b])
        if before is not None and after is not None:
            found.append(before == after)
    return found


def _compared(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else (a > b) - (a < b)
