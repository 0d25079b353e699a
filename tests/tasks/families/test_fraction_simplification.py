"""Fractions re-checked by Python's own; Euclid's lines are re-checked in test_gcd."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.fraction_simplification import GYM
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem
from ponder.tokenizer import Tokenizer

reasoning_gym = pytest.importorskip("reasoning_gym")

pytestmark = pytest.mark.property
FAMILY = FAMILIES["fraction_simplification"]
TOKENIZER = Tokenizer.load("src/ponder/mini")
MAX_TOKENS = 1000
HARD = {"min_value": 100, "max_value": 1000, "min_factor": 10, "max_factor": 100}


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=66, deadline=None)
def test_both_terms_are_divided_by_their_greatest_common_divisor(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    above, below = map(int, re.findall(r"\d+", problem.question))
    demonstration = FAMILY.demonstrate(problem, rng)
    head, *lines, last = re.sub(r"\d+ no ", "", demonstration.text).split("\n")
    assert head == f"{max(above, below)} {min(above, below)}"
    divisor = math.gcd(above, below)
    at = lines.index(f"gcd {divisor}")
    divided = []
    for line, number in zip(lines[at + 1 :], (above, below), strict=divisor > 1):
        top, by, steps, quotient = re.fullmatch(r"(\d+)/(\d+):(.*) > (\d+)", line).groups()
        assert (int(top), int(by)) == (number, divisor)
        for step_top, q, product, rest in re.findall(r" (\d+):(\d)=(\d+)\+(\d+)", steps):
            assert int(q) * divisor == int(product) == int(step_top) - int(rest)
        assert int("".join(re.findall(r":(\d)=", steps))) == int(quotient)
        divided.append(quotient)
    assert demonstration.answer == last == ("/".join(divided) if divided else f"{above}/{below}")
    simple = Fraction(above, below)
    assert last == f"{simple.numerator}/{simple.denominator}"


@pytest.mark.parametrize("config", [{}, HARD])
def test_reasoning_gym_asks_the_same_and_takes_the_answers(config):
    gym = GymTask("fraction_simplification", config)
    dataset = reasoning_gym.create_dataset("fraction_simplification", seed=0, size=60, **config)
    styles = set()
    for index in range(60):
        item, entry = gym.problem(index), dataset[index]
        facts = {key: entry["metadata"][key] for key in ("numerator", "denominator")}
        fraction = re.search(r"fraction (\S+) to", item.question)[1]
        styles.add(re.sub(r"\d+", "#", fraction))
        assert item.question == GYM[0].format(fraction=fraction)
        problem = Problem(
            task="fraction_simplification", question=item.question, answer=entry["answer"], metadata=facts
        )
        demonstration = FAMILY.demonstrate(problem, Random(index))
        assert dataset.score_answer(demonstration.answer, entry) == 1.0
        assert FAMILY.grade(problem, demonstration.answer).solved
        assert FAMILY.grade(problem, entry["answer"]).solved
        assert FAMILY.same(demonstration.answer, entry["answer"])
        unsimplified = f"{facts['numerator']}/{facts['denominator']}"
        assert FAMILY.grade(problem, unsimplified).solved == (unsimplified == demonstration.answer)
        assert len(TOKENIZER.encode(item.question + demonstration.text)) <= MAX_TOKENS
    questions = [re.sub(r"\d+", "#", FAMILY.sample(Random(seed), 0.5).question) for seed in range(50)]
    assert all(any(style in question for style in styles) for question in questions)
