"""Machines dismantled into parts: every rule is applied as often as it can be at once, in the rules' order.

That ends like applying them one by one: rules 1 to 3 only make parts, rule 4 fires at most once, and rule 5 comes last.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.counts import count_at, halve, minus, plus, smaller
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    """There is a dismantling engineer who has old machines A, B, and C.
He discovered that he can obtain a batch of new parts X, Y, Z through the following rules:
1. One unit of machine A can be dismanteled into two units of part X and one unit of part Y.
2. Two units of machine B can be dismanteled into one unit of part X.
3. Two units of machine C can be dismanteled into one unit of part Y.
4. One unit of machine B and one unit of machine C can be combined into one unit of machine A.
5. One unit of part X and one unit of part Y can be combined into one unit of part Z.

Given a certain number of initial machines, your job is to continuously cycle through the rules 1-5 above, exausting \
one rule at a time, until no more rules can be applied, or until a state (counts of each machine and part type) is \
repeated.
After you make use of a rule, you should update the counts of each machine and part type accordingly, and then restart \
the process from rule 1.

The output should be the count of each machine and part type after the rules have been exhaustively applied in the \
following order: A B C X Y Z.
For example 1 0 1 5 4 3 means that you have 1 machine A, 0 machine B, 1 machine C, 5 part X, 4 part Y, and 3 part Z.

Now, you have {a} machine A, {b} machine B, and {c} machine C. Provide the count of each machine and part type after \
applying the above rules.
Note: Apply the rules at most 1000 times. If the rules cannot be applied anymore, or if you have reached the maximum \
number of iterations, stop and provide the current counts of each machine and part type.
""",
)


class StringSplitting(ProblemFamily):
    """Up to five of each machine by level up to 0.5 (the default config), up to a hundred above (its hard config).
    reasoning-gym's long wording only."""

    name = "string_splitting"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        machines = [count_at(rng, level, self.default_level) for _ in range(3)]
        a, b, c = machines
        *_, state = states(a, b, c)
        answer = " ".join(map(str, state))
        return Problem(
            task=self.name, question=GYM[0].format(a=a, b=b, c=c), answer=answer, metadata={"machines": machines}
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        a, b, c = problem.metadata["machines"]
        slips = Slips(rng, SLIP_PROBABILITY, 6)
        b_half, c_half, both = b // 2, c // 2, b % 2 == 1 == c % 2
        x, y = 2 * a, a
        lines = [
            f"A {a} B {b} C {c}",
            f"1 {plus('X', a, a, slips)}",
            f"1 Y {a}",
            f"2 B {halve(b)}",
            f"2 {plus('X', x, b_half, slips)}",
            f"3 C {halve(c)}",
            f"3 {plus('Y', y, c_half, slips)}",
            f"4 B {b % 2} C {c % 2} {'one' if both else 'none'}",
        ]
        x, y = x + b_half, y + c_half
        if both:
            lines += [f"1 {plus('X', x, 2, slips)}", f"1 {plus('Y', y, 1, slips)}"]
            x, y = x + 2, y + 1
        z = min(x, y)
        lines += [f"5 {smaller(x, y)}", minus("X", x, z, slips), minus("Y", y, z, slips)]
        left = (0, 0) if both else (b % 2, c % 2)
        lines.append(f"A 0 B {left[0]} C {left[1]} X {x - z} Y {y - z} Z {z}")
        return Demonstration(reasoning="\n".join(lines), answer=f"0 {left[0]} {left[1]} {x - z} {y - z} {z}")

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The counts in their order."""
        return exact(problem.answer, answer)

    def same(self, a: str, b: str) -> bool:
        return a.split() == b.split()


def states(a: int, b: int, c: int) -> list[tuple[int, ...]]:
    """The counts A B C X Y Z, from the first to the last, rule by rule."""
    x = y = z = 0
    found: list[tuple[int, ...]] = [(a, b, c, x, y, z)]
    while True:
        if a >= 1:
            a, x, y = a - 1, x + 2, y + 1
        elif b >= 2:
            b, x = b - 2, x + 1
        elif c >= 2:
            c, y = c - 2, y + 1
        elif b >= 1 and c >= 1:
            a, b, c = a + 1, b - 1, c - 1
        elif x >= 1 and y >= 1:
            x, y, z = x - 1, y - 1, z + 1
        else:
            return found
        found.append((a, b, c, x, y, z))
