"""Every step of every demonstration is re-checked here with arithmetic that shares no code with the families."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.protocol import DemonstratedTask, without_marks

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


def drawn(name: str, seed: int, level: float):
    rng = Random(seed)
    family = FAMILIES[name]
    problem = family.sample(rng, level)
    demonstration = family.demonstrate(problem, rng)
    return family, problem, replace(demonstration, reasoning=without_marks(demonstration.reasoning))


def backwards(digits: str) -> int:
    return int(digits[::-1])


def check_digit_steps(line: str) -> None:
    """Every `a*b+c+d=e`, `a+b+c=e` and `a-b-c=e`; a wrong one must be taken back by `no` and the right result."""
    for left, result, _, correction in re.findall(r"(?<![\d>])([\d*+-]+)=(\d+)( no (\d+))?", line):
        numbers = [int(n) for n in re.findall(r"\d+", left)]
        signs = re.findall(r"[*+-]", left)
        if "*" in signs:
            value = numbers[0] * numbers[1] + sum(numbers[2:])
        else:
            value = numbers[0] + sum(n if s == "+" else -n for s, n in zip(signs, numbers[1:], strict=True))
        assert value == int(correction or result), line
        assert not correction or int(result) != value, f"a right step was taken back: {line}"


def check_columns(lines: list[str]) -> None:
    """The lines of column arithmetic: digit steps, then the result lowest digit first."""
    for line in lines:
        check_digit_steps(line)
        if match := re.fullmatch(r"(\d+)(-| \w[+-])(\d+): .*(?: > (\d+)| less)", line):
            a, sign, b, result = match.groups()
            value = backwards(a) + backwards(b) * (-1 if sign == "-" else 1)
            assert value == backwards(result) if result else value < 0, line


def check_product(lines: list[str]) -> None:
    """Long multiplication from its head line `a*b` to the product lowest digit first."""
    a, b = map(int, lines[0].split("*"))
    assert [backwards(d) for d in lines[1].split()] == [a, b]
    total = 0
    for place, line in enumerate(lines[2 : 2 + len(str(b))]):
        check_digit_steps(line)
        digit, row = int(line[0]), line.rsplit("> ", 1)[1]
        assert digit == int(str(b)[::-1][place])
        total += a * digit * 10**place
        assert backwards(row) == total // 10**place, line
    assert backwards(lines[2 + len(str(b))]) == total == a * b


@pytest.mark.parametrize("name", FAMILIES)
@given(seed=seeds, level=levels)
@settings(max_examples=60, deadline=None)
def test_demonstrations_end_in_an_answer_that_their_own_grader_accepts(name: str, seed: int, level: float):
    family, problem, demonstration = drawn(name, seed, level)
    assert isinstance(family, DemonstratedTask)
    assert family.grade(problem, demonstration.answer).solved or "give up" in demonstration.reasoning
    assert family.grade(problem, problem.answer).solved
    assert family.same(problem.answer, problem.answer)
    assert not family.grade(problem, demonstration.answer + "1").solved
    assert "".join(demonstration.pieces) in ("", demonstration.answer)


@given(seed=seeds, level=levels)
@settings(max_examples=200, deadline=None)
def test_every_row_of_a_product_is_right(seed: int, level: float):
    _, problem, demonstration = drawn("products", seed, level / 2)  # larger ones: test_family_products.py
    a, b = map(int, re.findall(r"\d+", problem.question))
    *lines, last = demonstration.reasoning.split("\n")
    assert lines[0] == f"{a}*{b}"
    check_product(lines)
    assert int(last) == a * b


@given(seed=seeds, level=levels)
@settings(max_examples=200, deadline=None)
def test_every_column_of_a_sum_is_right(seed: int, level: float):
    _, problem, demonstration = drawn("chain_sum", seed, level)
    chain = re.search(r"\d+( [+-] \d+)+", problem.question)
    assert chain
    terms = [int(t) for t in re.findall(r"[+-]?\d+", chain[0].replace(" ", ""))]
    head, *lines, last = demonstration.reasoning.split("\n")
    assert [int(t[1] + t[:1:-1]) for t in head.split()] == terms
    assert [t[0] for t in head.split()] == [*"abcdefgh"[: len(terms)]]
    check_columns(lines)
    for name in re.findall(r"^\d+( \w[+-]\d+):", "\n".join(lines), re.MULTILINE):
        assert name in head
    used = 1 + sum(":" in line and not line.endswith("less") for line in lines)
    assert used == len(terms)
    assert int(last) == sum(terms)


@given(seed=seeds, level=levels)
@settings(max_examples=200, deadline=None)
def test_every_word_is_spelled_and_every_hit_numbered(seed: int, level: float):
    _, problem, demonstration = drawn("letter_counting", seed, level)
    thoughts = [fold.thought for fold in demonstration.folds] + [demonstration.reasoning]
    words, count = problem.metadata["words"], 0
    for number, thought in enumerate(thoughts):
        head, *lines = thought.split("\n")
        letter = head.removesuffix(" in")
        last = lines.pop() if number == len(thoughts) - 1 else ""
        here = words[16 * number : 16 * (number + 1)]
        for place, (word, line) in enumerate(zip(here, lines, strict=True)):
            entry, letters = line.split(": ")
            assert entry == f"{place + 1:02d} {word}"
            assert word in problem.question
            for character, mark in zip(word.lower(), letters.split(), strict=True):
                count += character == letter
                assert mark == (f"{character}{count}" if character == letter else character)
        if not last:
            assert demonstration.folds[number].state == f"{letter} {count} after {' '.join(here[-3:])}"
    assert int(last) == count


@given(seed=seeds, level=levels)
@settings(max_examples=100, deadline=None)
def test_words_are_spelled_forward_then_backward(seed: int, level: float):
    _, problem, demonstration = drawn("spell_backward", seed, level)
    forward, backward = (line.split(": ")[1].split() for line in demonstration.reasoning.split("\n"))
    assert "".join(forward) in problem.question
    assert backward == forward[::-1]
    assert "".join(backward) == demonstration.answer


def exact(expression: str) -> Fraction:
    """The value by Python's own parser over fractions; brackets and spaces as they stand."""
    return eval(re.sub(r"\d+", r"Fraction(\g<0>)", expression), {"Fraction": Fraction})


@given(seed=seeds, level=levels)
@settings(max_examples=200, deadline=None)
def test_every_rewriting_of_an_expression_keeps_its_value(seed: int, level: float):
    _, problem, demonstration = drawn("basic_arithmetic", seed, level)
    lines = demonstration.reasoning.split("\n")
    value = int(problem.answer)
    expression = str(problem.metadata["expression"])
    assert lines[0] == expression
    assert exact(expression) == value
    starts = [i for i, line in enumerate(lines) if re.fullmatch(r"\d+\*\d+", line)]
    for i in starts:
        check_product(lines[i : i + 3 + len(lines[i].split("*")[1])])
    working = re.compile(r"[+-]\d+( [+-]\d+)*|\d+[<=>]\d+|.*[:>].*|\d+\*\d+|\d+ \d+|\d+")
    division = re.compile(r"(\d+)-(\d+)\*(\d+): (\d+)-(\d+)=(\d+) (\d+)")
    check_columns([line for line in lines if working.fullmatch(line) and not division.fullmatch(line)])
    for line in lines:
        if match := division.fullmatch(line):
            a, b, q, top, product, low, rest = match.groups()
            assert backwards(top) == int(a)
            assert backwards(product) == int(b) * int(q)
            assert backwards(low) == int(rest) == int(a) - int(b) * int(q)
    assert Fraction(demonstration.answer) == value
