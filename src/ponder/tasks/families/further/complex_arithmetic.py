"""Complex numbers: products of the parts, each by itself, then a sum for the real part and one for the imaginary part.

A quotient is made with the divisor's conjugate; a part of it is proposed, and checked by multiplying it out.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import multiply, signed_sum
from ponder.tasks.families.working.family import ScoredByGym
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Problem

AT_SIGHT = 10
"""Factors up to this are multiplied at once."""


class ComplexArithmetic(ScoredByGym):
    """Parts up to 10 (the default config), then up to 100 with all four operations alike (the hard one)."""

    name = gym_name = "complex_arithmetic"
    configs = (
        {},
        {
            "min_real": -100,
            "max_real": 100,
            "min_imag": -100,
            "max_imag": 100,
            "operations_weights": [0.25, 0.25, 0.25, 0.25],
        },
    )
    default_level = 0.49

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        (a, b), (c, d) = ((int(part) for part in details[key]) for key in ("num1", "num2"))
        slips = Slips(rng, SLIP_PROBABILITY, 12)
        lines = [f"{a} {b} {details['operation']} {c} {d}"]
        match details["operation"]:
            case "+":
                parts = [_sum(lines, [a, c], slips), _sum(lines, [b, d], slips)]
            case "-":
                parts = [_sum(lines, [a, -c], slips), _sum(lines, [b, -d], slips)]
            case "*":
                parts = _multiplied(lines, (a, b), (c, d), slips)
            case _:
                above = _multiplied(lines, (a, b), (c, -d), slips)
                square = _sum(lines, [_product(lines, c, c, slips), _product(lines, d, d, slips)], slips)
                parts = []
                for part in above:
                    lines.append(f"{part} by {square}: {part // square}")
                    parts.append(part // square)
                    assert _product(lines, square, part // square, slips) == part
        answer = _written(*parts)
        return Demonstration(reasoning="\n".join([*lines, answer]), answer=answer)


def _multiplied(lines: list[str], first: tuple[int, int], second: tuple[int, int], slips: Slips) -> list[int]:
    """The parts of a product: ac - bd and ad + bc."""
    (a, b), (c, d) = first, second
    real = _sum(lines, [_product(lines, a, c, slips), -_product(lines, b, d, slips)], slips)
    return [real, _sum(lines, [_product(lines, a, d, slips), _product(lines, b, c, slips)], slips)]


def _product(lines: list[str], a: int, b: int, slips: Slips) -> int:
    """a * b: at once where both are small, else digit by digit without signs."""
    if max(abs(a), abs(b)) > AT_SIGHT:
        lines += multiply(abs(a), abs(b), slips)[0]
    lines.append(f"{a}*{b}={a * b}")
    return a * b


def _sum(lines: list[str], terms: list[int], slips: Slips) -> int:
    steps, value = signed_sum(terms, slips)
    lines += [*steps, f"= {value}"]
    return value


def _written(real: int, imaginary: int) -> str:
    """As reasoning-gym writes a complex number of whole parts."""
    if imaginary == 0:
        return f"{real}.00"
    if real == 0:
        return f"{imaginary}.00i"
    return f"{real}.0 {'+' if imaginary > 0 else '-'} {abs(imaginary)}.0i"
