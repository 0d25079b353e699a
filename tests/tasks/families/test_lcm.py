"""Least common multiples re-checked: every state keeps the multiple, every division and every row holds.

The lines of Euclid's algorithm are re-checked in test_gcd.
"""

from __future__ import annotations

import math
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.lcm import GYM
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem, without_marks
from ponder.tokenizer import Tokenizer

reasoning_gym = pytest.importorskip("reasoning_gym")

pytestmark = pytest.mark.property
FAMILY = FAMILIES["lcm"]
TOKENIZER = Tokenizer.load("src/ponder/mini")
MAX_TOKENS = 900
HARD = {"min_numbers": 3, "max_numbers": 4, "min_value": 1000, "max_value": 10_000}


def check_thought(thought: str) -> list[int]:
    """Re-check gcd, division and product; the quotient or product that the thought ends in, where there is one."""
    text = re.sub(r"\d+ no ", "", without_marks(thought))
    results = []
    if head := re.match(r"(\d+) (\d+)\n", text):
        a, b = int(head[1]), int(head[2])
        stated = int(re.search(r"^gcd (\d+)$", text, re.M)[1])
        assert stated == math.gcd(a, b)
        if division := re.search(r"^(\d+)/(\d+):(.*) > (\d+)$", text, re.M):
            top, by, steps, quotient = division.groups()
            assert int(by) == stated
            assert int(top) == int(quotient) * int(by)
            assert int("".join(re.findall(r":(\d)=", steps))) == int(quotient)
            for step_top, q, product, rest in re.findall(r" (\d+):(\d)=(\d+)\+(\d+)", steps):
                assert int(q) * int(by) == int(product) == int(step_top) - int(rest)
            results.append(int(quotient))
        else:
            assert stated == 1
    if product := re.search(r"^(\d+)\*(\d+)\n(?:.*\n)*(\d+)$", text, re.M):
        for a_i, b_i, c, d, result in re.findall(r" (\d)\*(\d)\+(\d)\+(\d)=(\d\d)", text):
            assert int(a_i) * int(b_i) + int(c) + int(d) == int(result)
        assert int(product[1]) * int(product[2]) == int(product[3])
        results.append(int(product[3]))
    return results


def multiple_of_state(state: str) -> int:
    """The least common multiple that a state stands for."""
    head, *rest = state.split("; ")
    parts = [int(n) for n in head.split(" × ")]
    multiple = math.prod(parts)
    if rest:
        number, part = map(int, re.fullmatch(r"(\d+) by (\d+)", rest[0]).groups())
        still_shared = math.gcd(number, math.prod(parts[parts.index(part) :]))
        multiple *= number // still_shared
    return math.lcm(multiple, *(int(n) for piece in rest[1:] for n in piece.split()))


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_every_thought_holds_and_every_state_keeps_the_multiple(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    numbers = [int(n) for n in re.findall(r"\d+", problem.question)]
    demonstration = FAMILY.demonstrate(problem, rng)
    assert bool(demonstration.folds) == (len(numbers) > 2)
    for fold in demonstration.folds:
        for result in check_thought(fold.thought):
            assert str(result) in re.findall(r"\d+", fold.state)
        assert multiple_of_state(fold.state) == math.lcm(*numbers)
    assert check_thought(demonstration.reasoning)[-1] == int(demonstration.answer) == math.lcm(*numbers)


@pytest.mark.parametrize("config", [{}, HARD])
def test_reasoning_gym_asks_the_same_and_takes_the_answers(config):
    gym = GymTask("lcm", config)
    dataset = reasoning_gym.create_dataset("lcm", seed=0, size=40, **config)
    for index in range(40):
        item, entry = gym.problem(index), dataset[index]
        numbers = entry["metadata"]["numbers"]
        assert item.question == GYM[0].format(numbers=", ".join(map(str, numbers)))
        problem = Problem(task="lcm", question=item.question, answer="", metadata={"numbers": numbers})
        demonstration = FAMILY.demonstrate(problem, Random(index))
        assert dataset.score_answer(demonstration.answer, entry) == 1.0
        state = ""
        for fold in demonstration.folds:
            assert len(TOKENIZER.encode(item.question + state + without_marks(fold.thought) + fold.state)) <= MAX_TOKENS
            state = fold.state
        assert len(TOKENIZER.encode(item.question + state + without_marks(demonstration.reasoning))) <= MAX_TOKENS
