"""The largest or smallest of numbers in several notations: all as digits of one width, and compared one by one.

`a 2.0183e+08 0201830000000`: ten digits before the point, three after it. The winner of each comparison goes on.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from random import Random

from ponder.tasks.families.working.columns import LABELS
from ponder.tasks.families.working.comparing import verdicts
from ponder.tasks.families.working.family import FromGym
from ponder.tasks.graders import number
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem

WHOLE, DECIMALS = 10, 3


class NumberFormat(FromGym):
    """Two to five numbers (the default config), smaller ones at low levels."""

    name = gym_name = "number_format"
    configs = ({"max_num_candidates": 3, "max_n": 1_000_000}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        printed: list[str] = details["formatted_candidates"]
        keys = {label: _digits(text) for label, text in zip(LABELS, printed, strict=False)}
        lines = [f"{label} {text} {keys[label]}" for text, label in zip(printed, keys, strict=False)]
        best, *others = keys
        for other in others:
            compared = verdicts(keys[other], keys[best])
            if compared.endswith(">" if details["size"] == "largest" else "<"):
                line, best = f"{other}{keys[other]} {best}{keys[best]}{compared}", other
            else:
                line = f"{other}{keys[other]} {best}{keys[best]}{compared}"
            lines.append(f"{line} so {best}")
        answer = f"{keys[best][:WHOLE].lstrip('0') or '0'}.{keys[best][WHOLE:]}"
        return Demonstration(reasoning="\n".join(lines), answer=answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 within a hundredth, as the dataset scores."""
        given, wanted = number(answer), number(problem.answer)
        if given is None or wanted is None:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why="the answer is not a number")
        return Grade(score=float(abs(given - wanted) < Fraction(1, 100)))


def _digits(text: str) -> str:
    """A number's digits in one width, further decimals left out."""
    value = Decimal(text.replace(",", "")).quantize(Decimal(1).scaleb(-DECIMALS), rounding=ROUND_DOWN)
    return f"{value:0{WHOLE + DECIMALS + 1}f}".replace(".", "")
