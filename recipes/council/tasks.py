"""Products of two numbers of four digits, whose working one voice does or several share."""

from random import Random

from ponder.tasks.families.products import Products
from ponder.tasks.families.working.family import number_of_digits
from ponder.tasks.families.working.partial_products import demonstrate_voices
from ponder.tasks.protocol import Demonstration, Problem


class Pair(Products):
    """Voices write rows, and the first adds the columns as their digits appear. The level changes nothing."""

    name = "pair"
    digits = (4, 4)

    def sample(self, rng: Random, level: float) -> Problem:
        return self.problem("{product}", [number_of_digits(rng, digits) for digits in self.digits])


class Apart(Pair):
    """No voice needs another one: they write rows, and the columns are added after all have left."""

    name = "apart"

    def demonstrate_council(self, problem: Problem, rng: Random, voices: int) -> Demonstration:
        a, b = problem.metadata["factors"]
        return demonstrate_voices(a, b, voices, apart=True)


class SmallPair(Pair):
    """Two digits by three."""

    name = "small_pair"
    digits = (2, 3)


class SmallApart(Apart):
    """Two digits by three."""

    name = "small_apart"
    digits = (2, 3)
