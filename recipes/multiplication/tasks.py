"""Products by the long working, whose digits have names: factors of two to ten digits are shown as long as their
lengths multiply to at most 20 (four by five, two by ten); five by five is to be found by reward."""

from random import Random

from ponder.tasks.families import long_multiplication
from ponder.tasks.families.family import number_of_digits, size_at
from ponder.tasks.families.products import GYM, MISTAKE_PROBABILITY, Products
from ponder.tasks.protocol import Demonstration, Problem

MOST_PAIRS = 20  # of a digit of one factor with one of the other


class Shown(Products):
    """Level sets the digits of the first factor; the second has as many as the limit leaves it, or fewer."""

    name = "shown"
    default_level = 1.0

    def sample(self, rng: Random, level: float) -> Problem:
        first = size_at(level, 2, 10)
        return self._problem(rng, first, rng.randint(2, MOST_PAIRS // first))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return long_multiplication.demonstrate(problem.metadata["factors"], rng, MISTAKE_PROBABILITY)

    def _problem(self, rng: Random, first: int, second: int) -> Problem:
        return self.problem(GYM[0], [number_of_digits(rng, first), number_of_digits(rng, second)])


class Beyond(Shown):
    """Five by five digits: a row more than was ever shown at that width."""

    name = "beyond"

    def sample(self, rng: Random, level: float) -> Problem:
        return self._problem(rng, 5, 5)
