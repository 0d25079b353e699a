"""Traces: what is right is written once, the bill counts everything, and an interrupted call is taken up."""

import asyncio
import json
from pathlib import Path
from random import Random

import pytest

from ponder.dialogue.messages import Conversation
from ponder.tasks.protocol import Grade, Problem
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.think import parse_strategy
from ponder.train.data.dialogues import read_dialogues
from ponder.train.data.traces import Bill, TraceSettings, write_traces
from ponder.types import DataError, SamplerError


class Double:
    """Right where the answer is twice the number."""

    name = "double"

    def sample(self, rng: Random, level: float) -> Problem:
        number = rng.randrange(1000)
        return Problem(task=self.name, question=f"twice {number}?", answer=str(2 * number))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer == problem.answer))

    def same(self, a: str, b: str) -> bool:
        return a == b


def says(conversation: Conversation, index: int) -> Say:
    """Wrong for numbers that 3 divides."""
    number = int(conversation[-1].text.split()[1].rstrip("?"))
    return Say(str(2 * number + (number % 3 == 0)), reasoning=f"{number} and {number}")


def written(path: Path, script: object = says, **keys: object) -> Bill:
    settings = TraceSettings(**{"problems": 12, "samples": 2, **keys})  # type: ignore[arg-type]
    sampler = ScriptedSampler(script)  # type: ignore[arg-type]
    asking = {"thinking": 50}
    call = write_traces(
        *(sampler, [Double()], settings, path), strategy=parse_strategy("direct"), asking=asking, concurrency=4
    )
    return asyncio.run(call)


def test_what_is_right_is_written_once_and_everything_is_billed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    bill = written(path)
    found = [dialogue for _, dialogue in read_dialogues(path)]
    assert bill.asked == 24
    assert 0 < bill.kept == len(found) == bill.right / 2
    for dialogue in found:
        asked, answer = dialogue.messages
        number = int(asked.text.split()[1].rstrip("?"))
        assert (answer.text, answer.reasoning) == (str(2 * number), f"{number} and {number}")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl.bill").read_text().splitlines()][1:]
    assert len(lines) == 24
    assert sum(line["usage"]["completion_tokens"] for line in lines) == bill.usage.completion_tokens > 0


def test_a_call_that_failed_is_taken_up_where_it_stopped(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    full = written(whole)
    asked: list[int] = []

    def breaks(conversation: Conversation, index: int) -> Say:
        asked.append(1)
        if len(asked) == 10:
            raise SamplerError("the endpoint went away")
        return says(conversation, index)

    with pytest.raises(SamplerError, match="went away"):
        written(parts, breaks)
    with parts.open("ab") as file:
        file.write(b'{"messages": [{"ro')  # a line that a crash has cut short
    counted: list[int] = []

    def counts(conversation: Conversation, index: int) -> Say:
        counted.append(1)
        return says(conversation, index)

    assert written(parts, counts) == full
    assert len(counted) == 16  # two batches of four were whole
    assert parts.read_bytes() == whole.read_bytes()
    assert written(parts, counts) == full
    assert len(counted) == 16


def test_other_settings_do_not_go_into_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    with pytest.raises(DataError, match=r"other settings \(seed 0, now 1\)"):
        written(path, seed=1)
    other = tmp_path / "mine.jsonl"
    other.write_text("{}\n")
    with pytest.raises(DataError, match="is there already"):
        written(other)
