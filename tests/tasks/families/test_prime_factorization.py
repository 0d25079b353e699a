"""Trial division re-checked: every step, no prime left out, and factors that sympy finds too."""

from __future__ import annotations

import re
from math import prod
from random import Random

import pytest
from family_checks import corrected
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import isprime, primerange

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.prime_factorization import GYM
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem
from ponder.tokenizer import Tokenizer

reasoning_gym = pytest.importorskip("reasoning_gym")

pytestmark = pytest.mark.property
FAMILY = FAMILIES["prime_factorization"]
TOKENIZER = Tokenizer.load("src/ponder/mini")
MAX_TOKENS = 1000
PRIMES = list(primerange(100))


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=66, deadline=None)
def test_every_prime_is_tried_and_every_step_holds(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    demonstration = FAMILY.demonstrate(problem, rng)
    number = int(re.search(r"\d+", problem.question)[0])
    factors: list[int] = []
    rest, limit, due = number, 0, 0
    *lines, last = map(corrected, demonstration.text.split("\n"))
    for line in lines:
        if head := re.fullmatch(r"((?:\d+ × )*)(\d+) to (\d+)", line):
            factors = [int(f) for f in re.findall(r"\d+", head[1])]
            rest, limit = int(head[2]), int(head[3])
            assert prod(factors) * rest == number
            assert limit == max(p for p in PRIMES if p * p <= rest)
            due = PRIMES.index(factors[-1]) if factors else 0
            continue
        top, prime = map(int, re.match(r"(\d+)/(\d+)", line).groups())
        assert (top, prime) == (rest, PRIMES[due])
        assert prime <= limit
        due += 1
        if ends := re.search(r" ends (\d)", line):
            assert int(ends[1]) == rest % 10
        steps = re.findall(r" (\d+):(\d)=(\d+)\+(\d+)", line)
        for step_top, quotient, product, left in steps:
            assert int(product) == int(quotient) * prime
            assert int(step_top) - int(product) == int(left) < prime
        assert bool(steps) or rest % prime
        if steps:
            assert int(steps[-1][3]) == rest % prime
            assert "".join(top for top, *_ in steps).endswith(str(rest)[-1])
        found = re.search(r" > (\d+)$", line)
        assert bool(found) == (rest % prime == 0)
        if found:
            assert int(found[1]) == rest // prime == int("".join(quotient for _, quotient, *_ in steps))
    answer = [int(f) for f in demonstration.answer.split(" × ")]
    assert last == f"{demonstration.answer} prime"
    assert prod(answer) == number
    assert all(map(isprime, answer))
    assert FAMILY.grade(problem, " × ".join(map(str, reversed(answer)))).solved
    assert not FAMILY.grade(problem, f"{demonstration.answer} × 1").solved
    assert FAMILY.same(demonstration.answer, "×".join(map(str, reversed(answer))))


@pytest.mark.parametrize("config", [{}, {"min_value": 1000, "max_value": 5000}])
def test_reasoning_gym_asks_the_same_and_takes_the_answers(config):
    gym = GymTask("prime_factorization", config)
    dataset = reasoning_gym.create_dataset("prime_factorization", seed=0, size=60, **config)
    for index in range(60):
        item, entry = gym.problem(index), dataset[index]
        number = entry["metadata"]["number"]
        assert item.question == GYM[0].format(number=number)
        problem = Problem(task="prime_factorization", question=item.question, answer="", metadata={"number": number})
        demonstration = FAMILY.demonstrate(problem, Random(index))
        assert dataset.score_answer(demonstration.answer, entry) == 1.0
        assert len(TOKENIZER.encode(item.question + demonstration.text)) <= MAX_TOKENS


def test_the_longest_working_fits_a_context():
    for number in (4999, 4993, 4096, 4489):
        problem = Problem(task="", question=GYM[0].format(number=number), answer="", metadata={"number": number})
        text = FAMILY.demonstrate(problem, Random(0)).text
        assert len(TOKENIZER.encode(problem.question + text)) <= MAX_TOKENS
