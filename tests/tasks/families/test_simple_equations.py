"""Every line of the working keeps the value of the unknown; every digit step and every column is right."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families.simple_equations import GYM, SimpleEquations, left_side
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem, without_marks
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


def backwards(digits: str) -> int:
    return int(digits[::-1])


def parsed(equation: str) -> dict[str, int | str]:
    """`7 - 3*x = 1` as factor, constant, result and variable, by probing the left side at 0 and 1."""
    left, right = equation.split(" = ")
    (variable,) = set(re.findall("[a-z]", left))
    at_0, at_1 = (eval(left, {variable: value}) for value in (0, 1))
    return {"factor": at_1 - at_0, "constant": at_0, "result": int(right), "variable": variable}


def check_steps(line: str) -> None:
    """Every digit step, and the columns' result after `>`."""
    for left, wrong, right in re.findall(r"(?<![\d>])(\d+[+*-][\d+-]+)=(?:(\d+) no )?(\d+)", line):
        assert eval(re.sub(r"\b0+(?=\d)", "", left)) == int(right), line
        assert wrong != right
    a, sign, b, result = re.fullmatch(r"(\d+)([+*-])(\d+): .* > (\d+)", line).groups()
    values = {"+": backwards(a) + backwards(b), "-": backwards(a) - backwards(b), "*": backwards(a) * int(b)}
    assert values[sign] == backwards(result), line


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_every_line_keeps_the_value(seed: int, level: float):
    rng = Random(seed)
    family = SimpleEquations()
    problem = family.sample(rng, level)
    demonstration = family.demonstrate(problem, rng)
    given_ = parsed(
        re.search(r"[-\da-z][^:\n,]* = -?\d+", problem.question.replace("If ", "").replace("Solve ", ""))[0]
    )
    assert given_ == problem.metadata
    value = int(problem.answer)
    assert given_["factor"] * value + given_["constant"] == given_["result"]
    head, *lines, last = without_marks(demonstration.reasoning).split("\n")
    factor, right = re.fullmatch(r"(\d+)\*[a-z] = (\d+(?:[+-]\d+)?)", head).groups()
    assert int(factor) * value == eval(right)
    quotient = "" if lines[-1].isdigit() else None
    for line in lines:
        if line.isdigit():
            assert line == quotient
            assert backwards(line) == value
        elif pair := re.fullmatch(r"(\d+) (\d+)(?: by (\d))?", line):
            rest = value if quotient is None else value // 10 ** len(quotient)
            assert backwards(pair[1]) * rest == backwards(pair[2]), line
            if pair[3]:
                quotient += pair[3]
                assert rest % 10 == int(pair[3])
        else:
            check_steps(line)
    assert int(last) == value == int(demonstration.answer)


def test_wording_and_answers_are_the_datasets():
    task = GymTask("simple_equations")
    for index in range(200):
        problem = task.problem(index)
        equation = task.entry(problem)["metadata"]["equation"]
        if equation == "0 = 0":  # the dataset's accident: a difference of equals times the unknown
            continue
        own = parsed(equation)
        assert equation == f"{left_side(own['factor'], own['constant'], own['variable'])} = {own['result']}"
        assert problem.question in [t.format(variable=own["variable"], equation=equation) for t in GYM]
        mine = Problem(task="simple_equations", question=problem.question, answer=problem.answer, metadata=own)
        answer = SimpleEquations().demonstrate(mine, Random(index)).answer
        assert answer == problem.answer
        if index < 5:
            assert task.grade(problem, answer).score == 1.0


def test_every_context_is_short():
    tokenizer = Tokenizer.load("src/ponder/mini")
    family, rng = SimpleEquations(), Random(1)
    for _ in range(200):
        problem = family.sample(rng, 1)
        text = problem.question + without_marks(family.demonstrate(problem, rng).reasoning) + problem.answer
        assert len(tokenizer.encode(text)) <= 1000
