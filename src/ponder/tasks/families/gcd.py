"""Greatest common divisors by Euclid's algorithm, quotients guessed, checked and, when wrong, put right."""

from __future__ import annotations

from math import gcd
from random import Random

from ponder.tasks.families.columns import lowest_first
from ponder.tasks.families.family import Family
from ponder.tasks.protocol import Demonstration, Problem

GYM = ("Find the Greatest Common Divisor (GCD) of these numbers: {a}, {b}. Give only the GCD as your final answer.",)
VARIED = (
    "What is the greatest common divisor of {a} and {b}?",
    "gcd({a}, {b})",
    "Find the GCD of {a} and {b}.",
    "What is the largest number that divides both {a} and {b}?",
)
WRONG_GUESS_PROBABILITY = 0.06


class Gcd(Family):
    """Numbers up to 1000. Level sets the smaller number's range, so that small numbers come as often as large ones."""

    name = "gcd"

    def sample(self, rng: Random, level: float) -> Problem:
        ceiling = 1000 if level > 0.3 else 10 ** rng.randint(1, 3)
        for _ in range(3):  # as reasoning-gym does: a common divisor is preferred, not forced
            a, b = rng.randint(1, 1000), rng.randint(1, ceiling)
            if rng.random() < 0.5:
                a, b = b, a
            if gcd(a, b) > 1:
                break
        question = self.word(rng, GYM, VARIED).format(a=a, b=b)
        return Problem(task=self.name, question=question, answer=str(gcd(a, b)), metadata={"numbers": [a, b]})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        numbers: list[int] = problem.metadata["numbers"]
        a, b = max(numbers), min(numbers)
        lines = [f"{a} {b}"]
        while b:
            while a >= b:
                quotient = largest_part(a, b)
                guess = quotient if rng.random() >= WRONG_GUESS_PROBABILITY else wrong_guess(quotient, rng)
                lines.append(take_away(a, b, guess))
                if guess * b <= a:
                    a -= guess * b
            a, b = b, a
        return Demonstration(reasoning="\n".join([*lines, str(a)]), answer=str(a))


def largest_part(a: int, b: int) -> int:
    """The highest digit of a // b, with its zeros: 765 // 36 = 21 gives 20."""
    quotient = str(a // b)
    return int(quotient[0]) * 10 ** (len(quotient) - 1)


def wrong_guess(quotient: int, rng: Random) -> int:
    """A quotient one off in its digit: too small is mended by the next line, too big is noticed."""
    digit, unit = int(str(quotient)[0]), 10 ** (len(str(quotient)) - 1)
    return (digit + (1 if digit == 1 or (digit < 9 and rng.random() < 0.5) else -1)) * unit


def take_away(a: int, b: int, guess: int) -> str:
    """One line: a - b * guess, the subtraction lowest digit first; or that the guess was too big."""
    width = len(str(a))
    top, product = lowest_first(a), lowest_first(b * guess, width)
    line = f"{a}-{b}*{guess}: {top}-{product}"
    if b * guess > a:
        return f"{line} too big"
    rest = a - b * guess
    return f"{line}={lowest_first(rest, width)} {rest}"
