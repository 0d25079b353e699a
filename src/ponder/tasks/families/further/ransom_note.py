"""Whether a note can be cut from a magazine: the letters of both numbered, then each of the note's looked up.

`j2 no` says that the magazine has no second j.
"""

from __future__ import annotations

from random import Random
from string import ascii_lowercase

from ponder.tasks.families.working.family import ProblemFamily, beyond, size_at
from ponder.tasks.families.working.letters import numbered
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "Given two strings representing a ransom note and a magazine, return True if you can construct the ransom note "
    "using the letters in the magazine, and False otherwise.\n\n"
    "Each letter in the magazine string can only be used once in your ransom note.\n\n"
    "Ransom note: {note}\nMagazine: {magazine}\n",
)
VARIED = ("Can {note} be cut out of the letters {magazine}? Answer True or False.",)


class RansomNote(ProblemFamily):
    """One to ten letters from at most thirty at level 0.5 (the default config); above, up to 100 from 500 (the hard).

    Half of the notes can be cut out.
    """

    name = "ransom_note"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        note_length = size_at(level, 11, 100) if hard else rng.randint(1, size_at(level, 2, 10))
        most = size_at(level, 100, 500) if hard else 30
        letters = rng.choices(ascii_lowercase, k=note_length)
        missing = rng.choice(letters) if rng.random() < 0.5 else ""
        others = ascii_lowercase.replace(missing, "") if missing else ascii_lowercase
        magazine = letters.copy()
        if missing:
            magazine.remove(missing)
        magazine += rng.choices(others, k=rng.randint(max(note_length, 2), max(note_length + 1, most)) - len(magazine))
        rng.shuffle(letters)
        rng.shuffle(magazine)
        note, printed = "".join(letters), "".join(magazine)
        return Problem(
            task=self.name,
            question=self.word(rng, GYM, VARIED).format(note=note, magazine=printed),
            answer=str(not missing),
            metadata={"note": note, "magazine": printed},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        wanted, there = numbered(problem.metadata["note"]), numbered(problem.metadata["magazine"])
        looks = []
        for name in wanted:
            looks.append(f"{name} {'yes' if name in there else 'no'}")
            if name not in there:
                break
        lines = [f"note {' '.join(wanted)}", f"magazine {' '.join(there)}", " ".join(looks), problem.answer]
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return exact(problem.answer, answer)
