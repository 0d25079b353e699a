"""Accuracy against compute: strategies on the same problems, each under the same budgets of tokens.

Compute is tokens times parameters, added up over the models that worked: tokens generated, prompt tokens computed (not
those found in the cache), states computed again, and what verifiers and judges read and wrote.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ponder.evaluate.intervals import Interval, bootstrap, wilson
from ponder.evaluate.measure import grade_async
from ponder.model.storage import writing
from ponder.sampler.protocol import Delivery, Sampler
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import EnvironmentTask, Grade, Problem, Task
from ponder.think import Answer, Ask, AskSettings, Ledger, Strategy, answer_of
from ponder.think.events import Event, Started, bills
from ponder.types import Budget, InvalidRequest, MissingExtra


@dataclass(frozen=True, slots=True)
class Spending:
    """What one answer took.

    tokens: see the module. compute: the same times parameters; a model whose size is not known counts as 1.
    seconds: wall time.
    """

    solved: bool
    tokens: int
    compute: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputePoint:
    """One strategy under one budget, over the problems of all tasks.

    budget: tokens for each problem; None: no limit.
    oracle: whether the task's own grade chose among its answers.
    seconds: from the first question to the last answer, many of them under way at once.
    unsized: the models whose numbers of parameters are not known.
    """

    strategy: str
    budget: int | None
    oracle: bool
    items: tuple[Spending, ...]
    seconds: float
    unsized: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        return f"{self.strategy} (oracle)" if self.oracle else self.strategy

    @property
    def accuracy(self) -> float:
        return sum(item.solved for item in self.items) / len(self.items)

    @property
    def interval(self) -> Interval:
        return wilson(sum(item.solved for item in self.items), len(self.items))

    @property
    def tokens(self) -> float:
        """The mean over the problems."""
        return sum(item.tokens for item in self.items) / len(self.items)

    @property
    def compute(self) -> float:
        """The mean over the problems."""
        return sum(item.compute for item in self.items) / len(self.items)

    @property
    def seconds_each(self) -> float:
        return self.seconds / len(self.items)


def compare_strategies(
    sampler: Sampler,
    problems: Sequence[tuple[Task, Problem]],
    strategies: Mapping[str, Strategy],
    budgets: Sequence[int | None],
    *,
    oracle: bool = False,
    concurrency: int = 64,
    settings: AskSettings | None = None,
) -> list[ComputePoint]:
    """Every strategy under every budget on the same problems, in that order.

    strategies: by the names that they have in tables.
    oracle: whether the task's own grade is the verifier of those that take one.
    concurrency: problems under way at once; the wall time depends on it.
    settings: of every ask.
    Raises InvalidRequest for environments, and what the strategies and the sampler raise.
    """
    for task, _ in problems:
        if isinstance(task, EnvironmentTask):
            raise InvalidRequest(f"{task.name} is an environment: compare strategies on tasks with one answer")
    return [
        run_sync(_point(sampler, problems, name, strategy, budget, oracle, concurrency, settings or {}))
        for name, strategy in strategies.items()
        for budget in budgets
    ]


async def _point(
    sampler: Sampler,
    problems: Sequence[tuple[Task, Problem]],
    name: str,
    strategy: Strategy,
    budget: int | None,
    oracle: bool,
    concurrency: int,
    settings: AskSettings,
) -> ComputePoint:
    gate, chose, unsized = asyncio.Semaphore(concurrency), [False], set[str]()
    began = time.monotonic()

    async def one(task: Task, problem: Problem) -> Spending:
        def verify(answer: str) -> Grade:
            chose[0] = True
            return task.grade(problem, answer)

        ask = Ask.of(problem.question, same=task.same).override(**settings)
        ask = ask.override(verifier=verify) if oracle else ask
        async with gate:
            start = time.monotonic()
            streamed = Delivery(deltas=not sampler.capabilities.exact)  # what an endpoint was stopped at is billed then
            answer = await answer_of(strategy, ask, sampler, Ledger(Budget(tokens=budget), delivery=streamed))
            seconds = time.monotonic() - start
        grade = await grade_async(task, problem, answer.text)
        unsized.update(_unsized(answer.events))
        return Spending(grade.solved, *spent(answer, sampler), seconds)

    work = [asyncio.ensure_future(one(*pair)) for pair in problems]
    try:
        items = tuple(await asyncio.gather(*work))
    finally:
        for each in work:
            each.cancel()
    return ComputePoint(
        strategy=name,
        budget=budget,
        oracle=chose[0],
        items=items,
        seconds=time.monotonic() - began,
        unsized=frozenset(unsized),
    )


def spent(answer: Answer, sampler: Sampler) -> tuple[int, float]:
    """(tokens, compute) of an answer. sampler: the model that was asked; a verifier counts with its size."""
    sizes = {event.model: event.parameters for event in answer.events if isinstance(event, Started)}
    tokens, compute = 0, 0.0
    for account, usage in bills(answer.events).items():
        computed = usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens + usage.refilled_tokens
        size = sizes.get(account.model) if account.model else sampler.capabilities.parameters
        tokens += computed
        compute += computed * (size or 1)
    return tokens, compute


def _unsized(events: Iterable[Event]) -> set[str]:
    return {event.model for event in events if isinstance(event, Started) and event.parameters is None}


def paired_difference(point: ComputePoint, base: ComputePoint) -> tuple[float, Interval]:
    """How many more of the same problems one point solves than another, as a share, with its paired 95% interval."""
    pairs = [a.solved - b.solved for a, b in zip(point.items, base.items, strict=True)]
    halves = bootstrap([(each + 1) / 2 for each in pairs])  # of values in [0, 1]
    return sum(pairs) / len(pairs), Interval(2 * halves.low - 1, 2 * halves.high - 1)


def compute_summary(points: Sequence[ComputePoint]) -> list[dict[str, object]]:
    """The points as JSON; differences are against the first strategy under the same budget."""
    found: list[dict[str, object]] = []
    for point, base in _with_base(points):
        gain, interval = paired_difference(point, base)
        found.append(
            {
                "strategy": point.strategy,
                "budget": point.budget,
                "oracle": point.oracle,
                "n": len(point.items),
                "accuracy": point.accuracy,
                "interval_95": [point.interval.low, point.interval.high],
                "difference": gain,
                "difference_95": [interval.low, interval.high],
                "tokens": point.tokens,
                "compute": point.compute,
                "seconds": point.seconds_each,
                "models_of_unknown_size": sorted(point.unsized),
                "solved": "".join(str(int(item.solved)) for item in point.items),
            }
        )
    return found


def _with_base(points: Sequence[ComputePoint]) -> list[tuple[ComputePoint, ComputePoint]]:
    bases = {point.budget: point for point in reversed(points) if point.strategy == points[0].strategy}
    return [(point, bases[point.budget]) for point in points]


def table_of_compute(points: Sequence[ComputePoint]) -> str:
    """The points as a Markdown table."""
    rows = []
    for point, base in _with_base(points):
        gain, interval = paired_difference(point, base)
        rows.append(
            f"| {point.label} | {'none' if point.budget is None else point.budget} | {point.accuracy:.3f} "
            f"| {point.interval.low:.3f}–{point.interval.high:.3f} | {gain:+.3f} | {interval.low:+.3f} to "
            f"{interval.high:+.3f} | {point.tokens:.0f} | {point.compute:.3g} | {point.seconds_each:.3f} |\n"
        )
    head = (
        "| strategy | budget | solved | 95% interval | against the first | 95% interval, paired | tokens | compute "
        "| seconds |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    notes = (
        f"Means per problem, {len(points[0].items)} problems. *tokens*: generated, computed of prompts, and of "
        "verifiers; *compute*: times parameters; *seconds*: all problems' wall time over their number"
    )
    unsized = sorted(frozenset().union(*(point.unsized for point in points)))
    notes += f". Models of unknown size count as one parameter: {', '.join(unsized)}" if unsized else ""
    oracle = "\n*oracle*: the task's own grade chose the answer." if any(point.oracle for point in points) else ""
    return f"## Accuracy against compute\n\n{head}{''.join(rows)}\n{notes}.{oracle}\n"


def plot_compute(points: Sequence[ComputePoint], file: str | Path, title: str) -> Path:
    """Draw accuracy, with its 95% intervals, against compute and against wall time. Needs the extra `plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plot") from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for label in dict.fromkeys(point.strategy for point in points):
        line = [point for point in points if point.strategy == label]
        rates = [point.accuracy for point in line]
        below = [point.accuracy - point.interval.low for point in line]
        above = [point.interval.high - point.accuracy for point in line]
        for axes, places in ((left, [each.compute for each in line]), (right, [each.seconds_each for each in line])):
            axes.errorbar(places, rates, yerr=(below, above), marker="o", capsize=2, label=line[-1].label)
    left.set(xlabel="compute per problem: tokens × parameters", ylabel="solved", ylim=(-0.02, 1.02), xscale="log")
    right.set(xlabel="seconds per problem", xscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    figure.suptitle(title)
    with writing(file):
        figure.savefig(file, dpi=150)
    return Path(file)
