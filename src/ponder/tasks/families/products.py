"""Products of two numbers of one to five digits by long multiplication."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.columns import Slips, multiply, multiply_steps
from ponder.tasks.families.family import SLIP_PROBABILITY, Family, number_of_digits, size_at
from ponder.tasks.protocol import Demonstration, Problem

GYM = ("Solve the following multiplication: {a} * {b}. Give only the result as your final answer.",)
VARIED = (
    "What is {a} * {b}?",
    "What is {a} times {b}?",
    "Multiply {a} by {b}.",
    "Compute {a} * {b}.",
    "{a} * {b} =",
    "{a} x {b}",
    "Find the product of {a} and {b}.",
    "How much is {a} multiplied by {b}?",
)


class Products(Family):
    """Level sets the digits; both factors have as many, and now and then one is shorter."""

    name = "products"

    def sample(self, rng: Random, level: float) -> Problem:
        digits = size_at(level, 1, 5)
        a = number_of_digits(rng, digits)
        template = self.word(rng, GYM, VARIED)
        mixed = template not in GYM and rng.random() < 0.3
        b = number_of_digits(rng, rng.randint(1, digits) if mixed else digits)
        return Problem(
            task=self.name, question=template.format(a=a, b=b), answer=str(a * b), metadata={"factors": [a, b]}
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        a, b = problem.metadata["factors"]
        lines, product = multiply(a, b, Slips(rng, SLIP_PROBABILITY, multiply_steps(a, b)))
        return Demonstration(reasoning="\n".join([*lines, str(product)]), answer=str(product))
