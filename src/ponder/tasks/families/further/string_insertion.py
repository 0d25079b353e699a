"""Letters put in after runs such as BCDE: every letter has its place in the run that it continues, one to four.

`C1 D2 E3 A4+C` is a run of four, after which its first letter is put in; the next letter begins a run.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import ProblemFamily, beyond, size_at
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "Given a string consisting of characters A, B, C, D, and E, your job is to insert a character according to the "
    "following pattern:\n"
    "1. If there is a substring ABCD in the string, insert the character A after the substring.\n"
    "2. If there is a substring BCDE in the string, insert the character B after the substring.\n"
    "3. If there is a substring CDEA in the string, insert the character C after the substring.\n"
    "4. If there is a substring DEAB in the string, insert the character D after the substring.\n"
    "5. If there is a substring EABC in the string, insert the character E after the substring.\n\n"
    "Once you have inserted a character, you have to skip over the substring and the inserted character and continue "
    "the search from the next character.\n\n"
    "Your output should be a string that has been modified according to the pattern.\n\n"
    "Given the following string, provide the answer after inserting the characters according to the pattern: "
    "{string}\n",
)
VARIED = GYM
AFTER = dict(zip("ABCDE", "BCDEA", strict=True))
RUN = 4


class StringInsertion(ProblemFamily):
    """Five to twenty letters at level 0.5 (the default config), up to a hundred above (the hard one).

    Most strings continue runs more often than chance would, so that letters are put in.
    """

    name = "string_insertion"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        length = size_at(level, 21, 100) if hard else size_at(level, 5, 20)
        continuing = rng.choice((0.2, 0.5, 0.7))
        string = rng.choice("ABCDE")
        while len(string) < length:
            string += AFTER[string[-1]] if rng.random() < continuing else rng.choice("ABCDE")
        question = self.word(rng, GYM, VARIED).format(string=string)
        answer = "".join(letter + added for letter, _, added in _places(string))
        return Problem(task=self.name, question=question, answer=answer, metadata={"string": string})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        steps = [
            f"{letter}{place}{'+' if added else ''}{added}"
            for letter, place, added in _places(problem.metadata["string"])
        ]
        return Demonstration(reasoning=" ".join(steps), answer=problem.answer, pieces=tuple(problem.answer))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return exact(problem.answer, answer)


def _places(string: str) -> list[tuple[str, int, str]]:
    """Every letter with its place in its run, and what is put in after it."""
    found: list[tuple[str, int, str]] = []
    before, place = "", 0
    for letter in string:
        place = place + 1 if place % RUN and AFTER[before] == letter else 1
        first = "ABCDE"["ABCDE".index(letter) - RUN + 1]
        found.append((letter, place, first if place == RUN else ""))
        before = letter
    return found
