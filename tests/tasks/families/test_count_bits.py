"""The bits of a number, re-counted, and every step of the divisions by eight."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.count_bits import GYM
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem
from ponder.tokenizer import Tokenizer

reasoning_gym = pytest.importorskip("reasoning_gym")

pytestmark = pytest.mark.property
FAMILY = FAMILIES["count_bits"]
TOKENIZER = Tokenizer.load("src/ponder/mini")
MAX_TOKENS = 480


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_every_row_divides_the_row_before_by_eight(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    number = int(re.search(r"\d+", problem.question.replace("1 bits", ""))[0])
    text = FAMILY.demonstrate(problem, rng).text
    head, *rows, last = text.split("\n")
    assert "".join(re.findall(r"\d", head)) == str(number)
    labels = re.findall(r" (\w):", head)
    assert len(set(labels)) == len(labels)
    total = 0
    for row in rows:
        assert number > 0
        steps, sum_ = re.fullmatch(r"((?: \w\d\d\d(?: no)?)+) (\S+)", row).groups()
        for wrong, right in re.findall(r" (\w\d\d\d) no (\w\d\d\d)", steps):
            assert wrong != right
            assert wrong[:2] == right[:2]
        steps = re.findall(r" (\w)(\d)(\d)(\d)(?! no)", steps)
        assert [label for label, *_ in steps] == labels[-len(steps) :]
        assert int("".join(digit for _, digit, _, _ in steps)) == number
        before = 0
        for _, digit, quotient, rest in steps:
            assert 10 * before + int(digit) == 8 * int(quotient) + int(rest)
            before = int(rest)
        bits = bin(number)[-3:].count("1")
        assert sum_ == f"{total}+{bits}={total + bits}"
        total += bits
        number //= 8
    assert number == 0
    assert last == str(total)


def test_reasoning_gym_asks_the_same_and_takes_the_answers():
    for config in ({}, {"min_n": 1_000_000, "max_n": 100_000_000}):
        gym = GymTask("count_bits", config)
        dataset = reasoning_gym.create_dataset("count_bits", seed=0, size=30, **config)
        for index in range(30):
            item = gym.problem(index)
            number = gym.entry(item)["metadata"]["number"]
            assert item.question == GYM[0].format(number=number)
            problem = Problem(task="count_bits", question=item.question, answer="", metadata={"number": number})
            demonstration = FAMILY.demonstrate(problem, Random(index))
            assert dataset.score_answer(demonstration.answer, dataset[index]) == 1.0
            assert len(TOKENIZER.encode(item.question + demonstration.text)) <= MAX_TOKENS
