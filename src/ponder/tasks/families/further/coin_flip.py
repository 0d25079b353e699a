"""Probabilities of heads: the row of Pascal's triangle from memory, each entry after its number of heads.

For "at least" the entries of the shorter side are added column by column; the lower side is taken from all outcomes.
The answer is a fraction, not reduced.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from random import Random

from ponder.tasks.families.working.columns import add, difference, highest_first, lowest_first
from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.graders import number
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem

_TOLERANCE = Fraction(1, 1000)


class CoinFlip(FromGym):
    """Three to fifteen flips (the default config), the number of flips even at every level."""

    name = gym_name = "coin_flip"
    configs = ({"min_trials": 3, "max_trials": 8}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        flips, heads = int(details["num_trials"]), int(details["k_heads"])
        exact = details["problem_type"] == "exact"
        lines = [f"{flips} of {2**flips}: " + ", ".join(f"{k} {comb(flips, k)}" for k in range(flips + 1))]
        upper = range(heads, flips + 1)
        if exact:
            number_of_ways = comb(flips, heads)
            lines.append(f"{heads}: {number_of_ways}")
        elif len(upper) <= heads or not heads:
            number_of_ways = 2**flips if not heads else sum(comb(flips, k) for k in upper)
            lines += [f"all {2**flips}"] if not heads else _added([comb(flips, k) for k in upper], rng)
        else:
            below = [comb(flips, k) for k in range(heads)]
            number_of_ways = 2**flips - sum(below)
            lines += [f"less than {heads}", *_added(below, rng)]
            lines += difference(lowest_first(2**flips), lowest_first(sum(below)), Slips(rng, 0, 1))[0]
        answer = f"{number_of_ways}/{2**flips}"
        return Demonstration(reasoning="\n".join([*lines, str(number_of_ways)]), answer=answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 for a fraction or a decimal number within a thousandth of the probability."""
        details = self.details(problem)
        given = number(answer)
        if given is None:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why="the answer is not a number")
        right = Fraction(int(details["rational"]["numerator"]), int(details["rational"]["denominator"]))
        return Grade(score=float(abs(given - right) <= _TOLERANCE * right))

    def same(self, a: str, b: str) -> bool:
        return a == b or (number(a) is not None and number(a) == number(b))


def _added(entries: list[int], rng: Random) -> list[str]:
    """The sum of the entries: the sum so far and the next one, lowest digit first."""
    lines, digits = [], lowest_first(entries[0])
    slips = Slips(rng, SLIP_PROBABILITY, len(entries) - 1)
    for entry in entries[1:]:
        line, digits = add(digits, lowest_first(entry), slips)
        lines.append(line)
    return [*lines, highest_first(digits)]
