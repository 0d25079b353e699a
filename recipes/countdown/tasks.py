"""Countdown as one search without gaps: every head in its order, in one context, and an end where heads are exhausted.

The family's own demonstrations leave out the heads that cannot reach the target, which is a sum to be done unseen, and
many others; a model that learns from them leaves out the right one as well. Here a head out of reach is named, too:

    83 45 23 4 to 244
    83 far
    83*45 far
    83*23 far
    83*4=332: 45 23
    332-45=287-23=264 no: 264-244=20 half 10
    ...
"""

import re
from random import Random

from ponder.tasks.families.countdown import Countdown, Telling, answer_of
from ponder.tasks.families.countdown_search import Search, solve
from ponder.tasks.protocol import Demonstration, Problem


class Searched(Countdown):
    name = "searched"

    def sample(self, rng: Random, level: float) -> Problem:
        while True:
            problem = super().sample(rng, level)
            search = Search(problem.metadata["numbers"], problem.metadata["target"])
            if not all(map(search.far, search.heads())):  # else there would be nothing to attempt: 1 in 300
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
            told.begin(head)
            if head != right:
                told.attempt(head, search.towards(head))
                continue
            if search.towards(head) != signs:
                told.attempt(head, search.towards(head))
            told.attempt(head, signs)
            return Demonstration(reasoning="\n".join(told.lines), answer=answer_of(search, head, signs))
        return told.given_up()
