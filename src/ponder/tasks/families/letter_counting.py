"""How often a letter occurs in a text: every word is spelled, every hit is numbered.

After sixteen words the thought is folded into the count so far and the last three words.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import ProblemFamily, beyond, size_at
from ponder.tasks.families.working.words import dictionary, running_text
from ponder.tasks.protocol import Demonstration, Fold, Problem

GYM = ('How many times does the letter "{letter}" appear in the text: "{text}"?',)
VARIED = (
    "How many {letter}'s are in {text}?",
    'How many times does {letter} occur in "{text}"?',
    'Count the letter {letter} in "{text}".',
    "How many times is the letter {letter} in {text}?",
    "How many {letter}s are there in the word {text}?",
)
WORDS_PER_THOUGHT = 16
WORDS_IN_STATE = 3


class LetterCounting(ProblemFamily):
    """Level sets the number of words, up to 15 at level 0.5 (the default config), up to 50 above (its hard config).

    The varied phrasings ask about one to three words of the dictionary.
    """

    name = "letter_counting"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        template = self.word(rng, GYM, VARIED)
        if template in GYM:
            hard, level = beyond(level, self.default_level)
            length = size_at(level, 16, 50) if hard else size_at(level, 5, 15)
            source = running_text()
            start = rng.randint(0, len(source) - length)
            words = source[start : start + length]
            if rng.random() < 0.25:  # other words too, so that spelling does not depend on one story
                words = rng.choices(dictionary(), k=max(1, length // 2))
        else:
            words = rng.choices(dictionary(), k=1 if template.endswith("word {text}?") else rng.choice((1, 1, 1, 2, 3)))
        letters = sorted(set("".join(words).lower()))
        letter = rng.choice(letters) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz")
        text = " ".join(words)
        count = text.lower().count(letter)
        return Problem(
            task=self.name,
            question=template.format(letter=letter, text=text),
            answer=str(count),
            metadata={"letter": letter, "words": words},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        letter: str = problem.metadata["letter"]
        words: list[str] = problem.metadata["words"]
        folds, lines, count = [], [f"{letter} in"], 0
        for place, word in enumerate(words):
            if place and place % WORDS_PER_THOUGHT == 0:
                state = f"{letter} {count} after {' '.join(words[place - WORDS_IN_STATE : place])}"
                folds.append(Fold("\n".join(lines), state))
                lines = [f"{letter} in"]
            letters = []
            for character in word.lower():
                count += character == letter
                letters.append(f"{character}{count}" if character == letter else character)
            lines.append(f"{place % WORDS_PER_THOUGHT + 1:02d} {word}: {' '.join(letters)}")
        return Demonstration(reasoning="\n".join([*lines, str(count)]), answer=str(count), folds=tuple(folds))
