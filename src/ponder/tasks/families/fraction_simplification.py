"""Fractions in lowest terms: the greatest common divisor by Euclid's algorithm, then two divisions."""

from __future__ import annotations

import re
from math import gcd
from random import Random

from ponder.tasks.families.working.columns import divide
from ponder.tasks.families.working.euclid import euclid
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem

GYM = ("Simplify the fraction {fraction} to its lowest terms. Give only the simplified fraction as your final answer.",)
VARIED = (
    "Simplify {fraction}.",
    "Reduce {fraction} to lowest terms.",
    "What is {fraction} in its simplest form?",
    "Write {fraction} in lowest terms.",
)
STYLES = ("{}/{}", "${}/{}$", "$\\frac{{{}}}{{{}}}$", "$\\dfrac{{{}}}{{{}}}$")
FRACTION = re.compile(r"\$?\s*(?:\\d?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d+)\s*/\s*(\d+))\s*\$?", re.ASCII)


class FractionSimplification(ProblemFamily):
    """Up to level 0.5 the simple fraction's terms grow to 1000 and the factor to 100 (the default config); above it
    more and more draws have terms of at least 100 and a factor of at least 10 (its hard config)."""

    name = "fraction_simplification"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        size = min(1.0, level / self.default_level)
        most, factors = round(10 ** (1 + 2 * size)), round(10 ** (2 * size))
        hard = level > self.default_level and rng.random() < 2 * level - 1
        while True:
            a, b = sorted(rng.randint(1, most) for _ in range(2))
            a, b = a // gcd(a, b), b // gcd(a, b)
            if a >= 100 or not hard:
                break
        factor = rng.randint(10 if hard else 1, factors)
        fraction = rng.choice(STYLES).format(a * factor, b * factor)
        return Problem(
            task=self.name,
            question=self.word(rng, GYM, VARIED).format(fraction=fraction),
            answer=f"{a}/{b}",
            metadata={"numerator": a * factor, "denominator": b * factor},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        """Always answers in the plain style: reasoning-gym takes it for all."""
        above, below = int(problem.metadata["numerator"]), int(problem.metadata["denominator"])
        lines, divisor = euclid(above, below, rng)
        if divisor > 1:
            slips = Slips(rng, SLIP_PROBABILITY, 8)
            for number in (above, below):
                lines.append(f"{divide(number, divisor, slips)} > {number // divisor}")
        answer = f"{above // divisor}/{below // divisor}"
        return Demonstration(reasoning="\n".join([*lines, answer]), answer=answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The very fraction in lowest terms, plain or as LaTeX."""
        terms = parse_fraction(answer)
        if terms is None:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=f"{answer[:80]!r} is not a fraction")
        return Grade(score=float(terms == parse_fraction(problem.answer)))

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip() or (parse_fraction(a) is not None and parse_fraction(a) == parse_fraction(b))


def parse_fraction(text: str) -> tuple[int, int] | None:
    """Numerator and denominator as they stand."""
    match = FRACTION.fullmatch(text.strip())
    if match is None:
        return None
    return int(match[1] or match[3]), int(match[2] or match[4])
