"""Words spelled backward: forward letter by letter, then the letters in reverse."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.words import dictionary, words_of_length
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = ("Spell this word backward (example: sun -> nus): {word}",)
VARIED = (
    "Spell {word} backward.",
    "Reverse the letters of the word {word}.",
    "What is {word} spelled backwards?",
    "Write {word} in reverse.",
)


class SpellBackward(ProblemFamily):
    """Words of three to ten letters (the default config). In half the draws level sets the length, else the
    dictionary's own mix does."""

    name = "spell_backward"

    def sample(self, rng: Random, level: float) -> Problem:
        evenly = rng.random() < 0.5
        word = rng.choice(words_of_length(size_at(level, 3, 10)) if evenly else dictionary())
        question = self.word(rng, GYM, VARIED).format(word=word)
        return Problem(task=self.name, question=question, answer=word[::-1], metadata={"word": word})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        word: str = problem.metadata["word"]
        reasoning = f"letters: {' '.join(word)}\nbackward: {' '.join(reversed(word))}"
        return Demonstration(reasoning=reasoning, answer=word[::-1], pieces=tuple(reversed(word)))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Letter for letter, in any case."""
        return exact(problem.answer.lower(), answer.strip().lower())

    def same(self, a: str, b: str) -> bool:
        return a.strip().lower() == b.strip().lower()
