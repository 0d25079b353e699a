"""Exact text, exact numbers, equal expressions; hostile input costs one grade and nothing else."""

import time
from fractions import Fraction

import pytest

from ponder.sandbox.isolate import CallOutcome, CallResult
from ponder.tasks.graders import as_grade, exact, expression, number, numeric, same_value
from ponder.tasks.protocol import GradeStatus
from ponder.types import GraderError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        (" +012.50 ", Fraction(25, 2)),
        ("-0.5", Fraction(-1, 2)),
        ("−3", -3),
        ("1,234,567", 1234567),
        ("3/4", Fraction(3, 4)),
        ("2e3", 2000),
        ("1.5E-1", Fraction(3, 20)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
    ],
)
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "12a", "1,23", "1/0", "--1", ".", "1e99999", "9" * 5000, "nan", "inf", "0x10", "١٢"]
)
def test_no_numbers(text):
    assert number(text) is None


def test_exact():
    assert exact("forty two", "  forty\n two ").score == 1
    assert exact("Forty", "forty").score == 0
    assert exact("Forty", "forty", ignore_case=True).score == 1
    assert "is not" in exact("a", "b").why


def test_numeric():
    assert numeric("1000", "1,000.00").solved
    assert numeric(0.1, "0.1000000000000000055511151231257827021181583404541015625").solved
    assert not numeric("0.1", "0.10001").solved
    assert numeric("100", "101", tolerance=0.01).solved
    assert numeric("5", "five").status is GradeStatus.UNPARSEABLE
    assert numeric("five", "5").status is GradeStatus.FAILED


def test_same_value():
    assert same_value("a  b", "a b")
    assert same_value("1,000", "1000.0")
    assert not same_value("a", "b")
    assert not same_value("a", "1")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2*(x+1)", "2x + 2"),
        ("sin(x)**2 + cos(x)**2", "1"),
        ("x^2", "x*x"),
        ("x = 3", "3 = x"),
        ("1/3", "2/6"),
        ("sqrt(8)", "2*sqrt(2)"),
    ],
)
def test_equal_expressions(gold, answer):
    assert expression(gold, answer).solved


@pytest.mark.parametrize(("gold", "answer"), [("x", "y"), ("2", "3"), ("x = 3", "3"), ("x+1", "x-1")])
def test_different_expressions(gold, answer):
    grade = expression(gold, answer)
    assert grade.score == 0
    assert grade.status is GradeStatus.GRADED


@pytest.mark.parametrize(
    "answer",
    ["", "((", "1 +", "x = 1 = 2", "().__class__", "__import__('os').system('true')", "[1]", "lambda: 1", "x" * 9999],
)
def test_what_is_no_expression(answer):
    assert expression("1", answer).status is GradeStatus.UNPARSEABLE


@pytest.mark.parametrize("answer", ["9**9**9**9", "factorial(9**9)", "2^(2^(2^(2^(2^9))))"])
def test_a_giant_times_out_harmlessly(answer):
    began = time.monotonic()
    assert expression("1", answer, timeout=0.5).score == 0
    assert time.monotonic() - began < 10
    assert expression("1", "1").solved


def test_grades():
    assert as_grade(CallResult(CallOutcome.DONE, {"score": 0.5})).score == 0.5
    assert (
        as_grade(CallResult(CallOutcome.DONE, {"score": 0, "status": "unparseable"})).status is GradeStatus.UNPARSEABLE
    )
    assert as_grade(CallResult(CallOutcome.DONE, {"score": 1.5})).score == 1.0
    assert as_grade(CallResult(CallOutcome.DONE, {"score": float("nan")})).score == 0.0
    assert as_grade(CallResult(CallOutcome.TIMEOUT, why="slow")).status is GradeStatus.TIMEOUT
    assert as_grade(CallResult(CallOutcome.DIED, why="gone")).status is GradeStatus.FAILED
    with pytest.raises(GraderError):
        as_grade(CallResult(CallOutcome.DONE, 1.0))
