"""Products by the long working, whose digits have names: first factors of two to five digits are shown, second ones of
two or three; a first factor of six digits, one row more than was ever shown, is to be found by reward."""

from random import Random

from ponder.tasks.families import long_multiplication
from ponder.tasks.families.family import number_of_digits, size_at
from ponder.tasks.families.products import GYM, MISTAKE_PROBABILITY, Products
from ponder.tasks.protocol import Demonstration, Problem

MOST_SHOWN = 5  # digits of the first factor


class Shown(Products):
    """Level sets the digits of the first factor."""

    name = "shown"
    default_level = 1.0

    def sample(self, rng: Random, level: float) -> Problem:
        return self._problem(rng, size_at(level, 2, MOST_SHOWN))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return long_multiplication.demonstrate(problem.metadata["factors"], rng, MISTAKE_PROBABILITY)

    def _problem(self, rng: Random, digits: int) -> Problem:
        return self.problem(GYM[0], [number_of_digits(rng, digits), number_of_digits(rng, rng.choice((2, 3)))])


class Beyond(Shown):
    """One digit beyond what was shown."""

    name = "beyond"

    def sample(self, rng: Random, level: float) -> Problem:
        return self._problem(rng, MOST_SHOWN + 1)
