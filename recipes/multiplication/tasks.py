"""Products by the compact working of `products`: a first factor of up to five digits and a second of up to four are
shown; a second of five digits is one row more than was ever shown, to be found by reward."""

from random import Random

from ponder.tasks.families.family import number_of_digits, size_at
from ponder.tasks.families.products import GYM, VARIED, VARIED_PAIRS, Products
from ponder.tasks.protocol import Problem


class Shown(Products):
    """Up to five by four digits. Level sets the digits of the first factor."""

    name = "shown"

    def sample(self, rng: Random, level: float) -> Problem:
        return self._problem(rng, size_at(level, 1, 5), rng.randint(1, 4))

    def _problem(self, rng: Random, first: int, second: int) -> Problem:
        factors = [number_of_digits(rng, first), number_of_digits(rng, second)]
        return self.problem(self.word(rng, GYM, (*VARIED, *VARIED_PAIRS)), factors)


class Beyond(Shown):
    """Five by five digits."""

    name = "beyond"

    def sample(self, rng: Random, level: float) -> Problem:
        return self._problem(rng, 5, 5)
