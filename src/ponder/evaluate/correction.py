"""Self-correction: what reasonings do with their wrong tries, and with their right ones."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.evaluate.intervals import wilson
from ponder.evaluate.measure import Result


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of how many."""

    count: int
    of: int

    def summary(self) -> dict[str, object]:
        """As JSON; without trials there is no rate."""
        if not self.of:
            return {"count": 0, "of": 0, "rate": None, "interval_95": None}
        interval = wilson(self.count, self.of)
        low, high = interval.low, interval.high
        return {"count": self.count, "of": self.of, "rate": self.count / self.of, "interval_95": [low, high]}

    def __str__(self) -> str:
        if not self.of:
            return "–"
        interval = wilson(self.count, self.of)
        return f"{self.count / self.of:.3f} ({interval.low:.3f}–{interval.high:.3f}) of {self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Over all samples with a try in their reasoning.

    mended: of the samples whose first try was wrong, those whose answer is right.
    spoiled: of those whose first try was right, those whose answer is wrong.
    false_accepts: of all wrong tries, those that were accepted.
    false_rejects: of all right tries, those that were rejected.

    Tries of one problem are not independent: the intervals of the last two are narrower than they should be.
    """

    samples: int
    tries: int
    mended: Rate
    spoiled: Rate
    false_accepts: Rate
    false_rejects: Rate

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        shares = ("mended", "spoiled", "false_accepts", "false_rejects")
        return {
            "samples": self.samples,
            "tries": self.tries,
            **{name: getattr(self, name).summary() for name in shares},
        }


def correction(result: Result) -> Correction | None:
    """What the tries of a result show; None where its task tells none, or no reasoning holds one."""
    samples = [sample for item in result.items for sample in item.drawn if sample.tries]
    if not samples:
        return None
    tries = [each for sample in samples for each in sample.tries or ()]
    first_right = [sample for sample in samples if sample.tries and sample.tries[0].right]
    first_wrong = [sample for sample in samples if sample.tries and not sample.tries[0].right]
    right = [each for each in tries if each.right]
    wrong = [each for each in tries if not each.right]
    return Correction(
        samples=len(samples),
        tries=len(tries),
        mended=Rate(sum(sample.solved for sample in first_wrong), len(first_wrong)),
        spoiled=Rate(sum(not sample.solved for sample in first_right), len(first_right)),
        false_accepts=Rate(sum(each.accepted for each in wrong), len(wrong)),
        false_rejects=Rate(sum(not each.accepted for each in right), len(right)),
    )
