"""People's judgements of answers, as JSON lines: pairs, rankings, labels, and steps (docs/alignment.md).

The kinds are those of TRL (preference with an explicit or an implicit prompt, unpaired preference, stepwise
supervision), and rankings of any number of answers. Every error names the file and the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ponder.dialogue.interchange import to_dicts
from ponder.dialogue.messages import Message, Role, ToolCall
from ponder.dialogue.tools import Tool, tool_dict
from ponder.tasks.gym import question_hash
from ponder.train.data.dialogues import (
    Entry,
    declared_tools,
    message_list,
    prompt_entries,
    read_messages,
    without_nulls,
)
from ponder.train.data.records import Record, read_records
from ponder.types import DataError, FormatError

_TURN = re.compile(r"\n\n(Human|Assistant):")  # how hh-rlhf spells a conversation
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_KINDS = '"chosen" and "rejected", "completions" and "ranks", "completion" and "label", or "completions" and "labels"'
_LISTS = ("messages", "conversations", "conversation")

Prompt = tuple[Message, ...]
Answer = tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Answers to one prompt, in the order in which a person prefers them. A pair is a ranking of two.

    answers: each begins and ends with a message of the assistant; nearly always it is one message.
    ranks: of each answer: 1 is the best, equal ranks are a tie, None was not judged.
    margin: by how much a better answer's score should at least exceed a worse one's.
    weight: how much the judgement counts.
    rater: who judged; "": not known.
    reason: why, in words.
    """

    prompt: Prompt
    tools: tuple[Tool, ...] = ()
    answers: tuple[Answer, ...]
    ranks: tuple[int | None, ...]
    margin: float = 0.0
    weight: float = 1.0
    rater: str = ""
    reason: str = ""

    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) of every two answers whose ranks differ, by number."""
        found = []
        for one, other in combinations(range(len(self.answers)), 2):
            a, b = self.ranks[one], self.ranks[other]
            if a is not None and b is not None and a != b:
                found.append((one, other) if a < b else (other, one))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """One answer to a prompt, and whether it is a good one (unpaired preference)."""

    prompt: Prompt
    tools: tuple[Tool, ...] = ()
    answer: Answer
    good: bool
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepwise:
    """Steps towards the answer to a prompt, and how good each is.

    labels: of each step, from 0 (wrong) to 1 (right); None: not judged.
    answer: what is said after the steps, which are then the thinking; None: the steps are what is said.
    """

    prompt: Prompt
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]
    answer: str | None = None


Judgement = Ranking | Labelled | Stepwise


def read_judgements(path: Path) -> Iterator[tuple[str, Judgement]]:
    """(place, judgement) for each record of a file, or of a folder of them. Raises DataError, which names the place."""
    for where, record in read_records(path):
        try:
            yield where, judgement_from(record)
        except FormatError as error:
            raise DataError(f"{where}: {error}") from error


def read_rankings(path: Path) -> Iterator[tuple[str, Ranking]]:
    """As `read_judgements`, of a file of rankings and pairs alone."""
    for where, judged in read_judgements(path):
        if not isinstance(judged, Ranking):
            raise DataError(f"{where}: is not a ranking of answers: write {_KINDS.split(', or')[0]}")
        yield where, judged


def read_labelled(path: Path) -> Iterator[tuple[str, Labelled]]:
    """As `read_judgements`, of a file of labelled answers. A pair is two of them, the better one good."""
    for where, judged in read_judgements(path):
        if isinstance(judged, Labelled):
            yield where, judged
            continue
        if not isinstance(judged, Ranking) or len(judged.answers) != 2 or not judged.pairs():
            raise DataError(f'{where}: is not a labelled answer: write "prompt", "completion" and "label"')
        ((better, worse),) = judged.pairs()
        for number, good in ((better, True), (worse, False)):
            yield (
                where,
                Labelled(
                    prompt=judged.prompt,
                    tools=judged.tools,
                    answer=judged.answers[number],
                    good=good,
                    weight=judged.weight,
                ),
            )


def read_stepwise(path: Path) -> Iterator[tuple[str, Stepwise]]:
    """As `read_judgements`, of a file of labelled steps alone."""
    for where, judged in read_judgements(path):
        if not isinstance(judged, Stepwise):
            raise DataError(f'{where}: has no labels of steps: write "prompt", "completions" and "labels"')
        yield where, judged


def judgement_from(record: Record) -> Judgement:
    """The judgement of one record. Raises FormatError for what is not one.

    Keys that no kind has are the writer's own.
    """
    record = without_nulls(record)
    if "chosen" in record and "rejected" in record:
        return _pair(record)
    if "completions" in record and "ranks" in record:
        return _ranking(record)
    if "completions" in record and "labels" in record:
        return _stepwise(record)
    if "completion" in record and "label" in record:
        return _labelled(record)
    has = ", ".join(map(repr, sorted(record))) or "nothing"
    raise FormatError(f"not a judgement of answers (it has {has}): write {_KINDS}")


def fault_of(judged: Judgement) -> str:
    """Why a judgement cannot be learned from: an empty answer, or two that are equal. "": it can."""
    if isinstance(judged, Stepwise):
        empty = [number for number, step in enumerate(judged.steps, 1) if not step.strip()]
        return f"step {empty[0]} is empty" if empty else ""
    answers = judged.answers if isinstance(judged, Ranking) else (judged.answer,)
    for number, answer in enumerate(answers):
        last = answer[-1]
        if not last.text.strip() and not any(isinstance(part, ToolCall) for part in last.parts):
            return f"answer {number + 1} is empty"
        if answer in answers[:number]:
            return f"answers {answers.index(answer) + 1} and {number + 1} are equal"
    return ""


def prompt_number(prompt: Prompt) -> int:
    """64 bits that name a prompt, the same for every judgement of its answers."""
    return int(question_hash("\n".join(f"{message.role}: {message.text}" for message in prompt)), 16)


def is_held_out(prompt: Prompt, share: float) -> bool:
    """Whether a prompt is among the given share that is kept for evaluation. All its answers are on the same side."""
    return prompt_number(prompt) < share * 2**64


def ranking_record(ranking: Ranking) -> Record:
    """What `judgement_from` reads as `ranking`: messages, and where they say something the margin, weight and rater."""
    record: Record = {
        "prompt": to_dicts(ranking.prompt),
        "completions": [to_dicts(answer) for answer in ranking.answers],
        "ranks": list(ranking.ranks),
    }
    if ranking.tools:
        record["tools"] = list(map(tool_dict, ranking.tools))
    said = {"margin": (ranking.margin, 0.0), "weight": (ranking.weight, 1.0)}
    said |= {"rater": (ranking.rater, ""), "reason": (ranking.reason, "")}  # type: ignore[dict-item]
    return record | {key: value for key, (value, default) in said.items() if value != default}


def trl_pairs(ranking: Ranking) -> list[Record]:
    """The ranking as TRL's preference records, one for each two answers whose ranks differ."""
    prompt = to_dicts(ranking.prompt)
    margin: Record = {"margin": ranking.margin} if ranking.margin else {}
    tools: Record = {"tools": list(map(tool_dict, ranking.tools))} if ranking.tools else {}
    answers = [to_dicts(answer) for answer in ranking.answers]
    return [
        {"prompt": prompt, "chosen": answers[better], "rejected": answers[worse], **margin, **tools}
        for better, worse in ranking.pairs()
    ]


# The kinds ------------------------------------------------------------------------------------------------------------


def _pair(record: Record) -> Ranking:
    sides = [_written(record[key], key) for key in ("chosen", "rejected")]
    prompt = _prompt(record, sides)
    if prompt is None:
        prompt, sides = _without_common(sides)
    return _judged(record, prompt, sides, (1, 2), "chosen and rejected")


def _ranking(record: Record) -> Ranking:
    completions, ranks = record["completions"], record["ranks"]
    if not isinstance(completions, list) or not isinstance(ranks, list) or len(completions) != len(ranks):
        raise FormatError('"completions" and "ranks" must be lists of one length')
    if len(completions) < 2:
        raise FormatError(f"a ranking must have at least 2 completions (got {len(completions)})")
    for rank in ranks:
        if rank is not None and (type(rank) is not int or rank < 1):
            raise FormatError(f"a rank must be a whole number from 1 on, or null (got {rank!r})")
    sides = [_written(each, f"completions[{number}]") for number, each in enumerate(completions)]
    prompt = _prompt(record, sides)
    if prompt is None:
        raise FormatError('a ranking must have a "prompt": write it beside "completions"')
    return _judged(record, prompt, sides, tuple(ranks), "completions")


def _judged(
    record: Record, prompt: list[Entry], sides: Sequence[list[Entry]], ranks: tuple[int | None, ...], what: str
) -> Ranking:
    asked, answers = _conversations(prompt, sides, what)
    weight = _number(record, "weight", 1.0)
    if weight <= 0:
        raise FormatError(f'"weight" must be above 0 (got {weight:g}): leave the record out')
    return Ranking(
        prompt=asked,
        tools=declared_tools(record),
        answers=answers,
        ranks=ranks,
        margin=_number(record, "margin", 0.0),
        weight=weight,
        rater=_text(record, "rater"),
        reason=_text(record, "reason"),
    )


def _labelled(record: Record) -> Labelled:
    if not isinstance(record["label"], bool):
        raise FormatError(f'"label" must be true or false (got {record["label"]!r})')
    side = _written(record["completion"], "completion")
    prompt = _prompt(record, [side])
    if prompt is None:
        raise FormatError('a labelled answer must have a "prompt": write it beside "completion"')
    asked, (answer,) = _conversations(prompt, [side], "completion")
    return Labelled(
        prompt=asked,
        tools=declared_tools(record),
        answer=answer,
        good=record["label"],
        weight=_number(record, "weight", 1.0),
    )


def _stepwise(record: Record) -> Stepwise:
    steps, labels = record["completions"], record["labels"]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise FormatError('"completions" beside "labels" must be a list of strings, the steps, and not empty')
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise FormatError('"labels" must be a list as long as "completions"')
    for label in labels:
        if label is not None and (not isinstance(label, bool | int | float) or not 0 <= label <= 1):
            raise FormatError(f"a label must be true, false, null or a share from 0 to 1 (got {label!r})")
    if "prompt" not in record:
        raise FormatError('labels of steps must have a "prompt": write it beside "completions"')
    prompt, _ = read_messages(prompt_entries(record))
    answer = _text(record, "answer") if "answer" in record else None
    values = tuple(None if label is None else float(label) for label in labels)
    return Stepwise(prompt=prompt, steps=tuple(steps), labels=values, answer=answer)


# Prompts and answers --------------------------------------------------------------------------------------------------


def _written(value: Any, key: str) -> list[Entry]:
    """An answer as a string, one message or several."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    return message_list([value] if isinstance(value, dict) else value, key)


def _prompt(record: Record, sides: list[list[Entry]]) -> list[Entry] | None:
    """The messages before the answers; None: the record has none apart from them. Takes the prompt off the answers that
    repeat it."""
    lists = [key for key in _LISTS if key in record]
    if "prompt" in record:
        prompt = prompt_entries(record)
        spoken, _ = read_messages(prompt)
        if lists and message_list(record[lists[0]], lists[0]) not in (prompt, sides[0]):
            raise FormatError(f'"{lists[0]}" stands beside "prompt", and is neither it nor an answer: leave it out')
        for side in sides:
            if read_messages(side)[0][: len(spoken)] == spoken:
                del side[: len(spoken)]
        return prompt
    if lists:
        return prompt_entries({**record, "prompt": record[lists[0]]})
    if "instruction" in record:
        given = "\n\n".join(part for key in ("instruction", "input") if (part := _text(record, key)).strip())
        return prompt_entries({**record, "prompt": given})
    return None


def _without_common(sides: Sequence[list[Entry]]) -> tuple[list[Entry], list[list[Entry]]]:
    """An implicit prompt: the messages that both answers begin with, up to a message of the assistant's. A string must
    spell its speakers: what two strings have in common may end within a word."""
    spelled = [_turns(side) for side in sides]
    shared = 0
    while all(shared < len(side) for side in spelled) and spelled[0][shared] == spelled[1][shared]:
        shared += 1
    shared = min(shared, *(len(side) - 1 for side in spelled))  # equal answers are answers too
    while shared and read_messages(spelled[0][shared : shared + 1])[0][0].role is not Role.ASSISTANT:
        shared -= 1
    if not shared:
        raise FormatError('"chosen" and "rejected" do not begin with the same messages: write the "prompt" apart')
    return spelled[0][:shared], [side[shared:] for side in spelled]


def _turns(side: list[Entry]) -> list[Entry]:
    """The turns that a single text spells as hh-rlhf does."""
    text = side[0].get("content") if len(side) == 1 else None
    if not isinstance(text, str) or side[0].get("role") != "assistant":
        return side
    pieces = _TURN.split(text)
    if len(pieces) < 5 or pieces[0].strip():
        raise FormatError(
            'a pair of strings must have a "prompt", or spell its turns ("\\n\\nHuman: …\\n\\nAssistant: …"): what '
            "two strings begin with in common may end within a word"
        )
    return [
        {"role": _SPEAKERS[speaker], "content": said.strip()}
        for speaker, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def _conversations(prompt: list[Entry], sides: Sequence[list[Entry]], what: str) -> tuple[Prompt, tuple[Answer, ...]]:
    """The messages of the prompt, and of each answer after it."""
    if not prompt:
        raise FormatError("the prompt is empty: write what was asked")
    asked, _ = read_messages(prompt)
    if asked[-1].role is Role.ASSISTANT:
        raise FormatError("the prompt ends with a message of the assistant: write it into the answers")
    answers = []
    for number, side in enumerate(sides, 1):
        messages, weights = read_messages([*prompt, *side])
        if any(weight not in (1, True) for weight in weights):
            raise FormatError(f"{what}: a 'weight' of a single message is not read here: leave it out")
        answer = messages[len(prompt) :]
        if not answer or answer[0].role is not Role.ASSISTANT or answer[-1].role is not Role.ASSISTANT:
            raise FormatError(f"{what}: answer {number} must begin and end with a message of the assistant")
        answers.append(answer)
    return asked, tuple(answers)


def _number(record: Record, key: str, default: float) -> float:
    value = record.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f'"{key}" must be a number (got {value!r})')
    return float(value)


def _text(record: Record, key: str) -> str:
    value = record.get(key, "")
    if not isinstance(value, str):
        raise FormatError(f'"{key}" must be a string (got {type(value).__name__})')
    return value
