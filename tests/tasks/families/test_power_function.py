"""Powers re-checked: every product and division, every rounding, and the state that each fold hands on."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.power_function import GYM
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem, without_marks
from ponder.tokenizer import Tokenizer

reasoning_gym = pytest.importorskip("reasoning_gym")

pytestmark = pytest.mark.property
FAMILY = FAMILIES["power_function"]
TOKENIZER = Tokenizer.load("src/ponder/mini")
MAX_TOKENS = 700
FIVE, LONG = Context(prec=5, rounding=ROUND_HALF_UP), Context(prec=60)


def read(text: str) -> Decimal:
    """12346e2 as 1.2346 * 10^2."""
    digits, place = text.split("e")
    return Decimal(f"{digits[0]}.{digits[1:]}e{place}")


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_every_operation_holds(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    base, exponent = Decimal(str(problem.metadata["base"])), problem.metadata["exponent"]
    assert f"{base}^{exponent}" in problem.question or f"{base} to the power {exponent}" in problem.question
    demonstration = FAMILY.demonstrate(problem, rng)
    if exponent == 0:
        assert demonstration.answer == "1.00e+0"
        return
    now, of_exponent = FIVE.plus(abs(base)), 1
    plan = re.search(r"base (\d{5}e-?\d+) (.*)", demonstration.text)
    assert read(plan[1]) == now
    operations = plan[2].split()
    for i, fold in enumerate(demonstration.folds):
        text = re.sub(r"\d+ no ", "", without_marks(fold.thought))
        before = now
        if operations[i] == "square":
            now, of_exponent = FIVE.plus(LONG.multiply(now, now)), 2 * of_exponent
        elif operations[i] == "times":
            now, of_exponent = FIVE.plus(LONG.multiply(now, FIVE.plus(abs(base)))), of_exponent + 1
        else:
            assert operations[i] == "invert"
            of_exponent *= -1
            now = read(re.search(r"now (\S+)", fold.state)[1])
            ulp = Decimal(1).scaleb(now.adjusted() - 3)
            assert 0 <= LONG.divide(Decimal(1), before) - now < ulp
        if head := re.search(r"(\d{5})\*(\d{5})\n", text):
            assert re.search(rf"^{int(head[1]) * int(head[2])}$", text, re.M)
        for a, b, c, d, result in re.findall(r" (\d)\*(\d)\+(\d)\+(\d)=(\d\d)", text):
            assert int(a) * int(b) + int(c) + int(d) == int(result)
        state = re.fullmatch(r"(minus )?base (\S+) now (\S+) (.*)", fold.state)
        assert bool(state[1]) == (base < 0 and exponent % 2 == 1)
        assert state[2] == plan[1]
        assert read(state[3]) == now
        assert state[4].split() == operations[i + 1 :]
    assert operations[-1] == "round"
    assert of_exponent == exponent
    assert abs(Decimal(demonstration.answer) / base**exponent - 1) < Decimal("0.006")


@pytest.mark.parametrize("config", [{}, {"min_exponent": 4, "max_exponent": 8}])
def test_reasoning_gym_asks_the_same_and_takes_nearly_all_answers(config):
    gym = GymTask("power_function", config)
    dataset = reasoning_gym.create_dataset("power_function", seed=0, size=200, **config)
    solved = 0
    for index in range(200):
        item, entry = gym.problem(index), dataset[index]
        facts = {key: entry["metadata"][key] for key in ("base", "exponent")}
        assert item.question == GYM[0].format(**facts)
        problem = Problem(task="power_function", question=item.question, answer=entry["answer"], metadata=facts)
        demonstration = FAMILY.demonstrate(problem, Random(index))
        score = dataset.score_answer(demonstration.answer, entry)
        assert FAMILY.grade(problem, demonstration.answer).solved == (score == 1.0)
        solved += score == 1.0
        state = ""
        for fold in demonstration.folds:
            assert len(TOKENIZER.encode(item.question + state + without_marks(fold.thought) + fold.state)) <= MAX_TOKENS
            state = fold.state
    assert solved >= 192
