"""Products of two numbers of equal length, by the compact working of `products`: up to four digits to be shown how,
five digits to be found out by reward."""

from random import Random

from ponder.tasks.families.family import number_of_digits, size_at
from ponder.tasks.families.products import GYM, VARIED, Products
from ponder.tasks.protocol import Problem


class UpToFour(Products):
    """One to four digits."""

    name = "up_to_four_digits"
    digits = (1, 4)

    def sample(self, rng: Random, level: float) -> Problem:
        low, high = self.digits
        digits = size_at(level, low, high)
        a, b = number_of_digits(rng, digits), number_of_digits(rng, digits)
        question = self.word(rng, GYM, VARIED).format(a=a, b=b)
        return Problem(task=self.name, question=question, answer=str(a * b), metadata={"factors": [a, b]})


class Five(UpToFour):
    """Five digits: one more than was shown."""

    name = "five_digits"
    digits = (5, 5)
