"""When reinforcement learning learns nothing any more, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from ponder.tasks.protocol import GradeStatus
from ponder.tasks.turns import Attempt
from ponder.train.recipe.sections import Levels
from ponder.types import GraderError

_BROKEN = frozenset({GradeStatus.TIMEOUT, GradeStatus.FAILED})


class Alarm(StrEnum):
    """FLAT: nothing to learn from: in every group the rewards were equal (or, where solved answers are tuned on, none
    was solved). UNGRADED: not one answer could be graded."""

    FLAT = "flat"
    UNGRADED = "ungraded"


class Alarms:
    """Counts the steps in a row for which each has been true; `patience` of them raise it."""

    def __init__(self, patience: int, levels: Levels) -> None:
        self.patience = patience
        self.levels = levels
        self.steps = dict.fromkeys(Alarm, 0)

    def see(self, groups: Sequence[Sequence[Attempt]], *, flat: bool) -> list[str]:
        """What to tell the user after this step's grades; raises GraderError when none could be graded for so long."""
        broken = [each.grade for group in groups for each in group if each.grade.status in _BROKEN]
        ungraded = len(broken) == sum(map(len, groups))
        for alarm, true in ((Alarm.FLAT, flat), (Alarm.UNGRADED, ungraded)):
            self.steps[alarm] = self.steps[alarm] + 1 if true else 0
        if self.steps[Alarm.UNGRADED] >= self.patience:
            first = broken[0]
            raise GraderError(
                f"not one answer could be graded in {self.steps[Alarm.UNGRADED]} steps (the last: {first.status.value}"
                f"{first.why and f', {first.why}'}): mend the grader of {groups[0][0].problem.task}, or give it more "
                "time, then go on with --resume"
            )
        if self.steps[Alarm.FLAT] < self.patience:
            return []
        solved = all(each.grade.solved for group in groups for each in group)
        remedy = "raise the levels of the mix" if solved else "lower the levels of the mix, sample more, or train on"
        adapt = "" if self.levels is Levels.ADAPTIVE else ", or set grpo.levels to adaptive"
        return [
            f"alarm: in {self.steps[Alarm.FLAT]} steps no group had better and worse answers, so nothing is learned: "
            f"{remedy}{adapt}"
        ]

    def metrics(self) -> dict[str, float]:
        """How many steps in a row, for the alarms that are raised."""
        return {f"alarm/{alarm}": float(n) for alarm, n in self.steps.items() if n >= self.patience}

    def state(self) -> dict[str, int]:
        return {alarm.value: n for alarm, n in self.steps.items()}

    def restore(self, state: Mapping[str, int]) -> None:
        self.steps = {alarm: state.get(alarm.value, 0) for alarm in Alarm}
