"""A task from a user's file: it draws and demonstrates here, and handles a model's words in a child process only.

What `grade` or an environment's `step` does with a model's words can then neither hang, crash nor change this process:
a hang is one grade with the status TIMEOUT, a crash is one that FAILED. See `ponder.sandbox.isolate`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from ponder.sandbox.isolate import MEMORY_BYTES, TIMEOUT_SECONDS, CallOutcome, CallResult, submit_isolated
from ponder.sandbox.objects import described, load_object
from ponder.sandbox.payload import pack_json, unpack_json
from ponder.tasks.graders import as_grade, in_utf8
from ponder.tasks.promises import calling, check_methods, checked_demonstration, checked_problem, place_of
from ponder.tasks.protocol import (
    BAD_CALL,
    CouncilTask,
    DemonstratedEnvironment,
    DemonstratedTask,
    Demonstration,
    Env,
    EnvFailed,
    EnvironmentTask,
    Grade,
    GradeStatus,
    Problem,
    Task,
)
from ponder.types import GraderError, InvalidRequest, TaskError

if TYPE_CHECKING:
    from ponder.dialogue.messages import Message


class Child(StrEnum):
    """The process that grades an answer.

    SHARED: answers are graded one after another in one child, thousands a second.
    FRESH: each answer has its own child, at some milliseconds. For a grader that runs the answer as code: nothing that
        the answer does reaches the next one.
    """

    SHARED = "shared"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingLimits:
    """What one grading may take, as a task's attribute `grading`.

    seconds: of wall time.
    memory: bytes.
    """

    seconds: float = TIMEOUT_SECONDS
    memory: int = MEMORY_BYTES
    child: Child = Child.SHARED


class IsolatedTask:
    """The task that `spec` names. It has the optional methods (`demonstrate`, `start`, `tries` and so on) of that task.

    grade: a function of problem and answer alone, the problem's metadata being JSON, tuples or fractions.
    """

    def __init__(self, spec: str, task: Task) -> None:
        where, _, qualname = spec.rpartition(":")
        self.spec = f"{Path(where).resolve()}:{qualname}" if where.endswith(".py") else spec
        self._task = task
        self.limits = _limits(task, spec)
        if hasattr(task, "tries"):
            self.tries = task.tries
        if hasattr(task, "max_turns"):
            self.max_turns = task.max_turns
        if hasattr(task, "demonstrate"):
            self.demonstrate = self._demonstrate
        if hasattr(task, "demonstrate_council"):
            self.demonstrate_council = self._demonstrate_council
        if hasattr(task, "show"):
            self.show = self._show
        if isinstance(task, EnvironmentTask):
            self.start = self._start

    @property
    def name(self) -> str:
        return self._task.name

    def sample(self, rng: Random, level: float) -> Problem:
        with calling(self.name, call := f"sample(rng, {level:.3g})"):
            problem = self._task.sample(rng, level)
        return checked_problem(problem, self.name, call)

    def same(self, a: str, b: str) -> bool:
        with calling(self.name, f"same({a!r:.80}, {b!r:.80})"):
            return bool(self._task.same(a, b))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return as_grade(self.submit("grade_answer", problem, answer=answer).result())

    async def grade_async(self, problem: Problem, answer: str) -> Grade:
        """`grade`, awaited."""
        return as_grade(await asyncio.wrap_future(self.submit("grade_answer", problem, answer=answer)))

    def submit(self, function: str, problem: Problem, **more: object) -> Future[CallResult]:
        """Start `function` of this module on a problem in a child; many may run at once."""
        try:
            metadata = pack_json(dict(problem.metadata))
        except GraderError as error:
            raise GraderError(
                f"{self.spec}: a problem's metadata must be plain JSON data, because it is sent to the "
                f"grader's process ({error})"
            ) from error
        packed = {"task": problem.task, "question": problem.question, "answer": problem.answer, "metadata": metadata}
        return submit_isolated(
            f"{__name__}:{function}",
            {"spec": self.spec, "problem": packed, **more},
            timeout=self.limits.seconds,
            memory=self.limits.memory,
            warm=(f"{__name__}:keep_task", self.spec),
            share=self.spec if self.limits.child is Child.SHARED else None,
        )

    def _demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        with calling(self.name, "demonstrate(problem, rng)"):
            shown = cast(DemonstratedTask, self._task).demonstrate(problem, rng)
        return checked_demonstration(shown, f"task {self.name!r}, {problem.question!r:.200}")

    def _demonstrate_council(self, problem: Problem, rng: Random, voices: int) -> Demonstration:
        with calling(self.name, f"demonstrate_council(problem, rng, {voices})"):
            shown = cast(CouncilTask, self._task).demonstrate_council(problem, rng, voices)
        return checked_demonstration(shown, f"task {self.name!r}, {problem.question!r:.200}")

    def _show(self, problem: Problem, rng: Random) -> Sequence[Message]:
        from ponder.dialogue.messages import Message

        with calling(self.name, "show(problem, rng)"):
            shown = list(cast(DemonstratedEnvironment, self._task).show(problem, rng))
        if not shown or not all(isinstance(message, Message) for message in shown):
            raise TaskError(f"task {self.name!r}: show(problem, rng) must return Messages (got {shown!r:.80})")
        return shown

    def _start(self, problem: Problem) -> IsolatedEnv:
        with calling(self.name, "start(problem)"):
            tools = cast(EnvironmentTask, self._task).start(problem).tools
        if isinstance(tools, str) or not all(isinstance(tool, str) for tool in tools):
            raise TaskError(f"task {self.name!r}: start(problem).tools must be a tuple of names (got {tools!r:.80})")
        return IsolatedEnv(self, problem, tools)


def _limits(task: Task, spec: str) -> GradingLimits:
    """What the task says in `grading`. Raises InvalidRequest for anything but GradingLimits over 0."""
    limits: object = getattr(task, "grading", GradingLimits())
    if not isinstance(limits, GradingLimits) or not (0 < limits.seconds < math.inf and limits.memory > 0):
        raise InvalidRequest(
            f"{spec!r}: grading must be GradingLimits with seconds and memory above 0 (got {limits!r:.200})"
        )
    return limits


class IsolatedEnv:
    """An environment whose steps are taken in a child: from the start each time, so that no state lives there."""

    def __init__(self, task: IsolatedTask, problem: Problem, tools: Sequence[str]) -> None:
        self.tools = tuple(tools)
        self._task, self._problem = task, problem
        self._calls: list[tuple[str, Any]] = []

    def step(self, name: str, arguments: Any) -> str:
        return self._result(self._submit_step(name, arguments).result())

    async def step_async(self, name: str, arguments: Any) -> str:
        """`step`, awaited."""
        return self._result(await asyncio.wrap_future(self._submit_step(name, arguments)))

    def grade(self, answer: str) -> Grade:
        return as_grade(self._submit_grade(answer).result())

    async def grade_async(self, answer: str) -> Grade:
        """`grade`, awaited."""
        return as_grade(await asyncio.wrap_future(self._submit_grade(answer)))

    def _submit_step(self, name: str, arguments: Any) -> Future[CallResult]:
        self._calls.append((name, arguments))
        return self._task.submit("take_step", self._problem, calls=self._calls)

    def _submit_grade(self, answer: str) -> Future[CallResult]:
        return self._task.submit("grade_answer", self._problem, calls=self._calls, answer=answer)

    def _result(self, done: CallResult) -> str:
        if done.outcome is not CallOutcome.DONE:
            raise EnvFailed(as_grade(done))
        if "refused" in done.value:
            self._calls.pop()  # nothing happened
            raise ValueError(done.value["refused"])
        return in_utf8(str(done.value["result"]), most=None)


def build_task(spec: str) -> Task:
    """The object that `spec` names, a class built without arguments. Raises InvalidRequest where it is not a task."""
    found = load_object(spec)
    try:
        task = found() if isinstance(found, type) else found
        check_methods(task, spec)
    except InvalidRequest:
        raise
    except Exception as error:  # the user's code may raise anything
        where = "" if "line" in (what := described(error)) else place_of(getattr(found, "__init__", None))
        raise InvalidRequest(f"{spec!r} cannot be built without arguments ({what}{where}): mend it there") from error
    return cast(Task, task)


# In the child ---------------------------------------------------------------------------------------------------------


_task = lru_cache(maxsize=64)(build_task)


def keep_task(spec: str) -> None:
    """Import the task once, in the fork server."""
    _task(spec)


def grade_answer(payload: dict[str, Any]) -> dict[str, Any]:
    """The task's grade of `answer`, or of the answer that `calls` led to."""
    env = _replayed(payload) if "calls" in payload else None
    answer = payload["answer"]
    given = _task(payload["spec"]).grade(_problem(payload), answer) if env is None else env.grade(answer)
    if not isinstance(given, Grade):
        return {"score": 0.0, "status": GradeStatus.FAILED, "why": f"grade must return a Grade (got {given!r:.200})"}
    if not 0 <= given.score <= 1:
        why = f"grade must give a score from 0 to 1 (got {given.score:g})"
        return {"score": 0.0, "status": GradeStatus.FAILED, "why": why}
    return {"score": float(given.score), "status": GradeStatus(given.status), "why": str(given.why)}


def take_step(payload: dict[str, Any]) -> dict[str, str]:
    """The result of the last of `calls`, or why it was refused."""
    *before, (name, arguments) = payload["calls"]
    env = _replayed({**payload, "calls": before})
    try:
        return {"result": str(env.step(name, arguments))}
    except BAD_CALL as error:
        return {"refused": str(error)}


def _replayed(payload: dict[str, Any]) -> Env:
    env = cast(EnvironmentTask, _task(payload["spec"])).start(_problem(payload))
    for name, arguments in payload["calls"]:
        env.step(name, arguments)
    return env


def _problem(payload: dict[str, Any]) -> Problem:
    packed = payload["problem"]
    return Problem(**{**packed, "metadata": unpack_json(packed["metadata"])})
