"""What an audit found: effects of a change on the same problems, and accuracy against how much of a thought is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from ponder.evaluate.correction import Rate
from ponder.evaluate.paired import RateDifference, paired_rates, unpaired_rates

ALL_TASKS = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEffect:
    """One change over the problems that it could be made to.

    before, after: whether each problem was solved without it and with it.
    differs: whether the answer is another; None where the two answers are to different questions.
    paired: False where `before` and `after` are of different problems.
    missing: the problems that it could not be made to.
    """

    task: str
    change: str
    before: tuple[bool, ...]
    after: tuple[bool, ...]
    differs: tuple[bool, ...] | None = None
    paired: bool = True
    missing: int = 0

    @property
    def difference(self) -> RateDifference | None:
        """None where the change could not be made at all."""
        if not self.before or not self.after:
            return None
        if self.paired:
            return paired_rates(self.before, self.after)
        return unpaired_rates((sum(self.before), len(self.before)), (sum(self.after), len(self.after)))

    @property
    def changed(self) -> Rate | None:
        """How many answers are another: of a changed step, the answers that depend on it."""
        return None if self.differs is None else Rate(sum(self.differs), len(self.differs))

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        difference = self.difference
        return {
            "task": self.task,
            "change": self.change,
            "before": Rate(sum(self.before), len(self.before)).summary(),
            "after": Rate(sum(self.after), len(self.after)).summary(),
            "paired": self.paired,
            "missing": self.missing,
            "difference": None if difference is None else difference.value,
            "difference_95": None if difference is None else [difference.interval.low, difference.interval.high],
            "answer_changed": None if self.changed is None else self.changed.summary(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CutCurve:
    """Accuracy with the thinking cut: the same problems, each answered after a share of its thought.

    shares: of the thinking tokens that are kept. 0: the prompt asks for no thinking.
    solved: for each share, whether each problem is.
    whole: whether each is without a cut.
    """

    task: str
    shares: tuple[float, ...]
    solved: tuple[tuple[bool, ...], ...]
    whole: tuple[bool, ...]

    def summary(self) -> dict[str, object]:
        """The points as JSON."""
        points: list[dict[str, object]] = []
        for share, solved in zip(self.shares, self.solved, strict=True):
            lost = paired_rates(self.whole, solved)
            against = {"difference": lost.value, "difference_95": [lost.interval.low, lost.interval.high]}
            points.append({"kept": share, **Rate(sum(solved), len(solved)).summary(), **against})
        return {"task": self.task, "whole": Rate(sum(self.whole), len(self.whole)).summary(), "points": points}


def pooled_effects(effects: Sequence[ChangeEffect]) -> list[ChangeEffect]:
    """Each change over the problems of all tasks."""
    found = []
    for change in dict.fromkeys(each.change for each in effects):
        same = [each for each in effects if each.change == change]
        told = [each.differs for each in same if each.differs is not None]
        found.append(
            ChangeEffect(
                task=ALL_TASKS,
                change=change,
                before=tuple(chain.from_iterable(each.before for each in same)),
                after=tuple(chain.from_iterable(each.after for each in same)),
                differs=tuple(chain.from_iterable(told)) if len(told) == len(same) else None,
                paired=all(each.paired for each in same),
                missing=sum(each.missing for each in same),
            )
        )
    return found


def pooled_curve(curves: Sequence[CutCurve]) -> CutCurve:
    """One curve over the problems of all tasks. curves: at least one, all with the same shares."""
    columns = zip(*(curve.solved for curve in curves), strict=True)
    return CutCurve(
        task=ALL_TASKS,
        shares=curves[0].shares,
        solved=tuple(tuple(chain.from_iterable(column)) for column in columns),
        whole=tuple(chain.from_iterable(curve.whole for curve in curves)),
    )
