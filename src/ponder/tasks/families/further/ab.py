"""A::B programs, token by token: what has left to the left, a bar, and what waits for a partner on the right.

`A#` waits. `#A` cancels with the last waiting A and passes all others; without one it has left: `#A: B | A B`.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.protocol import Demonstration, Problem


class Ab(FromGym):
    """Five tokens, then ten (the default config), then twenty-five (the hard one)."""

    name = gym_name = "ab"
    configs = ({"length": 5}, {}, {"length": 25})
    default_level = 0.66

    def teaches(self, problem: Problem) -> bool:
        """Not where all tokens cancel: the answer would be empty."""
        return problem.answer != ""

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        lines, left, waiting = [], [], []
        for token in program(problem.question):
            letter = token.strip("#")
            if token.endswith("#"):
                waiting.append(letter)
            elif letter in waiting:
                del waiting[len(waiting) - 1 - waiting[::-1].index(letter)]
            else:
                left.append(letter)
            lines.append(f"{token}: {' '.join([*left, '|', *waiting])}")
        answer = " ".join([*(f"#{letter}" for letter in left), *(f"{letter}#" for letter in waiting)])
        return Demonstration(reasoning="\n".join(lines), answer=answer)


def program(question: str) -> list[str]:
    """The tokens of the program that a question asks for."""
    return question.split("following program:\n\n")[1].split("\n")[0].split()
