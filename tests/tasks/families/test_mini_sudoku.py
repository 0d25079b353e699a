"""Every look lists the seven peers with their values at that time, and what they leave."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families.mini_sudoku import MiniSudoku
from ponder.tasks.protocol import without_marks
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)
FAMILY = MiniSudoku()
LETTERS = "abcdefghijklmnop"


def places(letter: str) -> tuple[int, int, tuple[int, int]]:
    row, column = divmod(LETTERS.index(letter), 4)
    return row, column, (row // 2, column // 2)


def mended(text: str) -> str:
    """The working with its slips put right; each of them differs from what puts it right."""
    assert all(wrong != right for wrong, right in re.findall(r"([\d_]) no ([\d_])", without_marks(text)))
    return re.sub(r"([\d_]) no ([\d_])", r"\2", without_marks(text))


@given(seed=seeds, level=levels)
@settings(max_examples=33, deadline=None)
def test_every_look_is_true_and_every_number_is_forced(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    demonstration = FAMILY.demonstrate(problem, rng)
    lines = mended(demonstration.reasoning).split("\n")
    printed = re.findall(r"[\d_]", problem.question.split("puzzle:\n")[1].split("\nFormat")[0])
    board = dict(zip(LETTERS, printed, strict=True))
    assert " ".join(lines[:4]).split() == [f"{k}{v}" for k, v in board.items()]
    for line in lines[4:-4]:
        cell, seen, left, verdict = re.fullmatch(r"(\w): (.*) left ([\d ]+?) (no|so .*)", line).groups()
        assert board[cell] == "_"
        shown = {each[0]: each[1] for each in seen.split()}
        peers = {k for k in LETTERS if k != cell and any(x == y for x, y in zip(places(k), places(cell), strict=True))}
        assert shown == {k: board[k] for k in peers}
        assert set(left.split()) == set("1234") - set(shown.values())
        assert (verdict == "no") == (len(left.split()) > 1)
        if verdict != "no":
            board[cell] = left
            assert verdict == f"so {cell}{left}"
    assert " ".join(lines[-4:]).split() == [f"{k}{v}" for k, v in board.items()]
    assert demonstration.answer == problem.answer
    assert demonstration.answer.split() == list(board.values())


def test_the_datasets_scorer_agrees_on_both_configs():
    rng = Random(0)
    for number in range(10):
        problem = FAMILY.sample(rng, number / 10)
        answer = FAMILY.demonstrate(problem, rng).answer
        assert FAMILY.dataset.grade(problem, answer).score == 1.0
        assert FAMILY.grade(problem, answer).solved
        assert not FAMILY.grade(problem, answer.replace("\n", " ")).solved
        assert not FAMILY.dataset.grade(problem, answer.replace("\n", " ")).solved


def test_every_context_is_short():
    tokenizer = Tokenizer.load("src/ponder/mini")
    rng = Random(1)
    for number in range(100):
        problem = FAMILY.sample(rng, number / 100)
        text = problem.question + FAMILY.demonstrate(problem, rng).reasoning + problem.answer
        assert len(tokenizer.encode(text)) <= 850
