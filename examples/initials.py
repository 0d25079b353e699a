"""A task of your own: put together the first letters of some words.

ponder tasks examples/initials.py:Initials                      # checked, and shown as a model sees it
ponder eval mini --suite examples/initials.py:Initials -n 20    # mini was never trained on it

docs/training.md, "Your own task", trains a model on such a file.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.protocol import Demonstration, Grade, Problem

WORDS = ("apple", "bread", "cloud", "dance", "eagle", "flame", "grape", "horse", "island", "jungle", "kettle", "lemon")


class Initials:
    """From two words at level 0 to eight at level 1."""

    name = "initials"

    def sample(self, rng: Random, level: float) -> Problem:
        words = [rng.choice(WORDS) for _ in range(2 + round(6 * level))]
        question = f"Which letters begin these words: {', '.join(words)}?"
        return Problem(task=self.name, question=question, answer="".join(word[0] for word in words))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        words = problem.question.partition(": ")[2].removesuffix("?").split(", ")
        steps = "\n".join(f"{word}: {word[0]}" for word in words)
        return Demonstration(reasoning=steps, answer=problem.answer, pieces=tuple(problem.answer))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer.strip().lower() == problem.answer))

    def same(self, a: str, b: str) -> bool:
        return a.strip().lower() == b.strip().lower()
