"""The same multiplication thought in folded contexts and in one long one: the two sides of a controlled experiment.

Two factors of two to fourteen digits, the level sets how many; the same rows, the same check, no mistakes. Folded, a
context is at most four rows and a state; accumulated, nothing is rewritten, and the last copy of a label counts.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.products import GYM, Products
from ponder.tasks.families.working import long_multiplication
from ponder.tasks.families.working.family import number_of_digits, size_at
from ponder.tasks.protocol import Demonstration, Problem


class Folded(Products):
    name = "folded_products"
    default_level = 1.0

    def sample(self, rng: Random, level: float) -> Problem:
        digits = size_at(level, 2, 14)
        return self.problem(GYM[0], [number_of_digits(rng, digits), number_of_digits(rng, digits)])

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return long_multiplication.demonstrate(problem.metadata["factors"], rng, mistakes=0.0)


class Accumulated(Folded):
    name = "accumulated_products"

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return long_multiplication.demonstrate_accumulated(problem.metadata["factors"])
