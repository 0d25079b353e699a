"""What a step of sampled answers says: its metrics, and the alarms of a stage that learns nothing any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from ponder.tasks.protocol import GradeStatus, Problem
from ponder.tasks.turns import Attempt
from ponder.train.policy.lessons import sampled_tokens
from ponder.train.policy.losses import flat
from ponder.train.policy.rollout import generated_tokens, prefilled_tokens
from ponder.types import GraderError, Origin

_BROKEN = frozenset({GradeStatus.TIMEOUT, GradeStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Drawn:
    """A problem, and where in the mix it comes from."""

    entry: int
    level: float
    problem: Problem


@dataclass(frozen=True, slots=True)
class Group:
    """All answers to one problem, with their rewards."""

    drawn: Drawn
    attempts: Sequence[Attempt]
    rewards_S: Tensor

    @property
    def passed(self) -> float:
        """The share that solved it."""
        return _mean([each.grade.solved for each in self.attempts])


@dataclass(frozen=True, slots=True)
class Rollout:
    """What one step sampled.

    kept: what is learned from.
    given_up: the groups that others have replaced. They show how good the model is and what sampling costs: without
        them every task would seem half solved.
    """

    step: int
    kept: Sequence[Group]
    given_up: Sequence[Group]

    @property
    def all(self) -> Sequence[Group]:
        return [*self.given_up, *self.kept]

    @property
    def rewards_PS(self) -> Tensor:
        """Of what is learned from."""
        return torch.stack([group.rewards_S for group in self.kept])


def rollout_metrics(rollout: Rollout, names: Sequence[str]) -> dict[str, float]:
    """Metrics of everything sampled, but for `flat`, the share of groups without an advantage among those kept.

    names: of the tasks, for each entry of the mix.
    """
    attempts = [each for group in rollout.all for each in group.attempts]
    lengths = [sampled_tokens(each.trajectory) for each in attempts]
    statuses = [each.grade.status for each in attempts]
    segments = [segment for each in attempts for segment in each.trajectory.segments]
    logprobs = [p for s in segments for p, o in zip(s.logprobs, s.origins, strict=True) if o is Origin.SAMPLED]
    by_task: dict[str, list[bool]] = defaultdict(list)
    for group in rollout.all:
        by_task[names[group.drawn.entry]] += [each.grade.solved for each in group.attempts]
    return {
        "reward": float(torch.cat([group.rewards_S for group in rollout.all]).mean()),
        "score": _mean([each.grade.score for each in attempts]),
        "solved": _mean([each.grade.solved for each in attempts]),
        "length": _mean(lengths),
        "longest": float(max(lengths)),
        "generated": sum(generated_tokens(group.attempts) for group in rollout.all),
        "prefilled": sum(prefilled_tokens(group.attempts) for group in rollout.all),
        "truncated": _mean([each.truncated for each in attempts]),
        "entropy": -_mean(logprobs),  # in expectation that of the model's distribution, in nats
        "flat": float(flat(rollout.rewards_PS).float().mean()),
        "redrawn": float(len(rollout.given_up)),
        "unparseable": _mean([status is GradeStatus.UNPARSEABLE for status in statuses]),
        "ungraded": _mean([status in _BROKEN for status in statuses]),
        **{f"pass/{task}": _mean(right) for task, right in sorted(by_task.items())},
    }


class Alarm(StrEnum):
    """FLAT: there was nothing to learn from. UNGRADED: not one answer could be graded."""

    FLAT = "flat"
    UNGRADED = "ungraded"


class Alarms:
    """Counts the steps in a row for which each alarm's condition holds; `patience` of them raise it."""

    def __init__(self, patience: int, *, hint: str = "") -> None:
        """hint: what else the user may do against FLAT, appended to its text."""
        self.patience = patience
        self.hint = hint
        self.steps = dict.fromkeys(Alarm, 0)

    def see(self, groups: Sequence[Sequence[Attempt]], *, flat: bool) -> list[str]:
        """The alarms' texts after this step's grades. Raises GraderError when `patience` steps have no grade."""
        broken = [each.grade for group in groups for each in group if each.grade.status in _BROKEN]
        ungraded = len(broken) == sum(map(len, groups))
        for alarm, true in ((Alarm.FLAT, flat), (Alarm.UNGRADED, ungraded)):
            self.steps[alarm] = self.steps[alarm] + 1 if true else 0
        if self.steps[Alarm.UNGRADED] >= self.patience:
            first = broken[0]
            raise GraderError(
                f"no answer could be graded in {self.steps[Alarm.UNGRADED]} steps (the last: "
                f"{first.status.value}{first.why and f', {first.why}'}): mend the grader of "
                f"{groups[0][0].problem.task}, or give it more time, then continue with --resume"
            )
        if self.steps[Alarm.FLAT] < self.patience:
            return []
        solved = _mean([each.grade.solved for group in groups for each in group]) > 0.5
        remedy = "raise the levels of the mix" if solved else "lower the levels of the mix, sample more, or train on"
        return [
            (
                f"alarm: in {self.steps[Alarm.FLAT]} steps all answers of each group had the same reward, so "
                f"nothing is learned: {remedy}{self.hint}"
            )
        ]

    def metrics(self) -> dict[str, float]:
        """The number of steps in a row, for the alarms that are raised."""
        return {f"alarm/{alarm}": float(n) for alarm, n in self.steps.items() if n >= self.patience}

    def state(self) -> dict[str, int]:
        """What `restore` needs, as JSON."""
        return {alarm.value: n for alarm, n in self.steps.items()}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continue from a `state`."""
        self.steps = {alarm: state.get(alarm.value, 0) for alarm in Alarm}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
