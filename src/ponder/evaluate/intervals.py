"""How sure a measured rate is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends that hold the true value in 95 of 100 repetitions."""

    low: float
    high: float


def wilson(successes: int, trials: int, z: float = Z_95) -> Interval:
    """Wilson's score interval of a proportion (J. Am. Stat. Assoc. 22, 1927): sound at 0, at 1 and for few trials."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"successes must be from 0 to the number of trials, and trials at least 1 (got {successes} of {trials})"
        )
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if successes == trials else min(1.0, centre + half))


def bootstrap(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap of a mean (Efron, Ann. Stat. 7, 1979) over values in [0, 1]; the same every time.

    Where all values are 0, or all 1, resampling shows no spread: then it is Wilson's interval.
    """
    if not values:
        raise ValueError("an interval needs at least 1 value (got none)")
    if set(values) in ({0.0}, {1.0}):
        return wilson(int(sum(values)), len(values))
    column = np.asarray(values)
    rng = np.random.default_rng(seed)
    means = [column[rng.integers(len(column), size=len(column))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))
