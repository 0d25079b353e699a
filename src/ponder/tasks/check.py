"""Checking that a task keeps its promises, before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ponder.tasks.promises import calling, checked_demonstration, checked_problem
from ponder.tasks.protocol import DemonstratedTask, Demonstration, Grade, GradeStatus, Problem, Task
from ponder.types import TaskError


@dataclass(frozen=True, slots=True)
class Checked:
    """A problem at a level, its demonstration, and the grade of the answer shown there.

    Without a demonstration, where the task has none, the grade is that of the problem's own answer.
    """

    level: float
    problem: Problem
    demonstration: Demonstration | None
    grade: Grade


def check(task: Task, count: int = 100, *, seed: int = 0) -> list[Checked]:
    """`count` problems at levels spread evenly over [0, 1], each held to the promises of `protocol.py`.

    Equal seeds give equal problems and demonstrations; the grader accepts the answer of the problem and of its
    demonstration, not an empty one, and scores within [0, 1]; an answer is the `same` as itself.
    Raises TaskError, which names the call and the question, for the first promise that is broken.
    """
    return [_check(task, (place + 0.5) / count, f"check/{seed}/{place}") for place in range(count)]


def _check(task: Task, level: float, seed: str) -> Checked:
    call = f"sample(rng, {level:.3g})"
    with calling(task.name, call):
        problem, again = (task.sample(Random(seed), level) for _ in range(2))
    checked_problem(problem, task.name, call)
    if problem != again:
        raise TaskError(
            f"task {task.name!r}: {call} returned {problem.question!r:.200} and then, for the same seed, "
            f"{again.question!r:.200}: draw everything random from `rng`, or training cannot be resumed"
        )
    if not problem.question.strip() or not problem.answer.strip():
        raise TaskError(
            f"task {task.name!r}: {call} returned a problem without question or answer ({problem!r:.200}): fill both"
        )
    demonstration = _demonstrate(task, problem, seed) if isinstance(task, DemonstratedTask) else None
    grade = _grade(task, problem, problem.answer, "the problem's own answer")
    if demonstration is not None:
        grade = _grade(task, problem, demonstration.answer, "the demonstration's answer")
    _refuse_nothing(task, problem)
    with calling(task.name, call := f"same({problem.answer!r:.80}, {problem.answer!r:.80})"):
        same = task.same(problem.answer, problem.answer)
    if not same:
        raise TaskError(f"task {task.name!r}: {call} is false: every answer must be the same as itself")
    return Checked(level, problem, demonstration, grade)


def _demonstrate(task: DemonstratedTask, problem: Problem, seed: str) -> Demonstration:
    where = f"task {task.name!r}, {problem.question!r:.200}"
    with calling(task.name, "demonstrate(problem, rng)"):
        shown, again = (task.demonstrate(problem, Random(seed)) for _ in range(2))
    checked_demonstration(shown, where)
    if shown != again:
        raise TaskError(f"{where}: demonstrate differs for the same seed: draw everything random from `rng`")
    return shown


def _grade(task: Task, problem: Problem, answer: str, whose: str) -> Grade:
    """The grade of an answer that has to be right."""
    grade = _graded(task, problem, answer)
    if not grade.solved:
        raise TaskError(
            f"task {task.name!r}, {problem.question!r:.200}: the grader does not accept {whose}, {answer!r:.200}: "
            + _said(grade)
        )
    return grade


def _refuse_nothing(task: Task, problem: Problem) -> None:
    grade = _graded(task, problem, "")
    if grade.solved:
        raise TaskError(
            f"task {task.name!r}, {problem.question!r:.200}: the grader accepts an empty answer ("
            f"{_said(grade)}): the reward would teach the model to say nothing"
        )


def _graded(task: Task, problem: Problem, answer: str) -> Grade:
    call = f"grade(problem, {answer!r:.200})"
    with calling(task.name, call):
        grade = task.grade(problem, answer)
    if grade.status in (GradeStatus.FAILED, GradeStatus.TIMEOUT):
        raise TaskError(f"task {task.name!r}, {problem.question!r:.200}: {call}: {_said(grade)}")
    return grade


def _said(grade: Grade) -> str:
    return f"score {grade.score:g}, {grade.status}" + (f", {grade.why}" if grade.why else "")
