"""A user's task: what a model said is graded in a child, and nothing it does reaches this process."""

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from random import Random

import pytest

from ponder.evaluate.measure import grade_async
from ponder.tasks.graders import as_grade
from ponder.tasks.isolated import IsolatedTask
from ponder.tasks.protocol import AsyncGrader, DemonstratedTask, EnvironmentTask, GradeStatus, Problem, Task
from ponder.tasks.registry import load_task
from ponder.testing.tiny import tiny_sampler
from ponder.train.policy.rollout import roll_out
from ponder.types import GraderError, InvalidRequest, SamplingParams, TaskError

MINE = """
import os, time
from ponder.tasks.isolated import Child, GradingLimits
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem

class Plain:
    name = "plain"

    def sample(self, rng, level):
        return Problem(task=self.name, question="?", answer="1", metadata={"pair": (1, 2)})

    def grade(self, problem, answer):
        return Grade(score=float(answer == problem.answer), why=f"{problem.metadata['pair']} in {os.getpid()}")

    def same(self, a, b):
        return a == b

class Shown(Plain):
    def demonstrate(self, problem, rng):
        return Demonstration(reasoning="one", answer="1")

class Rough(Plain):
    grading = GradingLimits(seconds=0.5, memory=1 << 28)

    def grade(self, problem, answer):
        if answer == "hang":
            time.sleep(60)
        if answer == "crash":
            os.abort()
        if answer == "eat":
            bytearray(1 << 30)
        if answer == "number":
            return 1.0
        if answer == "odd":
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why="odd")
        return Grade(score=1 / len(answer))

class Remembers(Plain):
    def __init__(self):
        self.calls = 0

    def grade(self, problem, answer):
        self.calls += 1
        return Grade(score=1 / self.calls)

class Forgets(Remembers):
    grading = GradingLimits(child=Child.FRESH)
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return lambda name: load_task(f"{tmp_path}/mine.py:{name}")


def problem(**metadata):
    return Problem(task="t", question="?", answer="1", metadata=metadata)


def test_it_is_the_task_that_it_stands_for(mine):
    plain, shown = mine("Plain"), mine("Shown")
    assert isinstance(plain, IsolatedTask)
    assert isinstance(plain, Task)
    assert isinstance(plain, AsyncGrader)
    assert not isinstance(plain, DemonstratedTask | EnvironmentTask)
    assert isinstance(shown, DemonstratedTask)
    drawn = shown.sample(Random(0), 0.5)
    assert (drawn.answer, shown.demonstrate(drawn, Random(0)).answer, shown.name) == ("1", "1", "plain")
    assert shown.same("a", "a")


def test_ponders_own_tasks_grade_here():
    assert not isinstance(load_task("ponder.tasks.families:Products"), IsolatedTask)


def test_grading_takes_place_in_another_process_that_sees_the_problem_as_it_was(mine):
    task = mine("Plain")
    grade = task.grade(task.sample(Random(0), 0.5), "1")
    assert grade.solved
    assert grade.why.startswith("(1, 2) in ")
    assert grade.why != f"(1, 2) in {os.getpid()}"


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        ("hang", GradeStatus.TIMEOUT, "longer than 0.5 s"),
        ("crash", GradeStatus.FAILED, "signal"),
        ("eat", GradeStatus.FAILED, "needed more than"),
        ("", GradeStatus.FAILED, "ZeroDivisionError"),
        ("number", GradeStatus.FAILED, "must return a Grade (got 1.0)"),
        ("odd", GradeStatus.UNPARSEABLE, "odd"),
    ],
)
def test_a_grader_that_breaks_costs_one_answer(mine, answer, status, why):
    task = mine("Rough")
    grade = task.grade(problem(), answer)
    assert (grade.score, grade.status) == (0.0, status)
    assert why in grade.why
    assert task.grade(problem(), "x").solved


def test_a_hanging_grader_costs_one_trajectory_of_a_rollout(mine):
    class Told(IsolatedTask):
        """Its first sample hangs."""

        asked = 0

        async def grade_async(self, problem, answer):
            self.asked += 1
            return await super().grade_async(problem, "hang" if self.asked == 1 else "x")

    task = Told(mine("Rough").spec, mine("Rough")._task)
    (group,) = asyncio.run(
        roll_out(tiny_sampler(), [(task, problem())], samples=4, params=SamplingParams(max_tokens=4), seed="s")
    )
    assert sorted(attempt.grade.score for attempt in group) == [0.0, 1.0, 1.0, 1.0]
    assert [attempt.grade.status for attempt in group].count(GradeStatus.TIMEOUT) == 1


def test_answers_share_a_child_unless_the_task_wants_a_fresh_one(mine):
    assert [mine("Remembers").grade(problem(), "").score for _ in range(2)] == [1.0, 0.5]
    assert [mine("Forgets").grade(problem(), "").score for _ in range(2)] == [1.0, 1.0]


def test_the_same_grade_from_threads_asyncio_and_another_process(mine):
    task = mine("Rough")
    answers = ["x" * length for length in range(1, 20)]
    expected = [1 / len(answer) for answer in answers]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda answer: task.grade(problem(), answer).score, answers)) == expected

    async def gathered():
        return await asyncio.gather(*(grade_async(task, problem(), answer) for answer in answers))

    assert [grade.score for grade in asyncio.run(gathered())] == expected
    program = (
        "import os\n"
        "from ponder.tasks.protocol import Problem\n"
        "from ponder.tasks.registry import load_task\n"
        f"task, problem = load_task({task.spec!r}), Problem(task='t', question='?', answer='1')\n"
        "grade = task.grade(problem, 'xx')\n"
        "pid = os.fork()\n"
        "assert task.grade(problem, 'xxxx').score == 0.25\n"
        "if pid: assert os.waitpid(pid, 0)[1] == 0; print(grade.score)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.5\n", "")


def test_a_task_in_a_file_is_found_from_another_folder(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = load_task("mine.py:Plain")
    monkeypatch.chdir("/")
    assert task.grade(problem(pair=[1]), "1").solved


def test_metadata_that_cannot_travel_is_refused(mine):
    assert mine("Plain").grade(problem(pair=Fraction(1, 3)), "1").why.startswith("1/3")
    with pytest.raises(GraderError, match=r"mine.py:Plain: a problem's metadata must be plain JSON data, .*got set"):
        mine("Plain").grade(problem(pair={1}), "1")


ODD = """
import json, os, struct
from ponder.tasks.protocol import Demonstration, Grade, Problem

class Odd:
    name = "odd"

    def sample(self, rng, level):
        return Problem(task=self.name, question="?", answer="1")

    def grade(self, problem, answer):
        if answer == "half":
            return Grade(score=0.5, why="half of a surrogate pair: \\ud83d")
        if answer == "long":
            return Grade(score=0.5, why="x" * 1_000_000)
        if answer == "raised":
            raise ValueError("\\udfff" + chr(0))
        if answer == "bytes":
            return Grade(score=0.5, why=b"\\xff")
        if answer == "status":
            return Grade(score=0.5, status="good")
        if answer == "words":
            return Grade(score="full")
        if answer == "printed":
            os.write(1, bytes(range(256)))
            print("\\ud83d".encode("utf-8", "surrogatepass"))
        if answer == "link":
            os.write(3, bytes(range(256)) * 10)
        if answer == "frame":
            os.write(3, struct.pack(">II", 2, 0) + b"[]")
        if answer == "body":
            header = json.dumps({"outcome": "done", "why": ""}).encode()
            os.write(3, struct.pack(">II", len(header), 3) + header + bytes([255, 254, 0]))
        if answer == "outcome":
            header = json.dumps({"outcome": "splendid"}).encode()
            os.write(3, struct.pack(">II", len(header), 0) + header)
        return Grade(score=float(answer == problem.answer))

    def same(self, a, b):
        return a == b
"""


@pytest.mark.parametrize(
    "answer", ["half", "long", "raised", "bytes", "status", "words", "printed", "link", "frame", "body", "outcome"]
)
def test_odd_bytes_of_a_grader_cost_one_answer(tmp_path, answer):
    (tmp_path / "odd.py").write_text(ODD)
    task = load_task(f"{tmp_path}/odd.py:Odd")
    task.limits = replace(task.limits, seconds=2.0)  # a frame without an end is waited for
    grades = [task.submit("grade_answer", problem(), answer=each) for each in ("1", answer, "1")]
    before, odd, after = (as_grade(grade.result()) for grade in grades)
    assert before.solved
    assert after.solved
    assert not odd.solved
    odd.why.encode()  # it goes into files
    assert len(odd.why) < 3000


@pytest.mark.parametrize(
    ("replaced", "by", "says"),
    [
        (
            "def sample(self, rng, level)",
            "def sample(self, rng)",
            r"sample cannot be called as sample\(rng, level\).*odd\.py, line 8",
        ),
        (
            "def grade(self, problem, answer)",
            "def grade(answer)",
            r"grade cannot be called as grade\(problem, answer\)",
        ),
        ("def same(self, a, b)", "async def same(self, a, b)", "same gives no result by itself"),
        ("def same(self, a, b)", "def other(self, a, b)", "is not a task: .* and lacks same"),
        ('name = "odd"', "name = 3", "name must be a string"),
        ('name = "odd"', "name = property(lambda self: 1 / 0)", "cannot be built without arguments .ZeroDivisionError"),
        ('name = "odd"', "name = 'odd'; grading = 3", r"grading must be GradingLimits .*got 3"),
        ('name = "odd"', "name = 'odd'; sample = None", "cannot be called|must be a method"),
        (
            'name = "odd"',
            "name = 'odd'\n    def __init__(self, size): pass",
            r"missing 1 required .* \(.*odd\.py, line",
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_told_before_it_is_used(tmp_path, replaced, by, says):
    text = ODD.replace(replaced, by)
    if "sample = None" in by:
        text = text.replace("def sample", "def draw")
    (tmp_path / "odd.py").write_text(text)
    with pytest.raises(InvalidRequest, match=says):
        load_task(f"{tmp_path}/odd.py:Odd")


DRAWS = 'return Problem(task=self.name, question="?", answer="1")'


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("return 1 / 0", r"sample\(rng, 0\.5\) raised ZeroDivisionError: division by zero \(.*odd\.py, line 9\)"),
        ("return '?'", r"must return a Problem \(got '\?'\)"),
        (DRAWS.replace('"1"', "1"), r"answer must be a string \(got 1, int\): give str"),
        (DRAWS.replace('"?"', "None"), r"question must be a string \(got None, NoneType\)"),
        (DRAWS.replace('"?"', r"'\ud83d'"), "question holds half of a surrogate pair"),
        (DRAWS[:-1] + ", metadata=[1])", r"metadata must be a dict \(got \[1\]\)"),
    ],
)
def test_what_a_task_draws_is_held_to_the_protocol(tmp_path, by, says):
    (tmp_path / "odd.py").write_text(ODD.replace(DRAWS, by))
    with pytest.raises(TaskError, match=says):
        load_task(f"{tmp_path}/odd.py:Odd").sample(Random(0), 0.5)


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("1 / 0", "demonstrate.* raised ZeroDivisionError.*line"),
        ("'shown'", "must return a Demonstration"),
        ("Demonstration(reasoning=None, answer='1')", "reasoning must be a string"),
        ("Demonstration(reasoning='', answer='1', pieces=(1,))", "piece 0 must be a string"),
        ("Demonstration(reasoning='', answer='1', folds=('a',))", "must be a tuple of Folds"),
        ("Demonstration(reasoning='\\ud800', answer='1')", "holds half of a surrogate pair"),
    ],
)
def test_what_a_task_demonstrates_is_held_to_the_protocol(tmp_path, by, says):
    shown = f"    def demonstrate(self, problem, rng):\n        return {by}\n"
    (tmp_path / "odd.py").write_text(ODD + shown)
    task = load_task(f"{tmp_path}/odd.py:Odd")
    assert isinstance(task, DemonstratedTask)
    with pytest.raises(TaskError, match=says):
        task.demonstrate(problem(), Random(0))
