"""The contract of a task: it samples problems, may demonstrate them, grades answers and compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ponder.types import Usage

if TYPE_CHECKING:
    from ponder.dialogue.messages import Message, Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its gold answer. `task` is the name of the task that drew it; `metadata` is the grader's."""

    task: str
    question: str
    answer: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fold:
    """A thought, and the state it was folded into: all that the thinking after it still sees, beside the question."""

    thought: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """Worked reasoning, each step checkable, and the answer it ends in.

    reasoning: the last thought, after the last of `folds`; without folds, the whole reasoning. It and the folds may
        hold mistakes (`mistake`).
    opening, voices: a thought, and the council of several voices that it opens; `reasoning` is the thought after it.
        Without voices there is no opening, and with them there are no folds and no mistakes.
    pieces: the answer cut into runs that are encoded one by one, where whole-word tokens would hide its letters;
        empty: the answer is encoded in one piece. Joined, the pieces are the answer.
    """

    reasoning: str
    answer: str
    pieces: tuple[str, ...] = ()
    folds: tuple[Fold, ...] = ()
    opening: str = ""
    voices: tuple[Voice, ...] = ()

    @property
    def text(self) -> str:
        """All thoughts, to be read: line by line, states and marks left out, the voices one below the other."""
        opened = [self.opening, *(voice.text for voice in self.voices)] if self.voices else []
        return without_marks("\n".join([*opened, *(fold.thought for fold in self.folds), self.reasoning]))


NOTHING_USED = Usage()

_MISTAKE, _END_MISTAKE = "\ue000", "\ue001"  # private use: no text of a task holds them


def mistake(text: str) -> str:
    """`text` marked as wrong: in a demonstration it is shown, so that what follows can notice it, but not taught."""
    return f"{_MISTAKE}{text}{_END_MISTAKE}"


def without_marks(text: str) -> str:
    return text.replace(_MISTAKE, "").replace(_END_MISTAKE, "")


def find_mistakes(text: str) -> list[tuple[int, int]]:
    """Where the mistakes stand: (begin, end) in `without_marks(text)`."""
    found, begin, at = [], 0, 0
    for character in text:
        if character == _MISTAKE:
            begin = at
        elif character == _END_MISTAKE:
            found.append((begin, at))
        else:
            at += 1
    return found


class GradeStatus(StrEnum):
    """How grading went. Only GRADED carries a meaningful score."""

    GRADED = "graded"
    UNPARSEABLE = "unparseable"  # the answer has not the form asked for; score 0
    TIMEOUT = "timeout"
    FAILED = "failed"  # the grader broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """Score in [0, 1]; "solved" is a score of at least 0.99.

    why: what is wrong.
    wrong_step: what the reasoning says where it first goes wrong, word for word. Empty: not known.
    usage: the tokens that a model read and wrote to come to this grade.
    """

    score: float
    status: GradeStatus = GradeStatus.GRADED
    why: str = ""
    wrong_step: str = ""
    usage: Usage = NOTHING_USED

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


@runtime_checkable
class CouncilTask(DemonstratedTask, Protocol):
    """A task whose problems fall into parts that several voices can think about beside each other.

    demonstrate_council: the same working by `voices` voices, whose lanes are said a character a token; by one voice it
        is one thought. Raises TaskError for a number that it cannot be shared among.
    """

    def demonstrate_council(self, problem: Problem, rng: Random, voices: int) -> Demonstration: ...


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt inside a reasoning: whether it was right, and whether the reasoning accepted it."""

    right: bool
    accepted: bool


@runtime_checkable
class SelfChecking(Task, Protocol):
    """A task whose reasoning tries, checks and tries again, so that recognising one's own mistakes can be measured.

    reasoning: all thoughts and states, joined as `Message.reasoning` does.
    """

    def tries(self, problem: Problem, reasoning: str) -> list[Try]: ...


@runtime_checkable
class AsyncGrader(Protocol):
    """A task whose grading takes place elsewhere: `grade`, awaited, so that an event loop does not wait for it."""

    async def grade_async(self, problem: Problem, answer: str) -> Grade: ...


@runtime_checkable
class MessageGrader(Protocol):
    """A task whose grade reads all that the model wrote, thinking included, and whether it came to its end."""

    def grade_message(self, problem: Problem, message: Message, *, complete: bool) -> Grade: ...


@runtime_checkable
class MessageVerifier(Protocol):
    """A verifier that reads the conversation and all that the model wrote, thinking included."""

    def grade_message(self, prompt: Sequence[Message], message: Message) -> Grade: ...


@runtime_checkable
class Checkable(Task, Protocol):
    """A task whose question shows how an answer is checked, as visible tests do.

    check: the grade by that alone. Strategies may use it as their verifier; it is not the task's own grade.
    """

    def check(self, problem: Problem, answer: str) -> Grade: ...


@runtime_checkable
class StepVerifier(MessageVerifier, Protocol):
    """A verifier that can grade a thought which is not at its end."""

    def grade_thought(self, prompt: Sequence[Message], thought: str) -> Grade: ...


BAD_CALL = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
)  # what an environment raises at arguments it cannot use


class EnvFailed(Exception):
    """An environment broke in the middle of an attempt, which ends with this grade."""

    def __init__(self, grade: Grade) -> None:
        super().__init__(grade.why)
        self.grade = grade


class Env(Protocol):
    """One attempt at a problem, used once: the model's tool calls in, their results out, a grade at the end.

    Given the problem and the calls it always does the same. step: `arguments` is what the JSON of the call means; at
    arguments that it cannot use it raises one of BAD_CALL, which the model gets to read, and stays as it was.
    """

    @property
    def tools(self) -> Sequence[str]: ...

    def step(self, name: str, arguments: Any) -> str: ...

    def grade(self, answer: str) -> Grade: ...


@runtime_checkable
class EnvironmentTask(Task, Protocol):
    """A task that answers back. The question says which tools there are and how they are called.

    max_turns: how often the assistant may speak, the answer included.
    """

    @property
    def max_turns(self) -> int: ...

    def start(self, problem: Problem) -> Env: ...


@runtime_checkable
class DemonstratedEnvironment(EnvironmentTask, Protocol):
    """An environment that can show how: all that follows the question, calls and results included, to the answer."""

    def show(self, problem: Problem, rng: Random) -> Sequence[Message]: ...
