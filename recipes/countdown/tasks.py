"""Countdown, shown in two other ways than the family does.

`Searched` is one search without gaps: every head in its order, in one context, and an end where heads are exhausted.
The family's own demonstrations leave out the heads that cannot reach the target, which is a sum to be done unseen, and
many others; a model that learns from them leaves out the right one as well. Here a head out of reach is named, too:

    78 65 54 54 11 to 133
    78: 65 54 54 11
    78+65=143-54=89+54=143-11=132 no: odd
    78*65 far
    78*54 far
    ...

`Wandering` knows no order: whole attempts, blind ones and (behind `~`) some that come near the target, until one hits.
A model that imitates it is blind as often as it was shown; which kind pays is left to reward:

    83 45 23 4 to 244
    83*4=332-45=287+23=310 no
    (45-4=41)*23=943-83=860 no
    ~83*4=332-45=287-23=264 no
    ...
"""

import re
from random import Random

from ponder.tasks.families.countdown import Countdown, Telling, attempt_text, hits, parse_question
from ponder.tasks.families.working.countdown_search import HIGH, LOW, Chain, Search, join, solve
from ponder.tasks.protocol import Demonstration, Problem, Try


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


class Wandering(Countdown):
    name = "wandering"
    again = 0.85
    """How often one more attempt that misses comes first; `most` of them at the most."""
    most = 12
    blind = 0.8
    """The share of them that do not look at the target; the others are the nearest of `looked` such."""
    looked = 30

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        solution = solve(problem.metadata["chain"])
        assert solution is not None, "only solved problems are drawn"
        search, right, signs = solution
        lines = [search.line]
        while len(lines) <= self.most and rng.random() < self.again:
            blind = rng.random() < self.blind
            chains = [other_chain(search.numbers, rng) for _ in range(1 if blind else self.looked)]
            missed = [other for other in map(solve, chains) if other is not None and other[0].target != search.target]
            if missed:
                other, head, turned = min(missed, key=lambda other: abs(other[0].target - search.target))
                line = f"{'' if blind else '~'}{head.text}{other.added(head, turned)} no"
                if line not in lines:
                    lines.append(line)
        lines.append(f"~{right.text}{search.added(right, signs)} yes")
        return Demonstration(reasoning="\n".join(lines), answer=attempt_text(search, right, signs))

    def tries(self, problem: Problem, reasoning: str) -> list[Try]:
        numbers, target = parse_question(problem.question)
        found = []
        for line in reasoning.split("\n"):
            if match := re.fullmatch(r"~?(\S+) (yes|no)", line):
                expression = re.sub(r"=\d+", "", match[1])
                found.append(Try(right=hits(expression, numbers, target), accepted=match[2] == "yes"))
        return found


def other_chain(numbers: list[int], rng: Random) -> Chain:
    """The numbers joined in any order to what could be a target."""
    while True:
        first, *rest = rng.sample(numbers, len(numbers))
        value, chain = first, [("+", first)]
        for number in rest:
            sign = rng.choice("+-*/")
            if sign == "/" and value % number:
                sign = "-"
            value = join(sign, value, number)
            chain.append((sign, number))
        if LOW <= value <= HIGH:
            return chain
