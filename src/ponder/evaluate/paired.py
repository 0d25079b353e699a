"""Two models on the same problems: whether one is worse, for each task and for all tasks together."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


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
