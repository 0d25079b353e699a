"""Products in one context, by the long working whose digits have labels. Shown are factors of up to six digits of which
one has at most three; two of four digits, one more than that, are to be found by reward.

A step that no demonstration asked of a number of that length is out of reach: a model that saw numbers of up to five
digits copies five digits of any. So each factor is seen at every length, and only the two together are new. Labels
begin at any place of their alphabet (index hints at random offsets, arXiv 2402.09371, section 4).
"""

import re
from random import Random

from ponder.tasks.families.products import GYM, VARIED, VARIED_PAIRS, Products
from ponder.tasks.families.working import long_multiplication
from ponder.tasks.families.working.family import number_of_digits, size_at
from ponder.tasks.families.working.long_multiplication import PLACES, TERMS
from ponder.tasks.protocol import Demonstration, Problem

LONGEST = 6
SHORTER = 3  # digits that the shorter of two factors has at most
LABELS = 20  # of each alphabet that are used


class Shown(Products):
    """Level sets the digits of the longer factor."""

    name = "shown"
    default_level = 1.0

    def sample(self, rng: Random, level: float) -> Problem:
        longer = size_at(level, 1, LONGEST)
        digits = [longer, rng.randint(1, min(SHORTER, longer))]
        rng.shuffle(digits)
        return self.drawn(rng, *digits)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        told = long_multiplication.demonstrate_accumulated(problem.metadata["factors"])
        return Demonstration(reasoning=shifted(told.reasoning, rng), answer=told.answer)

    def drawn(self, rng: Random, first: int, second: int) -> Problem:
        template = rng.choice(GYM + VARIED + VARIED_PAIRS)
        return self.problem(template, [number_of_digits(rng, first), number_of_digits(rng, second)])


class Beyond(Shown):
    """One digit beyond what was shown."""

    name = "beyond"

    def sample(self, rng: Random, level: float) -> Problem:
        return self.drawn(rng, SHORTER + 1, SHORTER + 1)


def shifted(thought: str, rng: Random) -> str:
    """The thought with labels from a random place of each alphabet on."""
    for alphabet in (PLACES[:LABELS], TERMS[:LABELS]):
        label = rf"[{alphabet}](?=[\d:])"
        used = max(alphabet.index(each) for each in re.findall(label, thought))
        by = rng.randrange(LABELS - used)
        thought = re.sub(label, lambda found, by=by, of=alphabet: of[of.index(found[0]) + by], thought)
    return thought
