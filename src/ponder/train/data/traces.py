"""Worked reasoning from any model: problems of tasks answered, graded, and kept where they are right, to tune on.

Two files: `FILE`, a dialogue a line, as `data.dialogues` reads it; and `FILE.bill`, a line for each question asked,
right or wrong, with its tokens, from which the next call knows where to go on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

from ponder.dialogue.interchange import to_dicts
from ponder.dialogue.messages import Message
from ponder.evaluate.measure import grade_async
from ponder.model.storage import writing
from ponder.sampler.protocol import Delivery, Sampler
from ponder.tasks.protocol import EnvironmentTask, Problem, Task
from ponder.tasks.registry import distinct_names
from ponder.think import Answer, Ask, AskSettings, Ledger, Strategy, answer_of
from ponder.types import DataError, InvalidRequest, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """What is asked.

    problems: of each task, at levels from min_level to max_level, drawn evenly.
    samples: answers to each problem, with seeds that follow each other.
    """

    problems: int
    samples: int = 1
    min_level: float = 0.0
    max_level: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.problems < 1 or self.samples < 1:
            raise InvalidRequest(f"problems and samples must be at least 1 (got {self.problems} and {self.samples})")
        if not 0 <= self.min_level <= self.max_level <= 1:
            raise InvalidRequest(
                f"levels must be from 0 to 1, the lowest first (got {self.min_level} and {self.max_level})"
            )


@dataclass(slots=True)
class Bill:
    """What was asked so far, over all calls that wrote to the file.

    asked: answers. right: those graded as solved. kept: those written; the rest of the right ones said the same.
    """

    asked: int = 0
    right: int = 0
    kept: int = 0
    usage: Usage = field(default_factory=Usage)

    def __str__(self) -> str:
        spent = self.usage
        return (
            f"{self.asked:,} answers, {self.right:,} right, {self.kept:,} kept; "
            f"{spent.prompt_tokens:,} prompt tokens, {spent.completion_tokens:,} completion tokens"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """One answer that is wanted. key: names it in the bill."""

    key: str
    task: Task
    problem: Problem
    level: float
    seed: int


async def write_traces(
    sampler: Sampler,
    tasks: Sequence[Task],
    settings: TraceSettings,
    path: Path,
    *,
    strategy: Strategy,
    asking: AskSettings,
    concurrency: int = 64,
    tell: Callable[[Bill], None] = lambda bill: None,
) -> Bill:
    """Ask what `path` does not hold yet, grade it, and append what is right and was not said before.

    The problems are drawn as training draws: of reasoning-gym below its held-out items. Interrupted or failed, the next
    call goes on where this one stopped. Raises InvalidRequest for environments, and DataError for a file that was begun
    with other settings or another model, or is not one of these.
    """
    for task in tasks:
        if isinstance(task, EnvironmentTask):
            raise InvalidRequest(f"{task.name} answers back, and a trace is one answer: leave it out")
    header = {"model": sampler.name, "strategy": strategy.name, **asdict(settings), **_plain(asking)}
    book = _Book(path, {**header, "tasks": distinct_names(tasks)})
    wanted = [each for each in _wanted(tasks, settings) if each.key not in book.done]
    for begin in range(0, len(wanted), concurrency):
        batch = wanted[begin : begin + concurrency]
        running = [asyncio.ensure_future(_answer(sampler, each, strategy, asking)) for each in batch]
        try:
            for each, (answer, score) in zip(batch, await asyncio.gather(*running), strict=True):
                book.add(each, answer, score)
        finally:
            for one in running:
                one.cancel()
        tell(book.bill)
    return book.bill


async def _answer(sampler: Sampler, each: _Asking, strategy: Strategy, asking: AskSettings) -> tuple[Answer, float]:
    ask = Ask.of(each.problem.question, same=each.task.same).override(**asking).override(seed=each.seed)
    answer = await answer_of(strategy, ask, sampler, Ledger(delivery=Delivery(deltas=False)))
    return answer, (await grade_async(each.task, each.problem, answer.text)).score


def _wanted(tasks: Sequence[Task], settings: TraceSettings) -> Iterator[_Asking]:
    """Task by task in turn, so that a file cut short holds all of them."""
    names = distinct_names(tasks)
    for number in range(settings.problems):
        for name, task in zip(names, tasks, strict=True):
            rng = Random(f"traces/{settings.seed}/{name}/{number}")
            level = rng.uniform(settings.min_level, settings.max_level)
            problem = task.sample(rng, level)
            for sample in range(settings.samples):
                seed = rng.getrandbits(48)
                key = f"{name}/{number}/{sample}"
                yield _Asking(key=key, task=task, problem=problem, level=level, seed=seed)


class _Book:
    """Both files. A trace is written before its line of the bill: one without a line is written again only if it says
    something else."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path, self._bill_path = path, path.with_name(path.name + ".bill")
        self.bill = Bill()
        self.done: set[str] = set()
        self._said: set[bytes] = set()
        if path.exists() and not self._bill_path.exists():
            raise DataError(f"{path}: is there already, without {self._bill_path.name}: choose another file")
        lines = _whole_lines(self._bill_path)
        if not lines:
            self._append(self._bill_path, header)
        elif lines[0] != (wanted := json.loads(json.dumps(header))):
            changed = [key for key in {**lines[0], **wanted} if lines[0].get(key) != wanted.get(key)]
            was = ", ".join(f"{key} {lines[0].get(key)!r}, now {wanted.get(key)!r}" for key in sorted(changed))
            raise DataError(f"{path}: was begun with other settings ({was}): restore them, or choose another file")
        for line in lines[1:]:
            self.done.add(line["key"])
            self._count(Usage(**line["usage"]), right=line["right"])
        for record in _whole_lines(path):
            self._said.add(_digest(record["messages"]))
        self.bill.kept = len(self._said)

    def add(self, each: _Asking, answer: Answer, score: float) -> None:
        right = score >= 0.99
        if right:
            messages = to_dicts((Message.user(each.problem.question), answer.message))
            if _digest(messages) not in self._said:
                self._said.add(_digest(messages))
                said = {"messages": messages, "task": each.problem.task, "level": round(each.level, 4), "key": each.key}
                self._append(self._path, said)
        self._append(self._bill_path, {"key": each.key, "score": score, "right": right, "usage": asdict(answer.usage)})
        self._count(answer.usage, right=right)
        self.bill.kept = len(self._said)

    def _count(self, usage: Usage, *, right: bool) -> None:
        self.bill.asked += 1
        self.bill.right += right
        self.bill.usage += usage

    @staticmethod
    def _append(path: Path, record: Mapping[str, Any]) -> None:
        with writing(path), path.open("ab") as file:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file; a last line that a crash has cut short is removed from it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise DataError(f"{path}: is not a file of traces ({error}): choose another file") from error


def _digest(messages: Sequence[Mapping[str, Any]]) -> bytes:
    return blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=16).digest()


def _plain(asking: AskSettings) -> dict[str, Any]:
    return {key: str(value) for key, value in asking.items() if value is not None}
