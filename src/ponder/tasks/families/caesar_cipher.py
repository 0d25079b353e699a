"""Caesar's cipher read without its key: the beginning is turned back letter by letter until it is English.

Then the alphabet's look-up table is written, `W t X u …` (cipher letter, plain letter), and every word is spelled and
looked up in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from random import Random

from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY
from ponder.tasks.families.working.words import dictionary, running_text, story_sentences
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem, mistake

GYM = ("Decrypt this Caesar cipher text: {text}. Provide only the decrypted text as your final answer.",)
VARIED = (
    "What does the Caesar cipher text {text} say?",
    "Find the rotation and decrypt: {text}. Answer with the plain text in upper case.",
)
PROBE = 6
"""How many letters are turned back: enough to tell English from the rest."""


class CaesarCipher(ProblemFamily):
    """Sentences of a story, three to twenty words by level (the default config), under every rotation.

    Other words too, so that reading does not depend on one story.
    """

    name = "caesar_cipher"
    gym_wording_share = 0.85

    def sample(self, rng: Random, level: float) -> Problem:
        count = size_at(level, 3, 20)
        if rng.random() < 0.75:
            text = rng.choice(_sentences_near(count))
        elif count <= 8 and rng.random() < 0.4:
            text = " ".join(rng.choices(dictionary(), k=count)).upper()
        else:
            start = rng.randrange(len(running_text()) - 30)
            words = (word for word in running_text()[start:] if word.isascii() and word.isalpha())
            text = " ".join(next(words) for _ in range(min(count, 12))).upper()
        rotation = rng.randint(1, 25)
        cipher = "".join(_turned(letter, rotation) for letter in text)
        question = self.word(rng, GYM, VARIED).format(text=cipher)
        return Problem(task=self.name, question=question, answer=text, metadata={"cipher": cipher, "text": text})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        cipher: str = problem.metadata["cipher"]
        text: str = problem.metadata["text"]
        probe = [each for each in cipher if each.isalpha()][:PROBE]
        rotation = (ord(probe[0]) - ord(text[0])) % 26
        hasty = rng.randrange(1, rotation) if rotation > 1 and rng.random() < SLIP_PROBABILITY else 0
        lines = [_spaced(probe)]
        for back in range(1, rotation + 1):
            line = _spaced(_turned(each, -back) for each in probe).lower()
            lines.append(line + (f"{mistake(' yes')} no" if back == hasty else ""))
        lines[-1] += " yes"
        first = ord(probe[0]) - ord("A")
        alphabet = [chr(ord("A") + (first + place) % 26) for place in range(26)]
        plain = {each: _turned(each, -rotation).lower() for each in alphabet}
        lines.append(_spaced(each + " " + plain[each] for each in alphabet))
        for word in cipher.split():
            lines.append(f"{_spaced(word)}:{_spaced(each + ' ' + plain.get(each, each) for each in word)}")
        pieces = [
            f" {letter}" if text[at - 1 : at] == " " else letter for at, letter in enumerate(text) if letter != " "
        ]
        return Demonstration(reasoning="\n".join(lines), answer=text, pieces=tuple(pieces))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The plain text, letter for letter."""
        return exact(problem.answer, answer)

    def same(self, a: str, b: str) -> bool:
        return a.split() == b.split()


@cache
def _sentences_near(count: int) -> list[str]:
    """The story's sentences of three to twenty words with about that many words, in upper case."""
    sentences = [each.upper() for each in story_sentences() if 3 <= len(each.split()) <= 20]
    return [each for each in sentences if each.isascii() and abs(len(each.split()) - count) <= 1]


def _turned(letter: str, rotation: int) -> str:
    """A letter of the alphabet that many places on; anything else as it is."""
    if not ("A" <= letter <= "Z"):
        return letter
    return chr(ord("A") + (ord(letter) - ord("A") + rotation) % 26)


def _spaced(letters: Iterable[str]) -> str:
    """Each with a space before it."""
    return "".join(f" {each}" for each in letters)
