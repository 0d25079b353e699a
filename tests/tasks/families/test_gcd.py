"""Euclid's algorithm re-checked column by column, and pair by pair where there are more than two numbers."""

from __future__ import annotations

import math
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.gcd import GYM
from ponder.tasks.families.working.euclid import euclid
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem, without_marks
from ponder.tokenizer import Tokenizer

reasoning_gym = pytest.importorskip("reasoning_gym")

pytestmark = pytest.mark.property
FAMILY = FAMILIES["gcd"]
TOKENIZER = Tokenizer.load("src/ponder/mini")
MAX_TOKENS = 750
HARD = {"min_numbers": 3, "max_numbers": 4, "min_value": 1000, "max_value": 10_000}


def backwards(digits: str) -> int:
    return int(digits[::-1])


def check_euclid(text: str, a: int, b: int) -> int:
    """Re-check one working of `euclid` on a and b; the greatest common divisor that it states."""
    head, *lines, last = text.split("\n")
    a, b = max(a, b), min(a, b)
    assert head == f"{a} {b}"
    for line in lines:
        assert b > 1
        top, below, digit, steps, rest = re.fullmatch(r"(\d+)-(\d+)\*(\d):((?: \d{4}:\d\d)+) > (.*)", line).groups()
        assert backwards(top) == a
        assert below.lstrip("0") == str(b)[::-1].lstrip("0")
        assert backwards(below) % b == 0
        taken, left, carry = 0, 0, 0
        for place, (b_i, c, product, a_i, left_i) in enumerate(re.findall(r"(\d)(\d)(\d\d):(\d)(\d)", steps)):
            assert int(c) == carry
            assert int(b_i) * int(digit) + carry == int(product)
            difference = int(a_i) - int(product[1])
            assert difference % 10 == int(left_i)
            carry = int(product[0]) + (difference < 0)
            assert a_i == top[place]
            taken += int(b_i) * 10**place
            left += int(left_i) * 10**place
        assert taken == backwards(below)
        if carry:
            assert rest == "too big"
            assert taken * int(digit) > a
            continue
        assert backwards(rest) == left == a - taken * int(digit)
        a = left
        if a < b:
            a, b = b, a
    assert b in (0, 1)
    assert last == f"gcd {b or a}"
    return b or a


@given(a=st.integers(1, 10**6), b=st.integers(1, 10**6), seed=st.integers(0, 2**32))
@settings(max_examples=66, deadline=None)
def test_every_line_takes_away_a_true_multiple(a: int, b: int, seed: int):
    lines, divisor = euclid(a, b, Random(seed))
    assert check_euclid(without_marks("\n".join(lines)), a, b) == divisor == math.gcd(a, b)


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_each_thought_takes_the_next_number_in(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    numbers = [int(n) for n in re.findall(r"\d+", problem.question)]
    demonstration = FAMILY.demonstrate(problem, rng)
    divisor, *left = numbers
    for fold in demonstration.folds:
        divisor = check_euclid(without_marks(fold.thought), divisor, left.pop(0))
        assert fold.state == f"gcd {divisor} left {' '.join(map(str, left))}"
        assert left
    divisor = check_euclid(without_marks(demonstration.reasoning), divisor, left.pop(0))
    assert not left or divisor == 1
    assert int(demonstration.answer) == divisor == math.gcd(*numbers)


@pytest.mark.parametrize("config", [{}, HARD])
def test_reasoning_gym_asks_the_same_and_takes_the_answers(config):
    gym = GymTask("gcd", config)
    dataset = reasoning_gym.create_dataset("gcd", seed=0, size=60, **config)
    for index in range(60):
        item, entry = gym.problem(index), dataset[index]
        numbers = entry["metadata"]["numbers"]
        assert item.question == GYM[0].format(numbers=", ".join(map(str, numbers)))
        problem = Problem(task="gcd", question=item.question, answer="", metadata={"numbers": numbers})
        demonstration = FAMILY.demonstrate(problem, Random(index))
        assert dataset.score_answer(demonstration.answer, entry) == 1.0
        for thought in (*(fold.thought for fold in demonstration.folds), demonstration.reasoning):
            assert len(TOKENIZER.encode(item.question + without_marks(thought))) <= MAX_TOKENS
