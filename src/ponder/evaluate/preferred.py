"""How well scores predict which of two answers a person prefers: accuracy, calibration, and what length explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponder.evaluate.intervals import Interval, bootstrap

BINS = 10  # of the calibration error
ALIKE = 0.1  # lengths that differ by at most this share of the longer one are matched


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two answers of which one is preferred.

    ranking: the number of the judgement that it comes from.
    better, worse: their scores, whose difference is the log-odds that the better one is preferred.
    better_length, worse_length: in tokens or characters.
    """

    ranking: int
    better: float
    worse: float
    better_length: int
    worse_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of scored pairs. A rate counts every judgement once, whatever its number of pairs; equal scores count half.

    interval: of the accuracy, by a bootstrap over judgements.
    calibration_error: the expected one, over ten bins of the probability that the scores give to their own choice.
    matched: the accuracy on pairs of nearly equal length, and how many there are; None: there are none.
    shorter: how often the shorter answer is the preferred one.
    """

    judgements: int
    pairs: int
    accuracy: float
    interval: Interval
    calibration_error: float
    matched: float | None
    matched_pairs: int
    shorter: float

    def metrics(self) -> dict[str, float]:
        named = {"accuracy": self.accuracy, "calibration_error": self.calibration_error, "shorter_wins": self.shorter}
        return named if self.matched is None else {**named, "accuracy_matched": self.matched}


def agreement(pairs: Sequence[ScoredPair]) -> Agreement:
    """Raises ValueError without a pair."""
    if not pairs:
        raise ValueError("agreement needs at least 1 pair (got none)")
    ahead_P = np.array([pair.better - pair.worse for pair in pairs])
    lengths_P2 = np.array([(pair.better_length, pair.worse_length) for pair in pairs])
    right_P = _wins(ahead_P)
    rates = _by_ranking(pairs, right_P)
    matched = np.abs(lengths_P2[:, 0] - lengths_P2[:, 1]) <= ALIKE * lengths_P2.max(1)
    return Agreement(
        judgements=len(rates),
        pairs=len(pairs),
        accuracy=float(np.mean(rates)),
        interval=bootstrap(rates),
        calibration_error=_calibration_error(ahead_P, right_P),
        matched=float(right_P[matched].mean()) if matched.any() else None,
        matched_pairs=int(matched.sum()),
        shorter=float(np.mean(_by_ranking(pairs, _wins(lengths_P2[:, 1] - lengths_P2[:, 0])))),
    )


def _wins(ahead_P: np.ndarray) -> np.ndarray:
    return (ahead_P > 0) + 0.5 * (ahead_P == 0)


def _by_ranking(pairs: Sequence[ScoredPair], values_P: np.ndarray) -> list[float]:
    """The mean of each judgement."""
    found: dict[int, list[float]] = {}
    for pair, value in zip(pairs, values_P.tolist(), strict=True):
        found.setdefault(pair.ranking, []).append(value)
    return [sum(values) / len(values) for values in found.values()]


def _calibration_error(ahead_P: np.ndarray, right_P: np.ndarray) -> float:
    """(Guo et al., arXiv 1706.04599, section 2), for the choice that the scores make."""
    sure_P = 1 / (1 + np.exp(-np.abs(ahead_P)))
    bins_P = np.minimum(((sure_P - 0.5) * 2 * BINS).astype(int), BINS - 1)
    gaps = (abs((sure_P - right_P)[bins_P == place].sum()) for place in range(BINS))
    return float(sum(gaps) / len(ahead_P))
