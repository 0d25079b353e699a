"""A plan of steps: how a model is asked for it, how its words are read, and what a step's result must look like."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ponder.tasks.graders import number
from ponder.tasks.protocol import Grade


class PlanForm(StrEnum):
    """How a plan is written.

    JSON: a list of objects. The prompt explains it, so any model that follows instructions can write it.
    LINES: "a: 47 * 815 -> number", a line for each step. It is short, for models that were taught it.
    """

    JSON = "json"
    LINES = "lines"


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step.

    name: by which other steps refer to its result.
    task: what to do; "{name}" stands for the result of the step of that name.
    needs: the steps whose results it needs.
    expects: what a right result looks like: "number", "integer", "one of A, B", or words. Empty: anything.
    """

    name: str
    task: str
    needs: tuple[str, ...] = ()
    expects: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.task}{f' -> {self.expects}' if self.expects else ''}"


class BadPlan(ValueError):
    """What a model wrote is not a plan; the text says why, in words that the model can use."""


JSON_PLAN = """Do not answer yet. Break this down into at most {most} steps for helpers. A helper sees one step and \
nothing else, neither this question nor the other steps, so each step must say all that it takes, numbers included. \
Write only JSON, a list of objects such as
{{"name": "a", "task": "Multiply 47 by 800.", "needs": [], "expects": "integer"}}
{{"name": "b", "task": "Add {{a}} and 705.", "needs": ["a"], "expects": "integer"}}
In a task, {{a}} stands for the result of step a. "expects" says what a right result looks like: "number", "integer", \
"one of yes, no", or a few words."""
LINES_PLAN = "Plan it."
RESULTS = "These steps are done:\n{results}"
FAILED = "These steps failed:\n{failed}"
REST = "Plan what is left in another way."
UNREAD = "A plan that you wrote before could not be used: {why}."
WRITE = "Answer it."
ONLY = "Give only the result."
EXPECTED = "Give only the result ({expects})."


def plan_words(form: PlanForm, most: int, done: str = "", failed: str = "", why: str = "") -> str:
    """What a planner is asked for after the question.

    done, failed: the steps of plans before, see `as_lines`.
    why: what was wrong with the plan before.
    """
    ask = LINES_PLAN if form is PlanForm.LINES else JSON_PLAN.format(most=most)
    words = [RESULTS.format(results=done)] if done else []
    words += [FAILED.format(failed=failed), REST] if failed else []
    words += [UNREAD.format(why=why)] if why else []
    return "\n\n".join([*words, ask])


def write_words(done: str) -> str:
    """What a planner is asked for when the steps are done."""
    return "\n\n".join([*([RESULTS.format(results=done)] if done else []), WRITE])


def task_words(form: PlanForm, step: PlanStep, results: Mapping[str, str]) -> str:
    """What a worker is asked for."""
    task = fill_in(step.task, results)
    if form is PlanForm.LINES:
        return task
    return f"{task}\n\n{EXPECTED.format(expects=step.expects) if step.expects else ONLY}"


def as_lines(steps: Sequence[PlanStep], said: Mapping[str, str], results: Mapping[str, str]) -> str:
    """Steps with what came of them, a line each. said: by the steps' names; others are left out."""
    return "\n".join(f"{step.name}: {fill_in(step.task, results)} = {said[step.name]}" for step in steps
                     if step.name in said)  # fmt: skip


REFERENCE = re.compile(r"\{(\w+)\}")


def fill_in(task: str, results: Mapping[str, str]) -> str:
    """A task with results in the place of their names; other braces stay."""
    return REFERENCE.sub(lambda found: results.get(found[1], found[0]), task)


def read_plan(text: str, form: PlanForm, most: int, done: Collection[str] = ()) -> tuple[PlanStep, ...]:
    """The steps that a planner wrote. done: names of steps that have results already.

    Raises BadPlan for text that is not a plan, more than `most` steps, names that are used twice, needs that no step
    meets, and circles.
    """
    steps = _from_lines(text) if form is PlanForm.LINES else _from_json(text)
    if not steps:
        raise BadPlan("it has no steps")
    if len(steps) > most:
        raise BadPlan(f"it has {len(steps)} steps, and may have {most}")
    names = [step.name for step in steps]
    for name in names:
        if names.count(name) > 1 or name in done:
            raise BadPlan(f"the name {name!r} is used twice")
    for step in steps:
        for need in step.needs:
            if need not in names and need not in done:
                raise BadPlan(f"step {step.name!r} needs {need!r}, which is not a step")
    _check_order(steps, set(done))
    return steps


def _check_order(steps: Sequence[PlanStep], done: set[str]) -> None:
    left = list(steps)
    while left:
        ready = [step for step in left if done.issuperset(step.needs)]
        if not ready:
            raise BadPlan(f"the steps {', '.join(step.name for step in left)} need each other")
        done |= {step.name for step in ready}
        left = [step for step in left if step.name not in done]


LINE = re.compile(r"\s*(\w+): (.+?)(?: -> (.+))?\s*")


def _from_lines(text: str) -> tuple[PlanStep, ...]:
    steps = []
    for line in filter(str.strip, text.splitlines()):
        found = LINE.fullmatch(line)
        if found is None:
            raise BadPlan(f"the line {line[:80]!r} is not a step")
        name, task, expects = found.groups()
        steps.append(PlanStep(name, task, tuple(dict.fromkeys(REFERENCE.findall(task))), expects or ""))
    return tuple(steps)


def _from_json(text: str) -> tuple[PlanStep, ...]:
    begin, end = text.find("["), text.rfind("]")
    try:
        found = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        raise BadPlan("it is not a JSON list") from None
    if not isinstance(found, list):
        raise BadPlan("it is not a JSON list")
    steps = [_step(each) for each in found]
    names = {step.name for step in steps}
    return tuple(_with_references(step, names) for step in steps)


def _step(found: Any) -> PlanStep:
    if not isinstance(found, dict):
        raise BadPlan(f"{str(found)[:80]!r} is not an object")
    name, task, expects, needs = (found.get(key) for key in ("name", "task", "expects", "needs"))
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
        raise BadPlan(f"the name of a step must be letters and digits (got {str(name)[:80]!r})")
    if not isinstance(task, str) or not task.strip():
        raise BadPlan(f"step {name!r} has no task")
    if not isinstance(needs or [], list) or not all(isinstance(each, str) for each in needs or []):
        raise BadPlan(f"the needs of step {name!r} must be a list of names")
    if not isinstance(expects or "", str):
        raise BadPlan(f"what step {name!r} expects must be a text")
    return PlanStep(name, task.strip(), tuple(needs or ()), expects or "")


def _with_references(step: PlanStep, names: Collection[str]) -> PlanStep:
    """With the steps that its task names among its needs."""
    named = [name for name in REFERENCE.findall(step.task) if name in names]
    return PlanStep(step.name, step.task, tuple(dict.fromkeys([*step.needs, *named])), step.expects)


ONE_OF = re.compile(r"one of:? (.+)", re.IGNORECASE)


def expected_grade(expects: str, result: str) -> Grade | None:
    """Whether a result looks as a step says. None: that is said in words, which no rule can check."""
    wanted, result = expects.strip().lower().removeprefix("an ").removeprefix("a "), result.strip()
    value = number(result)
    if wanted in ("number", "integer"):
        fits = value is not None and (wanted == "number" or value.denominator == 1)
    elif (choices := ONE_OF.fullmatch(wanted)) is not None:
        fits = result.lower().rstrip(".") in [each.strip() for each in re.split(r",| or ", choices[1])]
    else:
        return None
    return Grade(score=float(fits), why="" if fits else f"{result[:80]!r} is not {expects}")
