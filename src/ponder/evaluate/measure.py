"""Ask, grade, count: how well one strategy does on the problems of one task, and what it costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from ponder.dialogue.messages import Message
from ponder.evaluate.acting import Acting
from ponder.evaluate.intervals import Interval, wilson
from ponder.evaluate.problems import overlap
from ponder.sampler.protocol import Delivery, Sampler
from ponder.sampler.threads import run_sync
from ponder.tasks.families import FAMILIES
from ponder.tasks.gym import GymTask, question_hash
from ponder.tasks.protocol import (
    AsyncGrader,
    Checkable,
    EnvironmentTask,
    Grade,
    GradeStatus,
    MessageGrader,
    Problem,
    SelfChecking,
    Task,
    Try,
)
from ponder.think import Answer, Ask, AskSettings, Ledger, Strategy, answer_of
from ponder.types import InvalidRequest, StopReason, Usage

_WHOLE = (StopReason.END, StopReason.STOP)


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the answers that a strategy drew.

    tries: the attempts in its reasoning, where the task can tell them.
    """

    solved: bool
    tries: tuple[Try, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One problem asked once.

    truncated: the share of its samples that ran out of tokens.
    drawn: every sample, graded on its own.
    right_by_logic: whether the answer is right by logic, where the task's keys are not (`by_logic`); None: not asked.
    """

    question: str
    gold: str
    answer: str
    grade: Grade
    usage: Usage
    stop_reason: StopReason
    truncated: float
    samples: int
    margin: float | None
    seen_in_training: bool | None
    drawn: tuple[Sample, ...] = ()
    right_by_logic: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One task under one mode. "Solved" is a score of at least 0.99; `mean_score` includes partial credit."""

    task: str
    mode: str
    items: tuple[Item, ...]
    seconds: float

    @property
    def n(self) -> int:
        return len(self.items)

    @property
    def solved(self) -> int:
        return sum(item.grade.solved for item in self.items)

    @property
    def accuracy(self) -> float:
        return self.solved / self.n

    @property
    def interval(self) -> Interval:
        return wilson(self.solved, self.n)

    @property
    def mean_score(self) -> float:
        return sum(item.grade.score for item in self.items) / self.n

    @property
    def truncation_rate(self) -> float:
        return sum(item.truncated for item in self.items) / self.n

    @property
    def usage(self) -> Usage:
        return sum((item.usage for item in self.items), Usage())

    @property
    def by_logic(self) -> int | None:
        """How many answers are right by logic, whatever the keys say; None for tasks whose keys are not in question."""
        rights = [item.right_by_logic for item in self.items]
        return None if None in rights else sum(map(bool, rights))

    @property
    def unseen(self) -> tuple[int, int] | None:
        """(solved, asked) among questions that training did not see; None where that is not known."""
        if any(item.seen_in_training is None for item in self.items):
            return None
        fresh = [item for item in self.items if not item.seen_in_training]
        return sum(item.grade.solved for item in fresh), len(fresh)

    def summary(self) -> dict[str, object]:
        """The numbers, without the items. Token counts are means per problem, over all samples of a vote."""
        usage, n = self.usage, self.n
        statuses = {status.value: sum(item.grade.status is status for item in self.items) for status in GradeStatus}
        numbers: dict[str, object] = {
            "task": self.task,
            "mode": self.mode,
            "n": n,
            "solved": self.solved,
            "accuracy": self.accuracy,
            "interval_95": [self.interval.low, self.interval.high],
            "mean_score": self.mean_score,
            "prompt_tokens": usage.prompt_tokens / n,
            "reasoning_tokens": usage.reasoning_tokens / n,
            "answer_tokens": (usage.completion_tokens - usage.reasoning_tokens) / n,
            "truncation_rate": self.truncation_rate,
            "grades": {status: count for status, count in statuses.items() if count},
            "seconds": self.seconds,
        }
        if self.by_logic is not None:
            interval = wilson(self.by_logic, n)
            numbers |= {"accuracy_by_logic": self.by_logic / n, "interval_95_by_logic": [interval.low, interval.high]}
        if self.unseen is not None:
            solved, asked = self.unseen
            numbers |= {"seen_in_training": n - asked, "accuracy_unseen": solved / asked if asked else None}
        return numbers


def measure(
    sampler: Sampler,
    task: Task,
    problems: Sequence[Problem],
    mode: Strategy,
    *,
    name: str | None = None,
    concurrency: int = 64,
    trained_on: frozenset[str] | None = None,
    settings: AskSettings | None = None,
) -> Result:
    """Ask every problem by the strategy `mode`, `concurrency` at a time, and grade with the task's own grade. In an
    environment the model has its tools, and limits on thinking hold for each turn.

    name: of the mode, in reports.
    trained_on: question hashes of the training data, to tell seen from unseen.
    settings: of every ask, beside those that the strategy brings.

    Works during training too, on a sampler over the module that trains. Raises what the sampler raises.
    """
    return run_sync(
        measure_async(
            sampler,
            task,
            problems,
            mode,
            name=name,
            concurrency=concurrency,
            trained_on=trained_on,
            settings=settings,
        )
    )


async def measure_async(
    sampler: Sampler,
    task: Task,
    problems: Sequence[Problem],
    mode: Strategy,
    *,
    name: str | None = None,
    concurrency: int = 64,
    trained_on: frozenset[str] | None = None,
    settings: AskSettings | None = None,
) -> Result:
    """`measure`, awaited."""
    if not problems:
        raise InvalidRequest(f"{task.name}: the list of problems is empty: give at least 1")
    began = time.monotonic()
    seen = [None] * len(problems) if trained_on is None else overlap(problems, trained_on)
    gate = asyncio.Semaphore(concurrency)

    async def one(problem: Problem, seen_in_training: bool | None) -> Item:
        async with gate:
            shown = partial(task.check, problem) if isinstance(task, Checkable) else None
            ask = Ask.of(problem.question, same=task.same, verifier=shown).override(**(settings or {}))
            ledger = Ledger(delivery=Delivery(deltas=not sampler.capabilities.exact))  # an endpoint bills stops then
            if isinstance(task, EnvironmentTask):
                acting = Acting(sampler, task, problem)
                answer = await answer_of(mode, ask, acting, ledger)
                played = tuple(Sample(attempt.grade.solved) for attempt in acting.attempts)
                return item_of(problem, answer, acting.grade(answer), seen_in_training, played)
            answer = await answer_of(mode, ask, sampler, ledger)
        grade = await grade_whole(task, problem, answer.message, complete=answer.stop_reason in _WHOLE)
        drawn = await samples_of(task, problem, answer, grade)
        item = item_of(problem, answer, grade, seen_in_training, drawn)
        return replace(item, right_by_logic=await asyncio.to_thread(right_by_logic, task, problem, answer.text))

    work = [asyncio.ensure_future(one(*pair)) for pair in zip(problems, seen, strict=True)]
    try:
        items = await asyncio.gather(*work)
    finally:
        for each in work:
            each.cancel()
    return Result(task=task.name, mode=name or mode.name, items=tuple(items), seconds=time.monotonic() - began)


async def grade_async(task: Task, problem: Problem, answer: str) -> Grade:
    """The task's grade, without holding up the event loop where the task can wait for it."""
    if isinstance(task, AsyncGrader):
        return await task.grade_async(problem, answer)
    return task.grade(problem, answer)


async def grade_whole(task: Task, problem: Problem, message: Message, *, complete: bool) -> Grade:
    """As `grade_async`, by all that the task reads of what a model wrote. complete: whether nothing cut it off."""
    if isinstance(task, MessageGrader):
        return await asyncio.to_thread(partial(task.grade_message, problem, message, complete=complete))
    return await grade_async(task, problem, message.text)


async def samples_of(task: Task, problem: Problem, answer: Answer, grade: Grade) -> tuple[Sample, ...]:
    """Every sample that led to an answer; the same text is graded once.

    grade: of the answer itself.
    """
    completions = answer.completions
    others = list({each.text for each in completions} - {answer.text})
    grades = await asyncio.gather(*(grade_async(task, problem, text) for text in others))
    solved = {answer.text: grade.solved} | {text: each.solved for text, each in zip(others, grades, strict=True)}
    checking = self_checking(task)
    return tuple(
        Sample(solved[each.text], None if checking is None else tuple(checking.tries(problem, each.reasoning)))
        for each in completions
    )


def right_by_logic(task: Task, problem: Problem, answer: str) -> bool | None:
    """Whether logic accepts the answer, for a dataset of which some keys are not valid inferences; else None."""
    if task.name not in ("syllogism", "gym:syllogism", "gym:syllogism@hard"):
        return None
    from ponder.tasks.prove.syllogisms import follows_by_logic

    return answer.strip().lower() == ("yes" if follows_by_logic(problem.question) else "no")


def self_checking(task: Task) -> SelfChecking | None:
    """The task itself, or, for a reasoning-gym dataset, the family of its name, where that can tell its tries."""
    family = FAMILIES.get(task.dataset) if isinstance(task, GymTask) else task
    return family if isinstance(family, SelfChecking) else None


def item_of(
    problem: Problem, answer: Answer, grade: Grade, seen_in_training: bool | None, drawn: tuple[Sample, ...]
) -> Item:
    """One line of a result."""
    samples = len(answer.completions)
    truncated = sum(each.stop_reason in (StopReason.LENGTH, StopReason.REPEATED) for each in answer.completions)
    return Item(
        question=problem.question,
        gold=problem.answer,
        answer=answer.text,
        grade=grade,
        usage=answer.usage,
        stop_reason=answer.stop_reason,
        truncated=truncated / samples,
        samples=samples,
        margin=answer.margin,
        seen_in_training=seen_in_training,
        drawn=drawn,
    )


def line_of(item: Item) -> dict[str, object]:
    """An item as JSON."""
    return {
        "question_hash": question_hash(item.question),
        "question": item.question,
        "gold": item.gold,
        "answer": item.answer,
        "score": item.grade.score,
        "status": item.grade.status.value,
        "why": item.grade.why,
        "stop_reason": item.stop_reason.value,
        "samples": item.samples,
        "samples_solved": sum(each.solved for each in item.drawn),
        "margin": item.margin,
        "prompt_tokens": item.usage.prompt_tokens,
        "completion_tokens": item.usage.completion_tokens,
        "reasoning_tokens": item.usage.reasoning_tokens,
        "seen_in_training": item.seen_in_training,
        **({} if item.right_by_logic is None else {"right_by_logic": item.right_by_logic}),
    }
