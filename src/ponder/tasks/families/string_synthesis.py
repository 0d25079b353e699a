"""Blocks put together: every rule is applied as often as it can be at once, in the rules' order.

That ends like applying them one by one: no rule makes what an earlier rule uses. The blocks are called A B C (square),
D E F (curly) and G H I (round) in the working, so that each has a name of one letter.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.counts import count_at, halve, minus, plus, smaller
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    """There are nine different blocks [A] [B] [C] {{A}} {{B}} {{C}} (A) (B) (C)
1. One [A], one [B], and one [C] can be combined to form one {{A}}.
2. One [A] and one [B] can be combined to form one {{C}}.
3. One [B] and one [C] can be combined to form one {{B}}.
4. Two [C] can be combined to form one {{C}}.
5. One {{A}} and one {{C}} can be combined to form one (A) and one (B).
6. Two {{B}} can be combined to form one (C).

Given a certain number of initial blocks, your job is to cycle through the rules 1-6 above, synthesizing new blocks \
until no more rules can be applied, or until a state (counts of each block type) is repeated.
In the case a state is repeated the answer is the state before the repetition!

The output should be the count of each block type after the rules have been applied in the order they are listed above.
For example 1 0 3 0 2 0 0 0 1 means that you have 1 [A] 0 [B] 3 [C] 0 {{A}} 2 {{B}} 0 {{C}} 0 (A) 0 (B) 1 (C).

Now, you have {a} [A], {b} [B], and {c} [C] blocks. Provide the count of each block type after applying the above rules.
Note: Apply the rules at most 1000 times. If the rules cannot be applied anymore, or if you have reached the maximum \
number of iterations, stop and provide the current counts.
""",
)


class StringSynthesis(ProblemFamily):
    """Up to five of each block by level up to 0.5 (the default config), up to a hundred above (its hard config).
    reasoning-gym's long wording only."""

    name = "string_synthesis"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        blocks = [count_at(rng, level, self.default_level) for _ in range(3)]
        a, b, c = blocks
        answer = " ".join(map(str, outcome(a, b, c)))
        return Problem(
            task=self.name, question=GYM[0].format(a=a, b=b, c=c), answer=answer, metadata={"blocks": blocks}
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        working = _Working(problem.metadata["blocks"], Slips(rng, SLIP_PROBABILITY, 6))
        working.join(1, "ABC", "D")
        working.join(2, "AB", "F")
        working.join(3, "BC", "E")
        working.pair(4, "C", "F")
        working.join(5, "DF", "GH")
        working.pair(6, "E", "I")
        working.lines.append(working.listed())
        answer = " ".join(map(str, working.count.values()))
        return Demonstration(reasoning="\n".join(working.lines), answer=answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The counts in their order."""
        return exact(problem.answer, answer)

    def same(self, a: str, b: str) -> bool:
        return a.split() == b.split()


class _Working:
    """The counts by name, and the lines written so far."""

    def __init__(self, blocks: list[int], slips: Slips) -> None:
        self.count = dict.fromkeys("ABCDEFGHI", 0) | dict(zip("ABC", blocks, strict=True))
        self.slips = slips
        self.lines = [self.listed()]

    def listed(self) -> str:
        return " ".join(f"{name} {count}" for name, count in self.count.items())

    def join(self, rule: int, used: str, made: str) -> None:
        """One of each of `used` makes one of each of `made`, as often as the scarcest allows."""
        head = f"{rule} {' '.join(f'{name} {self.count[name]}' for name in used)}"
        times = min(self.count[name] for name in used)
        if times == 0:
            self.lines.append(f"{head} none")
            return
        self.lines.append(head)
        least = self.count[used[0]]
        for name in used[1:]:
            self.lines.append(smaller(least, self.count[name]))
            least = min(least, self.count[name])
        for name in used:
            self.lines.append(minus(name, self.count[name], times, self.slips))
            self.count[name] -= times
        for name in made:  # none of them was there before
            self.lines.append(f"{name} {times}")
            self.count[name] += times

    def pair(self, rule: int, used: str, made: str) -> None:
        """Two of `used` make one of `made`."""
        half = self.count[used] // 2
        self.lines.append(f"{rule} {used} {halve(self.count[used])}")
        self.count[used] %= 2
        self.lines += [f"{used} {self.count[used]}", plus(made, self.count[made], half, self.slips)]
        self.count[made] += half


def outcome(a: int, b: int, c: int) -> list[int]:
    """The nine counts at the end, rule by rule."""
    n = [a, b, c, 0, 0, 0, 0, 0, 0]
    rules = (
        ((1, 1, 1), {3: 1}),
        ((1, 1, 0), {5: 1}),
        ((0, 1, 1), {4: 1}),
        ((0, 0, 2), {5: 1}),
        ((0, 0, 0, 1, 0, 1), {6: 1, 7: 1}),
        ((0, 0, 0, 0, 2), {8: 1}),
    )
    while fits := [rule for rule in rules if all(have >= need for have, need in zip(n, rule[0], strict=False))]:
        needs, makes = fits[0]
        for place, need in enumerate(needs):
            n[place] -= need
        for place, made in makes.items():
            n[place] += made
    return n
