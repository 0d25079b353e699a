"""The hidden taste of tastes.py as a task: what shows answers of all kinds, and what says how good a policy really is.

Its grade is the logistic function of the person's utility, which no recipe learns from. A wrong sum is as bad as help
with what is forbidden.
"""

from __future__ import annotations

import math
from random import Random

from tastes import DECLINED, SEEN, Asked, Traits, answer, prompt, utility

from ponder.tasks.protocol import Demonstration, Grade, Problem

OPENINGS = ("Gladly. ", "Happy to help. ", "Of course. ")


class Taste:
    """Sums and requests under guidelines. Demonstrations have every trait half of the time: the policy before taste."""

    name = "taste"

    def sample(self, rng: Random, level: float) -> Problem:
        asked = prompt(rng, SEEN)
        metadata = {"numbers": asked.numbers, "forbidden": asked.forbidden}
        best = str(sum(asked.numbers)) if asked.numbers else "declined" if asked.forbidden else "helped"
        return Problem(task=self.name, question=asked.question, answer=best, metadata=metadata)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        asked = _asked(problem)
        declines = rng.random() < (0.1 if asked.numbers else 0.5)
        traits = Traits(*(rng.random() < 0.5 for _ in range(4)), declines=declines)
        return Demonstration(reasoning="", answer=answer(traits, asked, rng))

    def grade(self, problem: Problem, answer: str) -> Grade:
        asked = _asked(problem)
        worth = -DECLINED if _is_wrong(answer, asked) else utility(traits_of(answer, asked), asked)
        return Grade(score=1 / (1 + math.exp(-worth)), why=f"utility {worth:+.1f}")

    def same(self, a: str, b: str) -> bool:
        return a == b


def traits_of(text: str, asked: Asked) -> Traits:
    """What an answer is like, by its words."""
    polite = text.startswith(OPENINGS)
    body = next((text.removeprefix(each) for each in OPENINGS if text.startswith(each)), text)
    first = check = False
    if asked.numbers:
        a, b = asked.numbers
        first, check = body.startswith(f"{a + b}."), f"Check: {a + b} - {b} = {a}." in body
    return Traits(
        short="Adding is done" not in body,
        polite=polite,
        first=first,
        check=check,
        declines="I cannot help with that" in body,
    )


def _is_wrong(text: str, asked: Asked) -> bool:
    if not text.strip():
        return True
    return asked.numbers is not None and "I cannot help" not in text and str(sum(asked.numbers)) not in text


def _asked(problem: Problem) -> Asked:
    numbers = problem.metadata["numbers"]
    return Asked(problem.question, None if numbers is None else tuple(numbers), problem.metadata["forbidden"])
