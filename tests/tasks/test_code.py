"""Programming tasks: tests decide, in a sealed child; visible tests may be a verifier; files and own tasks."""

import asyncio
import importlib.util
import json
from pathlib import Path
from random import Random

import pytest

from ponder.evaluate import measure
from ponder.sandbox.code import CodeEngine, CodeLimits, SandboxUnavailable, check_seal, submit_code
from ponder.sandbox.isolate import CallOutcome, CallResult
from ponder.sandbox.plain import plain_value, same_plain
from ponder.tasks.check import check
from ponder.tasks.code import CodeFile, CodeTask, CodeTest, code_of, code_problem
from ponder.tasks.protocol import Checkable, GradeStatus
from ponder.tasks.registry import load_task, task_files
from ponder.testing.scripted import ScriptedSampler
from ponder.think import parse_strategy
from ponder.types import DataError, InvalidRequest, MissingExtra

GCD = "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a\n"
VISIBLE = [CodeTest((12, 18), 6), CodeTest((7, 5), 1)]
HIDDEN = [CodeTest((0, 5), 5), CodeTest((100, 75), 25)]


@pytest.fixture(autouse=True)
def can_seal():
    try:
        check_seal()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def problem():
    return code_problem("gcd", "The greatest common divisor.", "gcd", visible=VISIBLE, hidden=HIDDEN, solution=GCD)


def test_the_question_shows_the_visible_tests_and_no_hidden_one(problem):
    assert "`gcd(12, 18) == 6`" in problem.question
    assert "75" not in problem.question


def test_the_grade_is_the_share_of_tests_that_pass(problem):
    task = CodeTask()
    assert task.grade(problem, f"Here:\n```python\n{GCD}```\n").solved
    assert task.grade(problem, GCD).score == 1.0
    half = task.grade(problem, "def gcd(a, b):\n    return {(12, 18): 6, (7, 5): 1}.get((a, b))")
    assert (half.score, half.status) == (0.5, GradeStatus.GRADED)
    assert half.why == "for [0, 5] it returned None, not 5"
    assert asyncio.run(task.grade_async(problem, GCD)).score == 1.0


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        ("", GradeStatus.GRADED, "defines no function 'gcd'"),
        ("I do not know.", GradeStatus.GRADED, "SyntaxError"),
        ("gcd = 3", GradeStatus.GRADED, "defines no function"),
        ("def gcd(a, b):\n    return a // 0", GradeStatus.GRADED, "ZeroDivisionError"),
        ("def gcd(a):\n    return a", GradeStatus.GRADED, "TypeError"),
        ("def gcd(a, b):\n    while True: pass", GradeStatus.TIMEOUT, "longer than 0.5 s"),
        ("\0", GradeStatus.GRADED, ""),
        ("\ud800", GradeStatus.GRADED, ""),
        ("(" * 100_000, GradeStatus.GRADED, ""),
    ],
)
def test_what_does_not_run_scores_nothing_and_says_why(problem, answer, status, why):
    task = type("Quick", (CodeTask,), {"limits": CodeLimits(seconds=0.5)})()
    grade = task.grade(problem, answer)
    assert (grade.score, grade.status) == (0.0, status)
    assert why in grade.why
    grade.why.encode()


def test_the_last_block_is_the_program():
    assert code_of("```python\na = 1\n```\nor better\n```py\na = 2\n```") == "a = 2\n"
    assert code_of("```\na\n```") == "a\n"
    assert code_of("a = 3") == "a = 3"


def test_honest_programs_of_many_kinds_run(problem):
    code = """
import collections, functools, heapq, itertools, math, re, threading
from dataclasses import dataclass

@dataclass
class Point:
    x: int

@functools.lru_cache(None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def f(n):
    found = []
    thread = threading.Thread(target=lambda: found.append(fib(n)))
    thread.start()
    thread.join()
    print("noise")
    heap = [3, 1, 2]
    heapq.heapify(heap)
    words = collections.Counter(re.findall("[a-z]", "aab"))
    return {"fib": found[0], "min": heapq.heappop(heap), "words": dict(words), "x": (Point(2).x, math.pi, {1, 2}, b"x")}
"""
    (answer,) = submit_code(code, "f", [[30]]).result().value
    wanted = {"fib": 832040, "min": 1, "words": {"a": 2, "b": 1}, "x": (2, 3.14159265358979, {2, 1}, b"x")}
    assert same_plain(plain_value(wanted), answer["value"], 1e-9)


@pytest.mark.parametrize(
    ("wanted", "got", "equal"),
    [
        (1, 1, True), (1, 1.0, True), (1, True, False), (True, 1, False), (0.1 + 0.2, 0.3, True), (1, "1", False),
        (None, 0, False), ([1, 2], (1, 2), True), ([1, 2], [2, 1], False), ({1, 2}, {2, 1}, True), ({1}, [1], False),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True), ({"a": 1}, {"a": 2}, False), ({"a": 1}, {}, False),
        (float("nan"), float("nan"), True), (float("inf"), 1e308, False), (10**400, 10**400, True),
        (10**400, 1.5, False), ("a", ["a"], False), ({}, [], False), (b"a", b"a", True), (b"a", "61", False),
    ],
)  # fmt: skip
def test_values_are_equal_as_a_test_means_it(wanted, got, equal):
    assert same_plain(plain_value(wanted), json.loads(json.dumps(plain_value(got))), 1e-9) is equal


@pytest.mark.parametrize(
    "got", [{"$dict": 3}, {"$dict": [[1]]}, {"$dict": [3]}, {"$set": {}}, {"x": 1}, {}, [[]], None]
)
def test_forged_values_equal_nothing_and_raise_nothing(got):
    for wanted in ({"a": 1}, {1, 2}, [1], 1, "x"):
        assert same_plain(plain_value(wanted), got) is False


def test_values_of_other_types_are_refused():
    for value in (object(), 1j, type("I", (int,), {})(1), {1: object()}):
        with pytest.raises(TypeError, match="is not plain data"):
            plain_value(value)


def test_the_visible_tests_are_the_verifier_of_an_evaluation_and_not_its_grade(problem):
    cheat = "def gcd(a, b):\n    return 6 if a == 12 else 1"
    assert isinstance(CodeTask(), Checkable)
    sampler = ScriptedSampler(["nonsense", cheat, GCD])
    strategy = parse_strategy("best_of(samples=3, by='verifier')")
    result = measure(sampler, CodeTask(), [problem], strategy)
    assert result.items[0].answer == cheat  # the first that passes what is shown
    assert result.mean_score == 0.5


def test_a_file_of_problems(tmp_path):
    file = tmp_path / "mine.jsonl"
    line = {
        "prompt": "The greatest common divisor.",
        "function": "gcd",
        "tests": [{"arguments": [12, 18], "returns": 6}],
        "hidden_tests": [{"arguments": [100, 75], "returns": 25}],
        "solution": GCD,
    }
    file.write_text(json.dumps(line) + "\n\n")
    task = load_task(f"code:{file}")
    assert (task.name, task_files(f"code:{file}")) == ("mine", {str(file): [file]})
    drawn = task.sample(Random(0), 0.5)
    assert task.grade(drawn, drawn.answer).solved
    assert task.check(drawn, "def gcd(a, b): return 6").solved


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 1: is not JSON"),
        ("[]", "must be an object"),
        ('{"prompt": "x", "function": "f", "test": []}', "no field 'test'"),
        ('{"prompt": "x", "tests": []}', "function must be a text"),
        ('{"prompt": "x", "function": "f"}', "needs at least one test"),
        ('{"prompt": "x", "function": "not a name", "tests": [{"arguments": [], "returns": 1}]}', "must be a name"),
        ('{"prompt": "x", "function": "f", "tests": [{"arguments": 3, "returns": 1}]}', "a test must be"),
    ],
)
def test_a_malformed_file_is_refused_by_line(tmp_path, line, why):
    file = tmp_path / "mine.jsonl"
    file.write_text(line)
    with pytest.raises(DataError, match=why):
        CodeFile(file)


def test_files_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be read"):
        load_task(f"code:{tmp_path}/none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no problems"):
        load_task(f"code:{tmp_path}/empty.jsonl")


def test_a_task_of_one_s_own_draws_problems_and_its_tests_are_checked(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from ponder.tasks.code import CodeTask, CodeTest, code_problem\n"
        "class Add(CodeTask):\n"
        "    name = 'add'\n"
        "    def sample(self, rng, level):\n"
        "        k = rng.randrange(100)\n"
        "        tests = [CodeTest((n,), n + k) for n in range(3)]\n"
        "        return code_problem(self.name, f'Add {k}.', 'add', visible=tests,\n"
        "                            solution=f'def add(n): return n + {k}')\n"
    )
    task = load_task(f"{file}:Add")
    drawn = task.sample(Random(1), 0.0)
    assert task.grade(drawn, drawn.answer).solved
    assert all(each.grade.solved for each in check(task, 3))
    with pytest.raises(InvalidRequest, match="must be plain JSON data"):
        code_problem("x", "x", "f", visible=[CodeTest((object(),), 1)])
    with pytest.raises(NotImplementedError, match="has no sample"):
        CodeTask().sample(Random(0), 0.0)


def test_where_nothing_can_be_sealed_code_is_refused(monkeypatch):
    check_seal.cache_clear()
    unsealed = CallResult(CallOutcome.UNSEALED, why="Landlock: Function not implemented")
    monkeypatch.setattr("ponder.sandbox.code.run_isolated", lambda *args, **settings: unsealed)
    with pytest.raises(SandboxUnavailable, match=r"cannot be sealed here \(Landlock: Function not implemented\)"):
        submit_code("x", "f", [])
    open_child = CallResult(CallOutcome.DONE, ["read a file"])
    monkeypatch.setattr("ponder.sandbox.code.run_isolated", lambda *args, **settings: open_child)
    with pytest.raises(SandboxUnavailable, match="it could read a file"):
        submit_code("x", "f", [])
    check_seal.cache_clear()


def test_monty_runs_the_same_tests_where_it_is_installed(problem):
    limits = CodeLimits(engine=CodeEngine.MONTY, seconds=1.0)
    if importlib.util.find_spec("pydantic_monty") is None:
        with pytest.raises(MissingExtra, match=r"ponder\[monty\]"):
            submit_code(GCD, "gcd", [[4, 6]], limits).result()
        pytest.skip("needs pydantic-monty")
    task = type("Monty", (CodeTask,), {"limits": limits})()
    assert task.grade(problem, GCD).solved
    assert task.grade(problem, "def gcd(a, b):\n    while True: pass").status is GradeStatus.TIMEOUT
    for escape in (
        "open('/etc/passwd').read()",
        "__import__('os').system('true')",
        "raise ValueError",
        "import socket",
    ):
        assert task.grade(problem, f"def gcd(a, b):\n    {escape}").score == 0
    assert task.grade(problem, "def gcd(a, b:").score == 0


def test_the_example_s_solutions_pass_their_tests():
    task = load_task(f"code:{Path(__file__).parents[2] / 'examples' / 'code.jsonl'}")
    assert [task.grade(each, each.answer).score for each in task.problems] == [1.0] * 4
