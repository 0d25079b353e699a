"""Greatest common divisors by Euclid's algorithm; of more than two numbers pair by pair, each pair a thought."""

from __future__ import annotations

from functools import reduce
from math import gcd
from random import Random

from ponder.tasks.families.working.euclid import euclid, several
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.protocol import Demonstration, Fold, Problem

GYM = ("Find the Greatest Common Divisor (GCD) of these numbers: {numbers}. Give only the GCD as your final answer.",)
VARIED = (
    "What is the greatest common divisor of {numbers}?",
    "gcd({numbers})",
    "Find the GCD of {numbers}.",
    "What is the largest number that divides all of {numbers}?",
)


class Gcd(ProblemFamily):
    """Up to level 0.5 two numbers up to 1000 (reasoning-gym's default), the smaller one's range growing, so that small
    numbers come as often as large ones; above it three or four from 1000 to 10,000 (its hard config)."""

    name = "gcd"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        for _ in range(3):  # as reasoning-gym does: a common divisor is preferred, not forced
            if level > self.default_level:
                numbers = several(rng, level)
            else:
                ceiling = 1000 if level > 0.15 else 10 ** rng.randint(1, 3)
                numbers = [rng.randint(1, 1000), rng.randint(1, ceiling)]
                rng.shuffle(numbers)
            divisor = reduce(gcd, numbers)
            if divisor > 1:
                break
        question = self.word(rng, GYM, VARIED).format(numbers=", ".join(map(str, numbers)))
        return Problem(task=self.name, question=question, answer=str(divisor), metadata={"numbers": numbers})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        numbers: list[int] = problem.metadata["numbers"]
        divisor, folds = numbers[0], []
        for i, number in enumerate(numbers[1:], start=2):
            lines, divisor = euclid(divisor, number, rng)
            thought = "\n".join(lines)
            if divisor == 1:
                break
            left = " ".join(map(str, numbers[i:]))
            folds.append(Fold(thought, f"gcd {divisor} left {left}"))
        else:
            folds.pop()
        return Demonstration(reasoning=thought, answer=str(divisor), folds=tuple(folds))
