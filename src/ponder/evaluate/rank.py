"""People's judgements of answers: answers are made, shown blind and in random order, and ranked.

Two files of JSON lines grow and are resumed from: the answers, as they were made, and the judgements, which training
reads (docs/alignment.md). A page or a terminal shows what `Session.next` gives.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

from ponder.dialogue.interchange import from_dicts, to_dicts
from ponder.dialogue.messages import Message
from ponder.model.storage import writing
from ponder.tasks.gym import question_hash
from ponder.think.reasoner import Reasoner
from ponder.think.strategy import RunSettings
from ponder.types import DataError, FormatError, InvalidRequest, StopReason

MOST = 26  # answers to a prompt: one letter each
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """Answers to one prompt that are all different.

    made: how each was made.
    """

    prompt: tuple[Message, ...]
    answers: tuple[Message, ...]
    made: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person is to judge.

    number: of the set.
    order: the answers in the order in which they are shown, by their numbers in the set.
    repeat: whether this person has judged them before, in another order.
    """

    number: int
    order: tuple[int, ...]
    repeat: bool


def make_answers(
    reasoner: Reasoner,
    prompt: Sequence[Message],
    n: int,
    *,
    strategies: Sequence[str] = ("direct",),
    temperatures: Sequence[float] = (1.0,),
    seed: int = 0,
    settings: RunSettings | None = None,
) -> AnswerSet:
    """`n` answers, by the strategies and temperatures in turn. Equal ones are one answer, and so are fewer; cut off or
    empty ones are left out."""
    if not 2 <= n <= MOST:
        raise InvalidRequest(f"n must be from 2 to {MOST} (got {n})")
    ways = [(strategy, temperature) for temperature in temperatures for strategy in strategies]
    answers: list[Message] = []
    made: list[str] = []
    key = question_hash(json.dumps(to_dicts(prompt)))
    for number in range(n):
        strategy, temperature = ways[number % len(ways)]
        own = Random(f"{seed}/{key}/{number}").getrandbits(31)
        asked: RunSettings = {**(settings or {}), "strategy": strategy, "temperature": temperature, "seed": own}
        answer = reasoner.ask(tuple(prompt), **asked)
        whole = answer.stop_reason in (StopReason.END, StopReason.STOP) and answer.text.strip()
        if whole and answer.text.strip() not in {each.text.strip() for each in answers}:
            answers.append(answer.message)
            made.append(f"{strategy}, temperature {temperature:g}, seed {own}")
    return AnswerSet(tuple(prompt), tuple(answers), tuple(made))


class AnswerFile:
    """The answers to rank, a set a line, in the order in which they were made."""

    def __init__(self, path: Path) -> None:
        """Raises DataError, with the line, for a file of something else."""
        self.path = path
        self.sets = [self._read(where, record) for where, record in _records(path)]

    def holds(self, prompt: Sequence[Message]) -> bool:
        return any(to_dicts(each.prompt) == to_dicts(prompt) for each in self.sets)

    def add(self, answers: AnswerSet) -> None:
        record = {
            "prompt": to_dicts(answers.prompt),
            "completions": [to_dicts([each]) for each in answers.answers],
            "made": list(answers.made),
        }
        _append(self.path, record)
        self.sets.append(answers)

    def _read(self, where: str, record: Mapping[str, Any]) -> AnswerSet:
        try:
            answers = tuple(message for each in record["completions"] for message in from_dicts(each))
            return AnswerSet(from_dicts(record["prompt"]), answers, tuple(record["made"]))
        except (KeyError, TypeError, FormatError) as error:
            raise DataError(f"{where}: is not a set of answers ({error}): name another file") from error


class Session:
    """One person judges the sets of a file, one after the other.

    repeat: the share of the sets that is shown a second time, once all have been judged, to see how far the person
        agrees with themselves.
    """

    def __init__(
        self, path: Path, sets: Sequence[AnswerSet], *, rater: str, repeat: float = 0.1, seed: int = 0
    ) -> None:
        """path: of the judgements; what it holds already is not asked again. Raises DataError."""
        if not 0 <= repeat <= 1:
            raise InvalidRequest(f"the share of repeats must be from 0 to 1 (got {repeat:g})")
        self.path, self.sets, self.rater, self.seed = path, sets, rater, seed
        self.records = [record for _, record in _records(path)]
        judged = [number for number, each in enumerate(sets) if len(each.answers) > 1]
        self._first = judged
        again = Random(f"repeat/{seed}/{rater}").sample(judged, round(repeat * len(judged)))
        self._repeats = sorted(again)

    def next(self) -> Shown | None:
        """What is to be judged now. None: nothing is left."""
        mine = [record for record in self.records if record.get("rater") == self.rater]
        for repeat, numbers in ((False, self._first), (True, self._repeats)):
            done = {record.get("set") for record in mine if bool(record.get("repeat")) is repeat}
            for number in numbers:
                if number not in done:
                    return Shown(number, self._order(number, repeat=repeat), repeat)
        return None

    @property
    def left(self) -> int:
        """How many sets are still to be shown, repeats included."""
        mine = sum(record.get("rater") == self.rater for record in self.records)
        return len(self._first) + len(self._repeats) - mine

    def add(self, shown: Shown, ranks: Sequence[int | None], reason: str = "") -> None:
        """Write a judgement down, synced. ranks: in the order shown; all None: the set was skipped."""
        answers = self.sets[shown.number]
        own: list[int | None] = [None] * len(answers.answers)
        for place, rank in zip(shown.order, ranks, strict=True):
            own[place] = rank
        record: dict[str, Any] = {
            "prompt": to_dicts(answers.prompt),
            "completions": [to_dicts([each]) for each in answers.answers],
            "ranks": own,
            "rater": self.rater,
            "set": shown.number,
        }
        record |= {"reason": reason} if reason else {}
        record |= {"repeat": True} if shown.repeat else {}
        _append(self.path, record)
        self.records.append(record)

    def _order(self, number: int, *, repeat: bool) -> tuple[int, ...]:
        count = len(self.sets[number].answers)
        key = f"{self.seed}/{self.rater}/{number}"
        first = Random(key).sample(range(count), count)
        order = Random(f"{key}/again").sample(range(count), count) if repeat else first
        return tuple(order if not repeat or order != first else reversed(order))


def parse_ranks(text: str, count: int) -> list[int | None]:
    """The ranks that a line of letters says, the best first: "b a=c" (or "b > a = c"): b, then a and c alike. Letters
    that are left out were not judged. Raises InvalidRequest for anything else."""
    groups = [
        re.split(r"\s*=\s*", group) for group in re.split(r"[\s>,]+", re.sub(r"\s*=\s*", "=", text.strip().lower()))
    ]
    ranks: list[int | None] = [None] * count
    rank = 1
    for group in groups:
        for letter in group:
            place = _LETTERS.find(letter) if len(letter) == 1 else -1
            if not 0 <= place < count:
                raise InvalidRequest(f"{letter!r} is not an answer: write letters from a to {_LETTERS[count - 1]}")
            if ranks[place] is not None:
                raise InvalidRequest(f"{letter!r} stands twice: name each answer once")
            ranks[place] = rank
        rank += len(group)
    if sum(each is not None for each in ranks) < 2:
        raise InvalidRequest("one answer cannot be ranked alone: name at least two, or s to skip")
    return ranks


def self_agreement(records: Sequence[Mapping[str, Any]]) -> tuple[float, int] | None:
    """(the share of pairs that a person ordered alike both times, how many pairs); ties among them. None: none was
    shown twice."""
    alike: list[bool] = []
    first = {(record.get("rater"), record.get("set")): record for record in records if not record.get("repeat")}
    for record in records:
        before = first.get((record.get("rater"), record.get("set")))
        if record.get("repeat") and before is not None:
            alike += _alike(before["ranks"], record["ranks"])
    return (sum(alike) / len(alike), len(alike)) if alike else None


def _alike(one: Sequence[int | None], other: Sequence[int | None]) -> list[bool]:
    found = []
    for a, b in combinations(range(len(one)), 2):
        before, after = _compared(one[a], one[b]), _compared(other[a], other[b])
        if before is not None and after is not None:
            found.append(before == after)
    return found


def _compared(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else (a > b) - (a < b)


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(place, record) of each whole line. What a crash has cut off is removed from the file."""
    if not path.is_file():
        return []
    whole, records = 0, []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        whole += len(line)
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: is not valid JSON ({error}): mend or remove the line") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: must be a JSON object: mend or remove the line")
        records.append((f"{path}:{number}", record))
    os.truncate(path, whole)
    return records


def _append(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path), path.open("ab") as stream:
        stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
