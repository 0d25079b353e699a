"""Graders: exact text, numbers and mathematical expressions. Gold first, then the answer."""

from __future__ import annotations

import re
from fractions import Fraction

from ponder.sandbox.isolate import TIMEOUT_SECONDS, CallOutcome, CallResult, run_isolated
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.types import GraderError

MAX_DIGITS = 4000
MAX_WHY = 2000  # characters of what a grader says of an answer
NUMBER = re.compile(
    r"(?P<whole>[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?)(?:[eE](?P<exponent>[+-]?\d{1,4}))?(?:/(?P<below>\d+))?",
    re.ASCII,
)
EXPRESSION = re.compile(r"[\w\s+\-*/^().,!=]*", re.ASCII)


def normalised(text: str) -> str:
    """Without white space at the ends, and with single spaces inside."""
    return " ".join(text.split())


def number(text: str) -> Fraction | None:
    """The number that `text` is, exactly: 12, -0.5, 1,234, 2e3, 3/4, +01.00. None where it is none, or a giant."""
    text = text.strip().replace("−", "-").replace(" ", "")
    match = NUMBER.fullmatch(text)
    if len(text) > MAX_DIGITS or match is None or not re.search(r"\d", match["whole"]):
        return None
    value = Fraction(match["whole"].replace(",", "").rstrip("."))
    if match["exponent"]:
        value *= Fraction(10) ** int(match["exponent"])
    if match["below"]:
        if int(match["below"]) == 0:
            return None
        value /= int(match["below"])
    return value


def same_value(a: str, b: str) -> bool:
    """The same text but for white space, or the same number."""
    if normalised(a) == normalised(b):
        return True
    first = number(a)
    return first is not None and first == number(b)


def exact(gold: str, answer: str, *, ignore_case: bool = False) -> Grade:
    """1 for the same text but for white space, else 0."""
    got, wanted = normalised(answer), normalised(gold)
    if ignore_case:
        got, wanted = got.casefold(), wanted.casefold()
    return Grade(score=1.0) if got == wanted else Grade(score=0.0, why=f"{_short(got)} is not {_short(wanted)}")


def numeric(gold: str | float | Fraction, answer: str, *, tolerance: float = 0.0) -> Grade:
    """1 for the same number, compared exactly, or within `tolerance` relative to the gold one; else 0."""
    wanted = number(gold) if isinstance(gold, str) else Fraction(gold)
    if wanted is None:
        return Grade(score=0.0, status=GradeStatus.FAILED, why=f"the gold answer {_short(str(gold))} is not a number")
    got = number(answer)
    if got is None:
        return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=f"{_short(answer)} is not a number")
    if abs(got - wanted) <= Fraction(tolerance) * abs(wanted):
        return Grade(score=1.0)
    return Grade(score=0.0, why=f"{_short(answer)} is not {_short(str(gold))}")


def expression(gold: str, answer: str, *, timeout: float = TIMEOUT_SECONDS) -> Grade:
    """1 where the two are equal as mathematics (`2*(x+1)` and `2x + 2`), by sympy in a child process; else 0.

    Equations compare side by side. A giant like 9**9**9 costs one TIMEOUT.
    """
    if not answer.strip() or len(answer) > MAX_DIGITS or "__" in answer or not EXPRESSION.fullmatch(answer):
        return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=f"{_short(answer)} is not an expression")
    payload = {"answer": answer, "gold": gold}
    warm = ("ponder.sandbox.expressions:warm_expressions", None)
    call = run_isolated("ponder.sandbox.expressions:compare_expressions", payload, timeout=timeout, warm=warm)
    return as_grade(call)


def as_grade(result: CallResult) -> Grade:
    """The grade of a call that returned `{"score", "status"?, "why"?}`. One that did not return scores 0."""
    if result.outcome is CallOutcome.DONE:
        if not isinstance(result.value, dict) or "score" not in result.value:
            raise GraderError(f"a grading function must return {{'score': …}} (got {result.value!r})")
        score, why = float(result.value["score"]), in_utf8(str(result.value.get("why", "")))
        if not 0 <= score <= 1:
            why = f"the grader's score must be from 0 to 1 (got {score:g})"
            score = 1.0 if score > 1 else 0.0  # NaN scores 0
        return Grade(score=score, status=GradeStatus(result.value.get("status", "graded")), why=why)
    slow = result.outcome is CallOutcome.TIMEOUT
    return Grade(score=0.0, status=GradeStatus.TIMEOUT if slow else GradeStatus.FAILED, why=in_utf8(result.why))


def in_utf8(words: str, most: int | None = MAX_WHY) -> str:
    """`words` as UTF-8 can express them: half characters are spelled out. most: characters; what is longer is cut."""
    words = words.encode(errors="backslashreplace").decode()
    return words if most is None or len(words) <= most else words[:most] + "…"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
