"""Products by the compact working of `products`: factors of up to five digits, nine in both together, are shown; five
by five digits, one more than was ever shown, is to be found by reward."""

from random import Random

from ponder.tasks.families.family import number_of_digits, size_at
from ponder.tasks.families.products import GYM, VARIED, VARIED_PAIRS, Products
from ponder.tasks.protocol import Problem


class Shown(Products):
    """Two to nine digits in both factors together. Level sets how many."""

    name = "shown"

    def sample(self, rng: Random, level: float) -> Problem:
        digits = size_at(level, 2, 9)
        first = rng.randint(max(1, digits - 5), min(5, digits - 1))
        return self._problem(rng, first, digits - first)

    def _problem(self, rng: Random, first: int, second: int) -> Problem:
        factors = [number_of_digits(rng, first), number_of_digits(rng, second)]
        return self.problem(self.word(rng, GYM, (*VARIED, *VARIED_PAIRS)), factors)


class Beyond(Shown):
    """Five by five digits."""

    name = "beyond"

    def sample(self, rng: Random, level: float) -> Problem:
        return self._problem(rng, 5, 5)
