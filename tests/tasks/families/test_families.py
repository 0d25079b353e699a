"""Every step of every demonstration is re-checked here with arithmetic that shares no code with the families."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.working.long_multiplication import tries
from ponder.tasks.gym import GymTask, UndrawableItem
from ponder.tasks.protocol import DemonstratedTask, without_marks

pytestmark = pytest.mark.property

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
@settings(max_examples=25, deadline=None)
def test_demonstrations_end_in_an_answer_that_their_own_grader_accepts(name: str, seed: int, level: float):
    family, problem, demonstration = drawn(name, seed, level)
    assert isinstance(family, DemonstratedTask)
    assert family.grade(problem, demonstration.answer).solved or "give up" in demonstration.reasoning
    assert family.grade(problem, problem.answer).solved
    assert family.same(problem.answer, problem.answer)
    assert not family.grade(problem, demonstration.answer + "1").solved
    assert "".join(demonstration.pieces) in ("", demonstration.answer)


@given(seed=seeds, level=levels)
@settings(max_examples=66, deadline=None)
def test_every_row_of_a_product_is_right(seed: int, level: float):
    _, problem, demonstration = drawn("products", seed, level / 2)  # larger ones: test_products.py
    a, b = map(int, re.findall(r"\d+", problem.question))
    *lines, last = demonstration.reasoning.split("\n")
    assert lines[0] == f"{a}*{b}"
    check_product(lines)
    assert int(last) == a * b


@given(seed=seeds, level=levels)
@settings(max_examples=66, deadline=None)
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
@settings(max_examples=66, deadline=None)
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
@settings(max_examples=33, deadline=None)
def test_words_are_spelled_forward_then_backward(seed: int, level: float):
    _, problem, demonstration = drawn("spell_backward", seed, level)
    forward, backward = (line.split(": ")[1].split() for line in demonstration.reasoning.split("\n"))
    assert "".join(forward) in problem.question
    assert backward == forward[::-1]
    assert "".join(backward) == demonstration.answer


def floored(expression: str) -> int:
    """The value by Python's own parser, divisions rounded down."""
    return eval(re.sub(r"\b0+(?=\d)", "", expression).replace("/", "//"))


def check_division(lines: list[str]) -> None:
    """From `195 / 39`: each part of the quotient is multiplied out and taken away, if there is as much."""
    rest, by = (abs(int(n)) for n in lines[0].split(" / "))
    dividend, parts = rest, []
    if by == 1:
        assert int(lines[1]) == rest
        return
    at = 1
    while match := re.fullmatch(r"(\d+)-(\d+)\*(\d+)", lines[at]):
        assert (int(match[1]), int(match[2])) == (rest, by)
        product = by * int(match[3])
        check_digit_steps(lines[at + 1])
        assert backwards(lines[at + 1].rsplit("> ", 1)[1]) == product
        top, taken = lines[at + 2].split(":")[0].split("-")
        assert (backwards(top), backwards(taken)) == (rest, product)
        if not lines[at + 2].endswith("less"):
            rest -= product
            parts.append(match[3])
        at += 3
    end, quotient = lines[at].split("=")
    assert end == f"{f'{rest}<{by}' if rest else '0'} {' '.join(parts or ['0'])}"
    assert int(quotient) == sum(map(int, parts)) == dividend // by


@given(seed=seeds, level=levels)
@settings(max_examples=66, deadline=None)
def test_every_rewriting_of_an_expression_keeps_its_value(seed: int, level: float):
    _, problem, demonstration = drawn("basic_arithmetic", seed, level)
    value, expression = int(problem.answer), str(problem.metadata["expression"])
    assert expression in problem.question
    assert floored(expression) == value == int(demonstration.answer)
    for fold in demonstration.folds:
        assert floored(fold.state.split("\n")[0]) == value
    text = without_marks("".join(f"{f.thought}\n{f.state}\n" for f in demonstration.folds) + demonstration.reasoning)
    assert all(t.right == t.accepted for t in tries(text))
    lines = demonstration.text.split("\n")
    for i, line in enumerate(lines):
        if re.fullmatch(r"\d+\*\d+", line):
            check_product(lines[i : i + 3 + len(line.split("*")[1])])
        if re.fullmatch(r"-?\d+ / -?\d+", line):
            check_division([each for each in lines[i:] if each])
        if re.fullmatch(r"(-?\d+ [+-] )+-?\d+", line):
            signed = line.replace(" ", "").replace("--", "+").replace("+-", "-")
            terms = [int(t) for t in re.findall(r"[+-]?\d+", signed)]
            assert [int(t[1] + t[:1:-1]) for t in lines[i + 1].split()] == terms
    check_columns([line for line in lines if re.fullmatch(r"\d+(?:-| \w[+-])\d+: .*", line)])


def test_expressions_are_those_of_reasoning_gym():
    gym, family = GymTask("basic_arithmetic"), FAMILIES["basic_arithmetic"]
    for index in range(6_000_000, 6_000_020):
        with suppress(UndrawableItem):
            item = gym.problem(index)
            expression = item.question.removeprefix("Calculate ").removesuffix(".")
            problem = family.problem("Calculate {expression}.", expression)
            assert (problem.question, problem.answer) == (item.question, item.answer)
            assert gym.grade(item, family.demonstrate(problem, Random(index)).answer).score == 1.0
