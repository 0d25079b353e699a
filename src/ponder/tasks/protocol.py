"""What a task is: it samples problems, may demonstrate them, grades answers, and says when two answers are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its gold answer. `task` is the name of the task that drew it; `metadata` is the grader's."""

    task: str
    question: str
    answer: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """Worked reasoning, each step checkable, and the answer it ends in.

    pieces: the answer cut into runs that are encoded one by one, where whole-word tokens would hide its letters;
        empty: the answer is encoded in one piece. Joined, the pieces are the answer.
    """

    reasoning: str
    answer: str
    pieces: tuple[str, ...] = ()


class GradeStatus(StrEnum):
    """How grading went. Only GRADED carries a meaningful score."""

    GRADED = "graded"
    UNPARSEABLE = "unparseable"  # the answer has not the form asked for; score 0
    TIMEOUT = "timeout"
    FAILED = "failed"  # the grader broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """Score in [0, 1]; "solved" is a score of at least 0.99."""

    score: float
    status: GradeStatus = GradeStatus.GRADED
    why: str = ""

    @property
    def solved(self) -> bool:
        return self.score >= 0.99


@runtime_checkable
class Task(Protocol):
    """The reward in RL is `grade`, and so is the score in evaluation. `level` in [0, 1]: easy to hard."""

    @property
    def name(self) -> str: ...

    def sample(self, rng: Random, level: float) -> Problem: ...

    def grade(self, problem: Problem, answer: str) -> Grade: ...

    def same(self, a: str, b: str) -> bool: ...


@runtime_checkable
class DemonstratedTask(Task, Protocol):
    """A task that can show how: the data of chain-of-thought tuning."""

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration: ...
