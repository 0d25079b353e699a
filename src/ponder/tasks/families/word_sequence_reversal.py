"""A list of words in reverse: the words are numbered, then written from the last number down."""

from __future__ import annotations

import re
from random import Random

from ponder.tasks.families.working.family import ProblemFamily, beyond, size_at
from ponder.tasks.families.working.words import dictionary, running_text
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "Solve the following problem.\n\n"
    "Provide you answer as a comma-separated list of words with a space after the comma.\n\n"
    "Reverse this list of words: {words}\n",
)
VARIED = ("Reverse the order of these words: {words}", "Write this list backward, last word first: {words}")


class WordSequenceReversal(ProblemFamily):
    """Three to eight words up to level 0.5 (the default config), as many as fifty above (its hard config)."""

    name = "word_sequence_reversal"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        count = size_at(level, 9, 50) if hard else size_at(level, 3, 8)
        rare = count <= 8 and rng.random() < 0.2  # fifty rare words are too long for one context
        words = rng.choices(dictionary(), k=count) if rare else rng.sample(running_text(), count)
        question = self.word(rng, GYM, VARIED).format(words=", ".join(words))
        return Problem(task=self.name, question=question, answer=", ".join(words[::-1]), metadata={"words": words})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        words: list[str] = problem.metadata["words"]
        numbered = [f"{place:02d} {word}" for place, word in enumerate(words)]
        reasoning = f"{';'.join(numbered)}\n{';'.join(reversed(numbered))}"
        return Demonstration(reasoning=reasoning, answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The words in reverse, with a comma and a space between them."""
        right = _listed(answer) == _listed(problem.answer)
        return Grade(score=float(right), why="" if right else "not the words in reverse order")

    def same(self, a: str, b: str) -> bool:
        return _listed(a) == _listed(b)


def _listed(text: str) -> list[str]:
    return re.split(r",\s*", text.strip())
