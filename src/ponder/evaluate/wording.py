"""What another wording of the question does: the same problems asked in two ways, and their paired difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from ponder.evaluate.intervals import Interval
from ponder.evaluate.measure import Result, measure
from ponder.sampler.protocol import Sampler
from ponder.tasks.protocol import EnvironmentTask, Grade, Problem, Task
from ponder.think import AskSettings, Strategy
from ponder.types import InvalidRequest

SLOT = "{question}"
BOOTSTRAPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The mean score of the second wording less that of the first, over the same problems, with its 95% interval.

    tokens: the same of the completion tokens of a problem.
    """

    task: str
    n: int
    before: float
    after: float
    difference: float
    interval: Interval
    tokens: float

    @property
    def measurable(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.interval.low <= 0 <= self.interval.high

    def words(self) -> str:
        """The effect in one line."""
        scores = f"{self.task}: mean score {self.before:.3f} before, {self.after:.3f} after (n = {self.n})"
        how = f"difference {self.difference:+.3f} ({self.interval.low:+.3f} to {self.interval.high:+.3f})"
        verdict = how if self.measurable else f"no measurable effect: {how}"
        return f"{scores}; {verdict}; {self.tokens:+.0f} completion tokens a problem"


class Reworded:
    """A task whose questions are put in other words. Its problems are graded by the task itself, as they were drawn."""

    def __init__(self, task: Task) -> None:
        """Raises InvalidRequest for an environment, which words its own turns."""
        if isinstance(task, EnvironmentTask):
            raise InvalidRequest(
                f"{task.name} is an environment, whose questions cannot be worded: choose another task"
            )
        self._task = task
        self._drawn: dict[str, Problem] = {}

    @property
    def name(self) -> str:
        return self._task.name

    def reworded(self, problem: Problem, question: str) -> Problem:
        """The problem with another question."""
        asked = replace(problem, question=question)
        self._drawn[asked.question] = problem
        return asked

    def sample(self, rng: Random, level: float) -> Problem:
        return self._task.sample(rng, level)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return self._task.grade(self._drawn.get(problem.question, problem), answer)

    def same(self, a: str, b: str) -> bool:
        return self._task.same(a, b)


class Worded(Reworded):
    """A task whose questions stand in a template."""

    def __init__(self, task: Task, template: str) -> None:
        """Raises InvalidRequest for a template without its slot, and as `Reworded`."""
        if template.count(SLOT) != 1:
            raise InvalidRequest(
                f"a wording must hold {SLOT} once (got {template[:80]!r}): put it where the question goes"
            )
        super().__init__(task)
        self._template = template

    def worded(self, problem: Problem) -> Problem:
        """The problem with its question in the template."""
        return self.reworded(problem, self._template.replace(SLOT, problem.question))

    def sample(self, rng: Random, level: float) -> Problem:
        return self.worded(super().sample(rng, level))


def wording_effect(
    sampler: Sampler,
    task: Task,
    problems: Sequence[Problem],
    before: str,
    after: str,
    strategy: Strategy,
    *,
    concurrency: int = 64,
    settings: AskSettings | None = None,
) -> Effect:
    """Ask the same problems in two wordings.

    before, after: templates that hold `{question}`.
    Raises InvalidRequest for a template without it.
    """
    results: list[Result] = []
    for template in (before, after):
        worded = Worded(task, template)
        asked = [worded.worded(problem) for problem in problems]
        results.append(measure(sampler, worded, asked, strategy, concurrency=concurrency, settings=settings))
    return paired_effect(*results)


def paired_effect(before: Result, after: Result) -> Effect:
    """The effect between two results over the same problems in the same order: a percentile bootstrap over problems
    (Efron, Ann. Stat. 7, 1979), the same every time."""
    first, second = (np.array([item.grade.score for item in each.items]) for each in (before, after))
    differences = second - first
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(len(differences), size=len(differences))].mean() for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(means, (0.025, 0.975))
    tokens = (after.usage.completion_tokens - before.usage.completion_tokens) / len(differences)
    return Effect(
        task=before.task,
        n=len(differences),
        before=float(first.mean()),
        after=float(second.mean()),
        difference=float(differences.mean()),
        interval=Interval(float(low), float(high)),
        tokens=tokens,
    )
