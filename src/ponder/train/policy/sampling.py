"""Where a stage's answers are sampled: in this process by the weights that train, or wherever a launcher says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ponder.dialogue import load_format
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import Problem, Task
from ponder.tasks.turns import Attempt
from ponder.tokenizer import Tokenizer
from ponder.train.policy.rollout import roll_out_seeded
from ponder.train.recipe.sections import LoraRecipe
from ponder.types import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """How a stage samples, in values that can be sent to another process.

    tasks: of the mix, by their specs. tokenizer: its folder.
    samples: answers to each problem. prompts: problems of a step.
    sequence: the largest length of a context. max_batch: sequences that are sampled at once.
    deterministic: which requests run together must not change a bit of the answers.
    step: of training, with which the stage begins or goes on.
    staleness: the largest number of steps between the weights that sample an answer and those that it changes.
    lora: of the stage, whose adapters are beside the model. threads, device: of the run.
    """

    tasks: tuple[str, ...]
    tokenizer: Path
    params: SamplingParams
    samples: int
    prompts: int
    sequence: int
    max_batch: int
    deterministic: bool
    step: int
    staleness: int
    lora: LoraRecipe
    threads: int
    device: str

    def sampler(self, model: Transformer, tokenizer: Tokenizer) -> LocalSampler:
        """Over the model. The window is such that every context fits a row."""
        return LocalSampler(
            model,
            tokenizer,
            load_format(tokenizer),
            window=min(self.sequence + 1, model.config.max_positions),
            max_batch=self.max_batch,
            deterministic=self.deterministic,
        )


@dataclass(frozen=True, slots=True)
class Order:
    """A group of answers that is wanted. entry: of the mix, whose task drew the problem. seed: of the answers."""

    entry: int
    problem: Problem
    seed: str


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """What is to be said of a step's sampling beside its answers."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()


class Rollouts(Protocol):
    """What samples and grades the groups of a stage. Steps are numbered as the loop numbers them."""

    def want(self, step: int, round: int, orders: Sequence[Order]) -> None:
        """These groups will be taken, in this order. Called for the steps in their order, at most `staleness` of them
        before their turn."""
        ...

    def take(self, step: int, round: int) -> list[list[Attempt] | None]:
        """The groups, once the weights are those of the step. None: a group that cannot be sampled was given up."""
        ...

    def updating(self) -> AbstractContextManager[None]:
        """Entered around every change of the weights."""
        ...

    def report(self) -> RolloutReport:
        """Of what was taken last."""
        ...

    def close(self) -> None: ...


class LocalRollouts:
    """Samples from the very module that trains, when a group is taken."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, tasks: Sequence[Task], plan: RolloutPlan) -> None:
        self.model, self.tasks, self.plan = model, tasks, plan
        self.sampler = plan.sampler(model, tokenizer)
        self._wanted: dict[tuple[int, int], Sequence[Order]] = {}

    def want(self, step: int, round: int, orders: Sequence[Order]) -> None:
        self._wanted[step, round] = orders

    def take(self, step: int, round: int) -> list[list[Attempt] | None]:
        orders = self._wanted.pop((step, round))
        problems = [(self.tasks[each.entry], each.problem) for each in orders]
        seeds = [each.seed for each in orders]
        self.model.eval()
        plan = self.plan
        answers = run_sync(
            roll_out_seeded(self.sampler, problems, seeds=seeds, samples=plan.samples, params=plan.params)
        )
        self.model.train()
        return [*answers]

    def updating(self) -> AbstractContextManager[None]:
        return self.sampler.engine.update_weights()

    def report(self) -> RolloutReport:
        return RolloutReport()

    def close(self) -> None:
        run_sync(self.sampler.close())


OpenRollouts = Callable[[Transformer, Tokenizer, Sequence[Task], RolloutPlan], Rollouts]

_elsewhere: OpenRollouts | None = None


def open_rollouts() -> OpenRollouts:
    """What the launcher chose; in this process where it chose nothing."""
    return _elsewhere or LocalRollouts


def sampled_elsewhere() -> bool:
    """Whether the launcher chose where answers are sampled."""
    return _elsewhere is not None


@contextmanager
def rollouts_by(opener: OpenRollouts) -> Iterator[None]:
    """Runs inside sample where `opener` says."""
    global _elsewhere
    before, _elsewhere = _elsewhere, opener
    try:
        yield
    finally:
        _elsewhere = before
