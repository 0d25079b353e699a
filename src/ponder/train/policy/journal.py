"""What a stage of reinforcement learning writes down: every grade before it is used, and samples for people to read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from ponder.dialogue.messages import Message, ToolCall, ToolResult
from ponder.model.storage import writing
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.tasks.turns import Attempt
from ponder.train.loop.folder import write_atomically

Groups = Sequence[Sequence[Attempt]]


class Journal:
    """`grades.jsonl`: one line for each rollout, on the disk before anything is learned from it.

    A step that a crash has cut off is sampled again, to the same answers, and gets the same grades: a grader that is
    slow today, or rolls its own dice, does not change it.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        """step: earlier ones are never asked for again."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[tuple[int, int, str], list[Grade]] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
            if not line.endswith(b"\n"):
                break  # cut short by a crash
            whole += len(line)
            record = json.loads(line)
            if record["step"] >= step:
                key = record["step"], record["round"], record["answers"]
                self._known[key] = [
                    Grade(score=s, status=GradeStatus(status), why=w) for s, status, w in record["grades"]
                ]
        self._stream = path.open("ab")
        self._stream.truncate(whole)

    def settle(self, step: int, round: int, groups: Groups) -> list[list[Attempt]]:
        """The attempts with the grades that the same answers were given before; else with their own, written down."""
        key = step, round, _digest(groups)
        grades = self._known.get(key)
        if grades is None:
            grades = [each.grade for group in groups for each in group]
            record = {
                "step": step,
                "round": round,
                "answers": key[2],
                "grades": [[grade.score, grade.status.value, grade.why] for grade in grades],
            }
            with writing(self._path):
                self._stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
                self._stream.flush()
                os.fsync(self._stream.fileno())
        given = iter(grades)
        return [[replace(each, grade=next(given)) for each in group] for group in groups]

    def close(self) -> None:
        with suppress(OSError):  # what a full disk did not take is tried once more
            self._stream.close()


def _digest(groups: Groups) -> str:
    """Of all questions and answers, by their ids."""
    ids = [[[s.prompt_ids, s.ids] for s in each.trajectory.segments] for group in groups for each in group]
    return blake2b(json.dumps(ids).encode(), digest_size=16).hexdigest()


def _turn(message: Message) -> dict[str, str]:
    """A message of an environment's several, in few words."""
    calls = [f"{part.name}({part.arguments})" for part in message.parts if isinstance(part, ToolCall)]
    results = [part.content for part in message.parts if isinstance(part, ToolResult)]
    return {
        "role": message.role.value,
        "thinking": message.reasoning,
        "text": " ".join([message.text, *calls, *results]),
    }


def write_samples(path: Path, groups: Groups, rewards: Sequence[Sequence[float]], levels: Sequence[float]) -> None:
    """One readable line for each attempt of a step.

    levels: of the groups' problems.
    """
    lines = []
    for group, own, level in zip(groups, rewards, levels, strict=True):
        for attempt, reward in zip(group, own, strict=True):
            record = {
                "task": attempt.problem.task,
                "level": round(level, 3),
                "question": attempt.problem.question,
                "gold": attempt.problem.answer,
                "thinking": attempt.completion.reasoning,
                "answer": attempt.completion.text,
                **({"turns": [_turn(message) for message in attempt.messages]} if len(attempt.messages) > 1 else {}),
                "reward": reward,
                "score": attempt.grade.score,
                "status": attempt.grade.status.value,
                "why": attempt.grade.why,
                "ended": attempt.completion.stop_reason.value,
                "tokens": sum(len(segment.ids) for segment in attempt.trajectory.segments),
            }
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines).encode())
