"""Two answers to each problem: the difference of two rates with its interval, and whether one model is worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

from ponder.evaluate.intervals import Interval, wilson


@dataclass(frozen=True, slots=True)
class RateDifference:
    """The second rate less the first, with its 95% interval."""

    value: float
    interval: Interval

    @property
    def measurable(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.interval.low <= 0 <= self.interval.high

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.interval.low:+.3f} to {self.interval.high:+.3f})"


def paired_rates(old: Sequence[bool], new: Sequence[bool]) -> RateDifference:
    """The difference over the same problems, by Newcombe's method 10 (Stat. Med. 17, 1998, page 2635): Wilson's
    intervals of both rates, joined by the correlation of the pairs. Sound for few pairs, and where none differs."""
    if len(old) != len(new) or not old:
        raise ValueError(f"pairs need two lists of one length, at least 1 (got {len(old)} and {len(new)})")
    both = sum(a and b for a, b in zip(old, new, strict=True))
    only_old, only_new = sum(old) - both, sum(new) - both
    neither = len(old) - both - only_old - only_new
    margins = (both + only_old) * (only_new + neither) * (both + only_new) * (only_old + neither)
    product = float(both * neither - only_old * only_new)
    if product > 0:
        product = max(0.0, product - len(old) / 2)
    return _joined((sum(old), len(old)), (sum(new), len(new)), product / sqrt(margins) if margins else 0.0)


def unpaired_rates(old: tuple[int, int], new: tuple[int, int]) -> RateDifference:
    """The difference over other problems, by Newcombe's method 10 for two samples (Stat. Med. 17, 1998, page 873).

    old, new: (solved, asked).
    """
    return _joined(old, new, 0.0)


def _joined(old: tuple[int, int], new: tuple[int, int], correlation: float) -> RateDifference:
    first, second = old[0] / old[1], new[0] / new[1]
    a, b = wilson(*old), wilson(*new)

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))

    value = second - first
    low = value - reach(a.high - first, second - b.low)
    high = value + reach(first - a.low, b.high - second)
    return RateDifference(value, Interval(max(-1.0, low), min(1.0, high)))


def worse(old: Sequence[bool], new: Sequence[bool]) -> float:
    """The one-sided p-value of McNemar's exact test (Psychometrika 12, 1947) that `new` solves fewer.

    old, new: whether each problem was solved, in the same order. Only problems that exactly one of them solves count.
    """
    if len(old) != len(new):
        raise ValueError(f"{len(old)} problems are not paired with {len(new)}")
    lost = sum(a and not b for a, b in zip(old, new, strict=True))
    won = sum(b and not a for a, b in zip(old, new, strict=True))
    return sum(comb(lost + won, k) for k in range(lost, lost + won + 1)) / 2 ** (lost + won)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction (Scand. J. Stat. 6, 1979) for that many tests, in their order."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected
