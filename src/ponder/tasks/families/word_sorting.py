"""Words in ASCII order by insertion, compared letter by letter, three letters at a time."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from ponder.tasks.families.working.comparing import insertions, verdicts
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.words import dictionary, story_words
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "Your task is to sort words in ascending or descending order using ASCII/Unicode ordering.\n\n"
    "Your output should be a comma-separated list of words, e.g. word_1, word_2, word_3\n\n"
    "Now, sort these words in {direction} order (using ASCII/Unicode ordering) and return them as a comma-separated "
    "list: {words}\n",
)
VARIED = (
    "Sort these words in {direction} ASCII order: {words}",
    "Put these words in {direction} order, upper case before lower case: {words}",
)
CHUNK = 3
END = "."
"""Follows a word's last letter; it sorts before every letter."""


class WordSorting(ProblemFamily):
    """Level sets how many words, three to ten (the default config)."""

    name = "word_sorting"

    def sample(self, rng: Random, level: float) -> Problem:
        count = size_at(level, 3, 10)
        source = dictionary() if count <= 7 and rng.random() < 0.3 else _words()  # ten rare words: too long a context
        words = rng.sample(source, count)
        if rng.random() < 0.35:  # neighbours in the sorted vocabulary, so that later letters are compared too
            at = rng.randrange(len(_words()) - 3)
            words = list(dict.fromkeys([*rng.sample(_words()[at : at + 4], 2), *words]))[:count]
            rng.shuffle(words)
        direction = rng.choice(("ascending", "descending"))
        question = self.word(rng, GYM, VARIED).format(direction=direction, words=", ".join(words))
        answer = ", ".join(sorted(words, reverse=direction == "descending"))
        metadata = {"words": words, "direction": direction}
        return Problem(task=self.name, question=question, answer=answer, metadata=metadata)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        words: list[str] = problem.metadata["words"]
        labels = "0123456789"[: len(words)]
        item = dict(zip(labels, words, strict=True))
        chunks = {label: _chunks(word) for label, word in item.items()}

        def compare(a: str, b: str) -> str:
            text = ""
            for place, (x, y) in enumerate(zip(chunks[a], chunks[b], strict=False)):
                text += f"{_chunk(a, place, x)}{_chunk(b, place, y)}{verdicts(x, y)}"
                if x != y:
                    break
            return text

        spelled = {label: "".join(_chunk(label, place, x) for place, x in enumerate(chunks[label])) for label in labels}
        lines = [f"{label}: {item[label]},{spelled[label]}" for label in labels]
        steps, order = insertions(labels, compare)
        if problem.metadata["direction"] == "descending":
            order = order[::-1]
            steps.append(f"descending{''.join(order)}")
        steps.append(",".join(f"{label}: {item[label]}" for label in order))
        return Demonstration(reasoning="\n".join([*lines, *steps]), answer=", ".join(item[label] for label in order))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The words in order, whatever the white space around the commas."""
        right = _listed(answer) == _listed(problem.answer)
        return Grade(score=float(right), why="" if right else "not the words in order")

    def same(self, a: str, b: str) -> bool:
        return _listed(a) == _listed(b)


@cache
def _words() -> list[str]:
    """The story's different words of three to twelve letters, as reasoning-gym draws them."""
    return sorted({word for word in story_words() if 3 <= len(word) <= 12})


def _chunks(word: str) -> list[str]:
    """Three letters each; the last has at least one END."""
    padded = word + END * (CHUNK - len(word) % CHUNK)
    return [padded[at : at + CHUNK] for at in range(0, len(padded), CHUNK)]


def _chunk(label: str, place: int, letters: str) -> str:
    """`3 t h e` for the first three letters of word 3, then `3b y . .`."""
    return f"{label}{' bcde'[place].strip()} {' '.join(letters)}"


def _listed(text: str) -> list[str]:
    return re.split(r"\s*,\s*", text.strip())
