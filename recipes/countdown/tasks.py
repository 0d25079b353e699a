"""Countdown as one search without gaps: every head in its order, in one context, and an end where heads are exhausted.

The family's own demonstrations leave out the heads that cannot reach the target, which is a sum to be done unseen, and
many others; a model that learns from them leaves out the right one as well. Here a head out of reach is named, too:

    78 65 54 54 11 to 133
    78: 65 54 54 11
    78+65=143-54=89+54=143-11=132 no: odd
    78*65 far
    78*54 far
    ...
"""

import re
from random import Random

from ponder.tasks.families.countdown import Countdown, Telling
from ponder.tasks.families.countdown_search import Search, solve
from ponder.tasks.protocol import Demonstration, Problem


class Searched(Countdown):
    name = "searched"

    def sample(self, rng: Random, level: float) -> Problem:
        while True:
            problem = super().sample(rng, level)
            search = Search(problem.metadata["numbers"], problem.metadata["target"])
            if not all(map(search.far, search.heads())):  # else there would be nothing to attempt
                return problem

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        solution = solve(problem.metadata["chain"])
        assert solution is not None, "only solved problems are drawn"
        search, right, signs = solution
        told = Telling(search, rng, letters=float("inf"))
        for head in search.heads():
            if search.far(head):
                told.lines.append(re.sub(r"=\d+$", "", head.text) + " far")
                continue
            if head == right:
                return told.solved(head, signs)
            told.begin(head)
            told.attempt(head, search.towards(head))
        return told.given_up()
