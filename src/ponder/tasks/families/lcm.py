"""Least common multiples: each further number is divided by what it shares with the parts before, then all parts are
multiplied.

The product of the parts is the multiple of the numbers so far. A number m is divided by gcd(m, a), a the first part;
what is left of m shares nothing with what is left of a, so only the next parts may still share something with it. More
than two numbers are folded: each gcd and each product is a thought.
"""

from __future__ import annotations

from math import gcd, lcm
from random import Random

from ponder.tasks.families.working.columns import divide, multiply, multiply_steps
from ponder.tasks.families.working.euclid import euclid, several
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Fold, Problem

GYM = ("Find the Least Common Multiple (LCM) of these numbers: {numbers}",)
VARIED = (
    "What is the least common multiple of {numbers}?",
    "lcm({numbers})",
    "Find the LCM of {numbers}.",
    "What is the smallest number that is a multiple of all of {numbers}?",
)


class Lcm(ProblemFamily):
    """Up to level 0.5 two numbers up to 100 (reasoning-gym's default), above it three or four from 1000 to 10,000 (its
    hard config)."""

    name = "lcm"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        for _ in range(3):  # as reasoning-gym does: a common divisor is preferred, not forced
            if level > self.default_level:
                numbers = several(rng, level)
            else:
                numbers = [rng.randint(1, max(5, round(200 * level))) for _ in range(2)]
            if any(gcd(a, b) > 1 for i, a in enumerate(numbers) for b in numbers[:i]):
                break
        question = self.word(rng, GYM, VARIED).format(numbers=", ".join(map(str, numbers)))
        return Problem(task=self.name, question=question, answer=str(lcm(*numbers)), metadata={"numbers": numbers})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        numbers: list[int] = problem.metadata["numbers"]
        if len(numbers) == 2:
            numbers = sorted(numbers, reverse=True)  # as Euclid's first line has them: the second is divided
        thoughts: list[str] = []
        states: list[str] = []
        parts, left = numbers[:1], numbers[1:]
        while left:
            number = left.pop(0)
            for i, other in enumerate(parts):
                lines, number = divide_out(number, other, rng)
                thoughts.append("\n".join(lines))
                now = f"{number} by {parts[i + 1]}" if i + 1 < len(parts) else ""
                states.append(state_text(parts, now, left) if now else state_text([*parts, number], "", left))
            parts = [*parts, number]
        while len(parts) > 1:
            a, b, *rest = parts
            lines, product = multiply(a, b, Slips(rng, SLIP_PROBABILITY, multiply_steps(a, b)))
            thoughts.append("\n".join([*lines, str(product)]))
            parts = [product, *rest]
            states.append(state_text(parts, "", []))
        if len(numbers) == 2:
            return Demonstration(reasoning="\n".join(thoughts), answer=str(product))
        folds = tuple(Fold(thought, after) for thought, after in zip(thoughts[:-1], states[:-1], strict=True))
        return Demonstration(reasoning=thoughts[-1], answer=str(product), folds=folds)


def state_text(parts: list[int], now: str, left: list[int]) -> str:
    """What is known between two thoughts: the parts, the number in hand and the part to hold it against, and the
    numbers still untouched. With none left the parts are multiplied."""
    if not now and left:
        now = f"{left[0]} by {parts[0]}"
        left = left[1:]
    pieces = [" × ".join(map(str, parts)), now, " ".join(map(str, left))]
    return "; ".join(piece for piece in pieces if piece)


def divide_out(number: int, other: int, rng: Random) -> tuple[list[str], int]:
    """The working of number / gcd(number, other), and the quotient."""
    lines, divisor = euclid(number, other, rng)
    if divisor > 1:
        quotient = number // divisor
        lines.append(f"{divide(number, divisor, Slips(rng, SLIP_PROBABILITY, 4))} > {quotient}")
        number = quotient
    return lines, number
