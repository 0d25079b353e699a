"""Palindromes from given letters: the letters numbered, the partners looked up (`o1 o2`), then one half and its mirror.

The letter whose partner is missing stands in the middle.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.letters import numbered
from ponder.tasks.protocol import Demonstration, Grade, Problem


class PalindromeGeneration(FromGym):
    """Three to ten letters (the default config) below a level of a half; above, up to a hundred (the hard one)."""

    name = gym_name = "palindrome_generation"
    configs = ({}, {"min_length": 11, "max_length": 50}, {"min_length": 50, "max_length": 100})
    default_level = 0.33

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        names = numbered(self.details(problem)["letters"])
        half, middle, partners = "", "", []
        for name in names:
            letter, count = name[0], int(name[1:])
            if count % 2 == 0:
                continue
            partner = f"{letter}{count + 1}"
            partners.append(f"{name} {partner if partner in names else 'none'}")
            if partner in names:
                half += letter
            else:
                middle = letter
        lines = [" ".join(names), ", ".join(partners), f"half {' '.join(half)}", f"back {' '.join(half[::-1])}"]
        lines.append(f"middle {middle or 'none'}")
        answer = half + middle + half[::-1]
        return Demonstration(reasoning="\n".join(lines), answer=answer, pieces=tuple(answer))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 for any palindrome of just these letters."""
        given = answer.strip().lower()
        return Grade(score=float(given == given[::-1] and sorted(given) == sorted(problem.answer)))
