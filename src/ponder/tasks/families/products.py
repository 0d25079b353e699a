"""Products: two numbers of one to five digits by long multiplication, up to eight of eight digits by folded rows."""

from __future__ import annotations

from math import prod
from random import Random

from ponder.tasks.families.working import long_multiplication, partial_products
from ponder.tasks.families.working.columns import multiply, multiply_steps
from ponder.tasks.families.working.family import ProblemFamily, beyond, number_of_digits, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Problem, Try
from ponder.types import TaskError

GYM = ("Solve the following multiplication: {product}. Give only the result as your final answer.",)
VARIED = (
    "What is {product}?",
    "Multiply: {product}.",
    "Compute {product}.",
    "{product} =",
    "{product}",
    "Find the product {product}.",
)
VARIED_PAIRS = (
    "What is {a} times {b}?",
    "Multiply {a} by {b}.",
    "{a} x {b}",
    "Find the product of {a} and {b}.",
    "How much is {a} multiplied by {b}?",
)
COMPACT_DIGITS = 5
"""Two factors of at most this many digits are multiplied in one context."""
MISTAKE_PROBABILITY = 0.06
"""The share of folded contexts with a wrong step that their check finds."""


class Products(ProblemFamily):
    """Up to level 0.5 two factors, of one to five digits (the default config); above, two to eight factors of four to
    eight (its hard config)."""

    name = "products"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        if hard:
            num_terms = size_at(level, 2, 8)
            digits = rng.randint(4 if num_terms > 2 else COMPACT_DIGITS + 1, 8)
        else:
            num_terms, digits = 2, size_at(level, 1, COMPACT_DIGITS)
        template = self.word(rng, GYM, VARIED + VARIED_PAIRS if num_terms == 2 else VARIED)
        mixed = template not in GYM and rng.random() < 0.3
        factors = [number_of_digits(rng, digits)]
        factors += [number_of_digits(rng, rng.randint(1, digits) if mixed else digits) for _ in range(num_terms - 1)]
        return self.problem(template, factors)

    def problem(self, template: str, factors: list[int]) -> Problem:
        """The problem of two factors or more."""
        question = template.format(product=" * ".join(map(str, factors)), a=factors[0], b=factors[1])
        return Problem(task=self.name, question=question, answer=str(prod(factors)), metadata={"factors": factors})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        factors: list[int] = problem.metadata["factors"]
        if len(factors) > 2 or max(factors) >= 10**COMPACT_DIGITS:
            return long_multiplication.demonstrate(factors, rng, MISTAKE_PROBABILITY)
        a, b = factors
        lines, product = multiply(a, b, Slips(rng, SLIP_PROBABILITY, multiply_steps(a, b)))
        return Demonstration(reasoning="\n".join([*lines, str(product)]), answer=str(product))

    def demonstrate_council(self, problem: Problem, rng: Random, voices: int) -> Demonstration:
        """Each voice writes rows, and the first adds the columns as their digits appear."""
        factors: list[int] = problem.metadata["factors"]
        if len(factors) > 2 or max(factors) >= 10**partial_products.LONGEST:
            raise TaskError(
                f"voices share products of two numbers of at most {partial_products.LONGEST} digits (got "
                f"{' * '.join(map(str, factors))}): set max_level to {self.default_level}"
            )
        a, b = factors
        return partial_products.demonstrate_voices(a, b, voices)

    def tries(self, problem: Problem, reasoning: str) -> list[Try]:
        """The checks of folded rows (`long_multiplication.tries`); the short working has none."""
        return long_multiplication.tries(reasoning)
