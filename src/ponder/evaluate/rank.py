"""People's judgements of answers: answers are made, shown blind and in random order, and ranked.

Two files of JSON lines grow and are resumed from: the answers, as they were made, and the judgements, which training
reads (docs/alignment.md). A page or a terminal shows what `Session.next` gives.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, cast

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
    offered: list[tuple[Message, str]] = []
    key = question_hash(json.dumps(to_dicts(prompt)))
    for number in range(n):
        strategy, temperature = ways[number % len(ways)]
        own = Random(f"{seed}/{key}/{number}").getrandbits(31)
        asked: RunSettings = {**(settings or {}), "strategy": strategy, "temperature": temperature, "seed": own}
        answer = reasoner.ask(tuple(prompt), **asked)
        if answer.stop_reason in (StopReason.END, StopReason.STOP):
            offered.append((answer.message, f"{strategy}, temperature {temperature:g}, seed {own}"))
    return different(prompt, offered)


def different(prompt: Sequence[Message], offered: Sequence[tuple[Message, str]]) -> AnswerSet:
    """The set of whole answers that differ, each with how it was made. Empty ones are left out, and so are repeats."""
    kept: dict[str, tuple[Message, str]] = {}
    for answer, made in offered:
        if answer.text.strip():
            kept.setdefault(answer.text.strip(), (answer, made))
    return AnswerSet(
        tuple(prompt), tuple(answer for answer, _ in kept.values()), tuple(made for _, made in kept.values())
    )


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

    repeat: the share of sets that is shown a second time, to see how far the person agrees with themselves. With 0.1,
        every tenth set is followed by an earlier one in another order; the person is not told.
    """

    def __init__(
        self, path: Path, sets: Sequence[AnswerSet], *, rater: str, repeat: float = 0.1, seed: int = 0
    ) -> None:
        """path: of the judgements; what it holds already is not asked again. Raises DataError."""
        if not 0 <= repeat <= 1:
            raise InvalidRequest(f"the share of repeats must be from 0 to 1 (got {repeat:g})")
        self.path, self.sets, self.rater, self.repeat, self.seed = path, sets, rater, repeat, seed
        self.records = [record for _, record in _records(path)]

    def next(self) -> Shown | None:
        """What is to be judged now. None: nothing is left."""
        first, again = self._judged(repeat=False), self._judged(repeat=True)
        candidates = self._repeatable(first, again)
        if candidates and len(again) < self._repeats(len(first)):
            number = Random(f"repeat/{self.seed}/{self.rater}/{len(again)}").choice(candidates)
            return Shown(number, self._order(number, repeat=True), True)
        done = {record.get("set") for record in first}
        for number in self._rankable():
            if number not in done:
                return Shown(number, self._order(number, repeat=False), False)
        return None

    @property
    def left(self) -> int:
        """How many sets are still to be shown, repeats included. A skipped set is not repeated."""
        first, again = self._judged(repeat=False), self._judged(repeat=True)
        fresh = len(self._rankable()) - len(first)
        could = fresh + len([record for record in first if _compares(record)]) - len(again)
        return fresh + max(0, min(self._repeats(len(first) + fresh) - len(again), could))

    def _judged(self, *, repeat: bool) -> list[dict[str, Any]]:
        """The judgements of sets by this person, in their order: the first ones, or the second ones."""
        return [
            record
            for record in self.records
            if record.get("rater") == self.rater and bool(record.get("repeat")) is repeat and "set" in record
        ]

    def _rankable(self) -> list[int]:
        return [number for number, each in enumerate(self.sets) if len(each.answers) > 1]

    def _repeats(self, judged: int) -> int:
        """How many sets are shown again once that many have been judged."""
        return int(self.repeat * judged + 1e-9)

    def _repeatable(self, first: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]) -> list[int]:
        """Sets to show again: not skipped, not repeated yet, and not those just seen, where there are others."""
        repeated = {record["set"] for record in again}
        found = [int(record["set"]) for record in first if _compares(record) and record["set"] not in repeated]
        return found[: max(1, len(found) - 3)]

    def add(self, shown: Shown, ranks: Sequence[int | None], reason: str = "", *, seconds: float | None = None) -> None:
        """Write a judgement down, synced.

        ranks: in the order shown; all None: the set was skipped.
        seconds: how long the person looked at it; None: not known.
        """
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
        record |= {"seconds": round(seconds, 1)} if seconds is not None else {}
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


def _compares(record: Mapping[str, Any]) -> bool:
    return sum(rank is not None for rank in record["ranks"]) > 1


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(place, record) of each whole line. What a crash has cut off is removed from the file."""
    if not path.is_file():
        return []
    whole, records = 0, []
    with _locked(path, "r+b") as stream:
        for number, line in enumerate(stream.read().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                stream.truncate(whole)
                break
            whole += len(line)
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: is not valid JSON ({error}): mend or remove the line") from error
            if not isinstance(record, dict):
                raise DataError(f"{path}:{number}: must be a JSON object: mend or remove the line")
            records.append((f"{path}:{number}", record))
    return records


def _append(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path), _locked(path, "ab") as stream:
        stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _locked(path: Path, mode: str) -> Iterator[BinaryIO]:
    """A file that a terminal and a server may share: neither sees half of what the other writes."""
    with cast(BinaryIO, path.open(mode)) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream
