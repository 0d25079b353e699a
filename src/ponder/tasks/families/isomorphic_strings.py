"""Whether two strings are isomorphic: the letters' map is built forward, then backward, recalling every earlier pair.

The first string's letters are numbered 00, 01, …, the second's 10, 11, … and written in upper case, so that a look-up
has its own key. A pair `02a F12 G F G no` reads: letter 02 is a, which went to F before; letter 12 is G; F and G
are not the same. `new` stands where a letter was not met before.
"""

from __future__ import annotations

import string
from random import Random

from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "Two strings are isomorphic if the characters in one string can be replaced to get the second string.\n\n"
    "All occurrences of a character must be replaced with another character while preserving the order of characters."
    "\n\nNo two characters may map to the same character, but a character may map to itself.\n\n"
    "Return True if the following two strings are isomorphic, or False otherwise:\n{s} {t}\n",
)
VARIED = ("Are the strings {s} and {t} isomorphic? Answer True or False.", "{s} {t}: isomorphic, True or False?")


class IsomorphicStrings(ProblemFamily):
    """Level sets the length, up to ten (the default config). Half the pairs are isomorphic.

    Where they are not, most often one letter goes to two; the other way round is drawn now and then.
    """

    name = "isomorphic_strings"

    def sample(self, rng: Random, level: float) -> Problem:
        length = size_at(level, 2, 10)
        # Fewer letters than reasoning-gym's 26 in half the draws: more repetitions, so more to recall.
        letters = rng.sample(string.ascii_lowercase, 26 if rng.random() < 0.5 else rng.randint(2, 8))
        isomorphic = rng.random() < 0.5
        s = rng.choices(letters, k=length - 1)
        image = dict(zip(string.ascii_lowercase, rng.sample(string.ascii_lowercase, 26), strict=True))
        t = [image[each] for each in s]
        if not isomorphic:
            at, again = rng.randint(0, length - 1), rng.choice(s)
            other = rng.choice([each for each in string.ascii_lowercase if each != image[again]])
            s.insert(at, again)
            t.insert(at, other)
            if rng.random() < 0.2:
                s, t = t, s
        question = self.word(rng, GYM, VARIED).format(s="".join(s), t="".join(t))
        return Problem(
            task=self.name, question=question, answer=str(isomorphic), metadata={"words": ["".join(s), "".join(t)]}
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        s, t = problem.metadata["words"]
        first, second = list(s), list(t.upper())
        lines = [_numbered(0, first), _numbered(1, second)]
        forward, fits = _pairs(0, first, second)
        lines.append(forward)
        if fits:
            backward, fits = _pairs(1, second, first)
            lines.append(backward)
        return Demonstration(reasoning="\n".join(lines), answer=str(fits))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """True or False, in these letters."""
        return exact(problem.answer, answer)

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip()


def _numbered(string_number: int, letters: list[str]) -> str:
    return "".join(f"{string_number}{place} {letter}" for place, letter in enumerate(letters))


def _pairs(string_number: int, keys: list[str], values: list[str]) -> tuple[str, bool]:
    """Every key with the value it went to before and the value it goes to now, up to the first contradiction."""
    met: dict[str, str] = {}
    pairs: list[str] = []
    for place, (key, value) in enumerate(zip(keys, values, strict=True)):
        before = met.get(key, "new")
        met.setdefault(key, value)
        pair = f"{string_number}{place}{key} {before}{1 - string_number}{place} {value}"
        if before != "new":
            pair += f" {before} {value}"
            if before != value:
                return ",".join([*pairs, f"{pair} no"]), False
        pairs.append(pair)
    return f"{','.join(pairs)} yes", True
