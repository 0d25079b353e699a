"""Programming tasks: a function is asked for, and tests decide. The tests run the answer in a sealed process."""

from __future__ import annotations

import asyncio
import json
import keyword
import re
import reprlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from ponder.sandbox.code import CodeLimits, submit_code
from ponder.sandbox.isolate import CallOutcome, CallResult
from ponder.sandbox.plain import plain_value, same_plain
from ponder.tasks.protocol import Grade, GradeStatus, Problem
from ponder.types import DataError, InvalidRequest

FENCE = re.compile(
    r"^```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL | re.IGNORECASE
)
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class CodeTest:
    """One call of the function: its arguments, and what it must return, both plain data (numbers, texts, None, lists,
    dictionaries; a tuple equals a list)."""

    arguments: tuple[Any, ...]
    returns: Any


def code_of(answer: str) -> str:
    """The program of an answer: its last fenced block of Python, or, without a fence, all of it."""
    blocks = FENCE.findall(answer)
    return blocks[-1] if blocks else answer


def code_problem(
    task: str,
    text: str,
    function: str,
    *,
    visible: Sequence[CodeTest],
    hidden: Sequence[CodeTest] = (),
    solution: str = "",
) -> Problem:
    """A problem that asks for a function: its question is `text` and the visible tests.

    solution: a program that passes. Raises InvalidRequest for a name that is not one, a problem without tests, and
    tests that are not plain data.
    """
    if not function.isidentifier() or keyword.iskeyword(function):
        raise InvalidRequest(f"function must be a name in Python (got {function!r})")
    if not (visible or hidden):
        raise InvalidRequest(f"{function}: a code problem needs at least one test")
    shown = [f"{function}({', '.join(map(repr, test.arguments))}) == {test.returns!r}" for test in visible]
    lines = [text.rstrip(), "", f"Write a Python function `{function}`. Answer with its code alone, in one block."]
    if shown:
        lines += ["It must pass these tests:", *(f"- `{line}`" for line in shown)]
    metadata = {"function": function, "visible": _packed(function, visible), "hidden": _packed(function, hidden)}
    return Problem(task=task, question="\n".join(lines), answer=solution, metadata=metadata)


class CodeTask:
    """Problems that ask for a function. A subclass with a `sample` that returns `code_problem(…)`s is a task of your
    own; `CodeFile` takes them from a file.

    The grade is the share of all tests, visible and hidden, that the answer passes, and 0 for one that does not run.
    limits: of one answer's run over all tests.
    """

    name = "code"
    limits = CodeLimits()

    def sample(self, rng: Random, level: float) -> Problem:
        raise NotImplementedError(f"{type(self).__name__} has no sample(rng, level): return a code_problem there")

    def grade(self, problem: Problem, answer: str) -> Grade:
        tests = _all_tests(problem)
        return grade_of_run(self._submit(problem, answer, tests).result(), tests)

    async def grade_async(self, problem: Problem, answer: str) -> Grade:
        """`grade`, awaited."""
        tests = _all_tests(problem)
        return grade_of_run(await asyncio.wrap_future(self._submit(problem, answer, tests)), tests)

    def check(self, problem: Problem, answer: str) -> Grade:
        """The grade by the visible tests alone, which the question shows: a verifier that is not an oracle."""
        tests = problem.metadata["visible"]
        return grade_of_run(self._submit(problem, answer, tests).result(), tests)

    def same(self, a: str, b: str) -> bool:
        """The same program but for white space at its ends."""
        return code_of(a).strip() == code_of(b).strip()

    def _submit(self, problem: Problem, answer: str, tests: Sequence[Mapping[str, Any]]) -> Future[CallResult]:
        inputs = [test["arguments"] for test in tests]
        return submit_code(code_of(answer), problem.metadata["function"], inputs, self.limits)


class CodeFile(CodeTask):
    """The problems of a file, `code:FILE.jsonl`: a JSON object a line.

    prompt: what is asked. function: its name. tests: objects with `arguments` (a list) and `returns`; shown in the
    question. hidden_tests: the same, not shown. solution: a program that passes, optional.
    A file has no levels: each problem is as likely as another. Raises DataError with file and line.
    """

    def __init__(self, path: Path, limits: CodeLimits | None = None) -> None:
        self.name = path.stem
        self.limits = limits or CodeLimits()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"code:{path}: cannot be read ({error})") from error
        self.problems = [
            _problem_of(self.name, line, f"{path}, line {number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
        if not self.problems:
            raise DataError(f"{path}: holds no problems: write a JSON object a line")

    def sample(self, rng: Random, level: float) -> Problem:
        return rng.choice(self.problems)


_FIELDS = {"prompt": str, "function": str, "tests": list, "hidden_tests": list, "solution": str}


def _problem_of(task: str, line: str, where: str) -> Problem:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise DataError(f"{where}: must be an object (got {line[:60]!r})")
    unknown = entry.keys() - _FIELDS.keys()
    if unknown:
        raise DataError(f"{where}: there is no field {min(unknown)!r}: there are {', '.join(_FIELDS)}")
    entry = {"tests": [], "hidden_tests": [], "solution": "", **entry}
    for field, kind in _FIELDS.items():
        if not isinstance(entry.get(field), kind):
            raise DataError(
                f"{where}: {field} must be a {'text' if kind is str else 'list'} (got {entry.get(field)!r:.60})"
            )
    visible, hidden = ([_test_of(each, where) for each in entry[field]] for field in ("tests", "hidden_tests"))
    try:
        return code_problem(
            task, entry["prompt"], entry["function"], visible=visible, hidden=hidden, solution=entry["solution"]
        )
    except InvalidRequest as error:
        raise DataError(f"{where}: {error}") from error


def _test_of(entry: Any, where: str) -> CodeTest:
    if (
        not isinstance(entry, dict)
        or entry.keys() != {"arguments", "returns"}
        or not isinstance(entry["arguments"], list)
    ):
        raise DataError(f'{where}: a test must be {{"arguments": […], "returns": …}} (got {entry!r:.60})')
    return CodeTest(tuple(entry["arguments"]), entry["returns"])


def _packed(function: str, tests: Sequence[CodeTest]) -> list[dict[str, Any]]:
    """Tests as metadata. Arguments go to the child as JSON, so they must be that already."""
    packed = []
    for test in tests:
        arguments = [list(each) if isinstance(each, tuple) else each for each in test.arguments]
        try:
            if json.loads(json.dumps(arguments)) != arguments:
                raise TypeError("not plain JSON")
            packed.append({"arguments": arguments, "returns": plain_value(test.returns)})
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                f"{function}: arguments must be plain JSON data, and what is returned plain data: "
                f"mend {test!r:.200} ({error})"
            ) from error
    return packed


def _all_tests(problem: Problem) -> list[Mapping[str, Any]]:
    return [*problem.metadata["visible"], *problem.metadata["hidden"]]


def grade_of_run(result: CallResult, tests: Sequence[Mapping[str, Any]]) -> Grade:
    """The grade of what came out of the child, compared out here with what should have.

    tests: as `code_problem` puts them into a problem's metadata.
    """
    if result.outcome is not CallOutcome.DONE:
        status = {CallOutcome.TIMEOUT: GradeStatus.TIMEOUT, CallOutcome.UNSEALED: GradeStatus.FAILED}
        return Grade(score=0.0, status=status.get(result.outcome, GradeStatus.GRADED), why=_text(result.why))
    answers = result.value
    if not isinstance(answers, list) or len(answers) != len(tests):
        return Grade(score=0.0, why="the answer did not return a value for each test")
    passed, why = 0, ""
    for test, answer in zip(tests, answers, strict=True):
        got = answer.get("value", answer) if isinstance(answer, dict) else answer
        returned = isinstance(answer, dict) and list(answer) == ["value"]
        if returned and same_plain(test["returns"], got, TOLERANCE):
            passed += 1
        elif not why:
            shown = repr(answer["error"])[:200] if _is_error(answer) else reprlib.repr(got)  # it may be huge, or deep
            failed = f"returned {shown}" if returned else f"raised {shown}"
            why = f"for {test['arguments']!r:.100} it {failed}, not {test['returns']!r:.100}"
    return Grade(score=passed / len(tests), why=_text(why))


def _is_error(answer: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("error"), str)


def _text(words: str) -> str:
    return words.encode(errors="backslashreplace").decode()[:500]
