"""What many samples hold: pass@k, from one set of n samples of every problem.

pass@n is also what a choice among the n by an oracle, a verifier that is never wrong, would solve (best of n); the
majority of the same samples is the consensus's own accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

from ponder.evaluate.intervals import Interval, bootstrap
from ponder.evaluate.measure import Result
from ponder.model.storage import writing
from ponder.types import InvalidRequest, MissingExtra


def pass_at_k(samples: int, solved: int, k: int) -> float:
    """The chance that k of the samples, drawn without replacement, hold a right one: 1 - C(n - c, k) / C(n, k). It is
    the unbiased estimator of pass@k (arXiv 2107.03374, section 2.1)."""
    if not 0 <= solved <= samples or not 1 <= k <= samples:
        raise ValueError(
            f"pass@k needs k from 1 to the number of samples (got k {k}, {samples} samples, {solved} of them right)"
        )
    return 1 - comb(samples - solved, k) / comb(samples, k)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAt:
    """pass@k of one task.

    rate: the mean over its problems.
    interval: 95%, resampled over problems.
    tokens: mean generated tokens of k samples of a problem.
    """

    k: int
    rate: float
    interval: Interval
    tokens: float

    def summary(self) -> dict[str, object]:
        low, high = self.interval.low, self.interval.high
        return {"k": self.k, "rate": self.rate, "interval_95": [low, high], "tokens": self.tokens}


def doublings(samples: int) -> tuple[int, ...]:
    """1, 2, 4, … up to the number of samples, which ends the row whatever it is."""
    return (*(2**i for i in range((samples - 1).bit_length())), samples)


def has_samples(result: Result) -> bool:
    """Whether every problem was asked several times."""
    return min(len(item.drawn) for item in result.items) > 1


def pass_at(result: Result, ks: Sequence[int] | None = None) -> list[PassAt]:
    """pass@k for every k (doublings unless given). Raises InvalidRequest for a k above some problem's samples."""
    fewest = min(len(item.drawn) for item in result.items)
    ks = doublings(fewest) if ks is None else ks
    if fewest < 1 or not all(1 <= k <= fewest for k in ks):
        raise InvalidRequest(
            f"{result.task} {result.mode}: k of pass@k must be from 1 to the {fewest} samples of a "
            f"problem (got {list(ks)})"
        )
    each = sum(item.usage.completion_tokens / len(item.drawn) for item in result.items) / result.n
    found = []
    for k in ks:
        rates = [pass_at_k(len(item.drawn), sum(s.solved for s in item.drawn), k) for item in result.items]
        found.append(PassAt(k=k, rate=sum(rates) / len(rates), interval=bootstrap(rates), tokens=k * each))
    return found


def plot_pass_at(results: Sequence[Result], file: str | Path, ks: Sequence[int] | None = None) -> Path:
    """Draw pass@k against k, one line per task, and the majority of all samples as a cross. Needs the extra `plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plot") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for result in results:
        points = pass_at(result, ks)
        numbers = [point.k for point in points]
        (line,) = axes.plot(numbers, [point.rate for point in points], marker="o", label=result.task)
        low, high = [point.interval.low for point in points], [point.interval.high for point in points]
        axes.fill_between(numbers, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.plot([len(result.items[0].drawn)], [result.accuracy], marker="x", color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set(xlabel="samples k (cross: their majority)", ylabel="pass@k", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    with writing(file):
        figure.savefig(file, dpi=150)
    return Path(file)
