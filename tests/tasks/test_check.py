"""A task is held to what it promises, and who wrote it reads which call broke which promise."""

from decimal import ROUND_DOWN, localcontext
from pathlib import Path

import pytest

from ponder.cli.main import main
from ponder.tasks.check import check
from ponder.tasks.families import FAMILIES
from ponder.tasks.families.further import FURTHER_FAMILIES
from ponder.tasks.families.logic import LOGIC_FAMILIES
from ponder.tasks.registry import load_task
from ponder.types import TaskError

ADDING = """
import random
from ponder.tasks.protocol import Demonstration, Grade, Problem

class Adding:
    name = "adding"

    def sample(self, rng, level):
        a, b = rng.randrange(10), rng.randrange(10)
        return Problem(task=self.name, question=f"{a}+{b}?", answer=str(a + b))

    def demonstrate(self, problem, rng):
        return Demonstration(reasoning="counting", answer=problem.answer)

    def grade(self, problem, answer):
        return Grade(score=float(answer == problem.answer))

    def same(self, a, b):
        return a == b
"""
FOUR = 'Problem(task=self.name, question="2+2?", answer="4")'


def broken(tmp_path: Path, replaced: str, by: str) -> str:
    """The spec of the task above with one thing wrong."""
    assert replaced in ADDING
    (tmp_path / "adding.py").write_text(ADDING.replace(replaced, by))
    return f"{tmp_path}/adding.py:Adding"


@pytest.mark.parametrize(
    ("replaced", "by", "says"),
    [
        ("a, b = rng.", "a, b = random.", "for the same seed, .*draw everything random from `rng`"),
        ('reasoning="counting"', "reasoning=str(random.random())", "demonstrate differs for the same seed"),
        ("answer=problem.answer)", 'answer="x")', r"does not accept the demonstration's answer, 'x': score 0, graded"),
        ("float(answer == problem.answer)", "2.0", r"score from 0 to 1 \(got 2\)"),
        ("float(answer == problem.answer)", "float('nan')", "score from 0 to 1"),
        ("float(answer == problem.answer)", "1.0", "accepts an empty answer"),
        ("Grade(score=float(answer == problem.answer))", "1.0", "must return a Grade"),
        ("float(answer == problem.answer)", "int(answer) / 0", r"grade\(problem, .*ZeroDivisionError"),
        ("rng.randrange(10), rng", "1 / level, 1 / 0, rng", r"sample\(rng, 0.125\) raised ZeroDivisionError: .*line 9"),
        ("return Problem(", "return str(", "must return a Problem|raised TypeError"),
        ('question=f"{a}+{b}?"', 'question=" "', "without question or answer"),
        (
            'reasoning="counting", answer',
            'pieces=("1", "x"), reasoning="counting", answer',
            "pieces must join to .*got '1x'",
        ),
        ("return a == b", "return False", "is false: every answer must be the same as itself"),
    ],
)
def test_a_broken_promise_is_named(tmp_path: Path, replaced: str, by: str, says: str) -> None:
    with pytest.raises(TaskError, match=says) as raised:
        check(load_task(broken(tmp_path, replaced, by)), 4)
    assert "adding" in str(raised.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_them(name: str) -> None:
    checked = check(FAMILIES[name], 12)
    assert [round(12 * each.level - 0.5) for each in checked] == list(range(12))
    assert all(each.grade.solved and each.demonstration for each in checked)


@pytest.mark.parametrize("name", ["decimal_chain_sum", "power_function"])
def test_decimals_do_not_hang_on_what_another_library_has_left_behind(name: str) -> None:
    before = check(FAMILIES[name], 12)
    with localcontext(prec=4, rounding=ROUND_DOWN):
        assert check(FAMILIES[name], 12) == before


def test_a_task_that_demonstrates_nothing_is_graded_by_its_own_answers(tmp_path: Path) -> None:
    spec = broken(tmp_path, "def demonstrate", "def explain")
    assert all(each.demonstration is None and each.grade.solved for each in check(load_task(spec), 4))


def test_the_verb_shows_problems_and_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", broken(tmp_path, "counting", "one two three"), "-n", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("(grade: 1)") == out.count("one two three") == 2
    assert out.count("\n| 0.") == 5
    assert "100 problems" in out
    assert main(["tasks", broken(tmp_path, "return a == b", "return False")]) == 0  # a file is imported once
    assert "accepts every demonstration" in capsys.readouterr().out


def test_the_verb_counts_the_contexts_of_folded_thoughts_each_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "products", "-n", "1"]) == 0
    *_, last, _ = capsys.readouterr().out.splitlines()
    _, _, _, thinking, _, longest, _ = (cell.strip() for cell in last.split("|"))
    assert int(thinking) > 2 * int(longest)


def test_the_verb_without_a_task_lists_the_families(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(FAMILIES | FURTHER_FAMILIES | LOGIC_FAMILIES)


def test_the_verb_tabulates_the_lengths_of_families(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "gcd,ab,products", "--lengths", "8"]) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0].strip("`") for row in cells] == ["gcd", "gcd", "ab", "ab", "products", "products"]
    thinking, highest, longest, highest_longest = (int(cell) for cell in cells[-1][2:])
    assert thinking > longest  # hard products are folded: all thoughts, and one context
    assert highest >= thinking
    assert highest_longest >= longest
    assert main(["tasks", "gcds", "--lengths", "8"]) == 2
    assert "no family 'gcds'" in capsys.readouterr().err


def test_the_verb_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", broken(tmp_path, "return a == b", "return False")]) == 1
    err = capsys.readouterr().err
    assert "same as itself" in err
    assert err.count("\n") == 1
    assert main(["tasks", "prodcts"]) == 2
    assert "products" in capsys.readouterr().err
