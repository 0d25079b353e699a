"""Decimal sums: every column, every state, and reasoning-gym's own questions and scores."""

from __future__ import annotations

import re
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families.decimal_chain_sum import GYM, DecimalChainSum
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import without_marks
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

FAMILY = DecimalChainSum()
HARD = {
    "min_terms": 5,
    "max_terms": 8,
    "min_digits": 4,
    "max_digits": 8,
    "min_decimal_places": 4,
    "max_decimal_places": 6,
}


def total(terms: str) -> int:
    """` a+5432 b-001`: signed, lowest digit first."""
    return sum(int(sign + digits[::-1]) for sign, digits in re.findall(r" \w([+-])(\d+)", terms))


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_every_line_and_state_keeps_the_sum(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    demonstration = FAMILY.demonstrate(problem, rng)
    head, *lines = re.sub(r"\d+ no ", "", demonstration.text).split("\n")
    assert sum(Decimal(term[1:]) for term in head.split()) == Decimal(problem.answer) == Decimal(demonstration.answer)
    places = {len(term.split(".")[1]) for term in head.split()}
    assert len(places) == 1
    value = int(Decimal(problem.answer) * 10 ** places.pop())
    states = [fold.state for fold in demonstration.folds] or [lines.pop(0)]
    assert [total(state) for state in states] == [value] * len(states)
    for line in filter(None, lines[:-1]):
        operands, steps = line.split(":")
        a, sign, b = re.fullmatch(r"(\d+)(-| \w[+-])(\d+)", operands).groups()
        carry = result = ""
        for step in re.findall(r"[\d+-]+=\d+", steps):
            left, right = step.split("=")
            x, y, c = (int(n) for n in re.findall(r"\d+", left))
            assert int(right) == (x - y - c if sign == "-" else x + y + c), line
            carry, result = (left[0] if sign == "-" else right[0]), result + right[-1]
        if line.endswith("less"):
            assert (sign, carry) == ("-", "1")
            continue
        expected = int(a[::-1]) + int(b[::-1]) * (-1 if sign == "-" else 1)
        assert int(steps.rsplit("> ", 1)[1][::-1]) == expected == int((carry if sign != "-" else "") + result[::-1])


def test_questions_and_answers_are_those_of_reasoning_gym():
    for config in ({}, HARD):
        gym = GymTask("decimal_chain_sum", config)
        for index in range(6_000_000, 6_000_015):
            item = gym.problem(index)
            chain = item.question.split(": ")[1].removesuffix(" =")
            problem = FAMILY.problem(GYM[0], chain)
            assert problem.question == item.question
            demonstration = FAMILY.demonstrate(problem, Random(index))
            assert gym.grade(item, demonstration.answer).score == 1.0


def test_every_context_fits():
    tokenizer = Tokenizer.load("src/ponder/mini")
    for level in (0.5, 1.0):
        for seed in range(30):
            problem = FAMILY.sample(Random(seed), level)
            demonstration = FAMILY.demonstrate(problem, Random(seed))
            states = ["", *(fold.state for fold in demonstration.folds)]
            last = demonstration.reasoning + demonstration.answer
            thoughts = [*(fold.thought + fold.state for fold in demonstration.folds), last]
            for state, thought in zip(states, thoughts, strict=True):
                assert len(tokenizer.encode(problem.question + state + without_marks(thought))) <= 1000
