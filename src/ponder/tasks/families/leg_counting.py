"""How many legs a list of animals has: count times legs, added onto a running sum, digit by digit.

A line is the running sum (lowest digit first) after a letter, then what the question says there: the animal done last,
its comma, and the next count and animal. So the next item is found by copying on from the last one. Ten and fourteen
legs are twice five and twice seven. After LINES lines the thought folds into the running sum and the last animal.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import highest_first, lowest_first, times_digit_onto
from ponder.tasks.families.working.family import ProblemFamily, beyond, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Fold, Problem

GYM = (
    "Your task is to count how many legs there are in total when given a list of animals.\n\n"
    "Now, how many legs are there in total if you have {animals}?\n",
)
VARIED = (
    "How many legs are there in total: {animals}?",
    "Count the legs of {animals}.",
    "How many legs do I see when I see {animals}?",
)
LEGS = {
    0: "snake, sea slug, jellyfish, flatworm, leech",
    2: "chicken, bird, human, duck",
    4: "dog, cat, cow, horse, lion, elephant, giraffe, tiger, deer, sheep",
    5: "starfish",
    6: "insect, ant, butterfly, beetle, bee, wasp, grasshopper, cricket, cockroach, praying mantis, firefly",
    8: "spider, scorpion",
    10: "crab, lobster, shrimp",
    14: "woodlouse",
}
LEGS_OF = {animal: legs for legs, animals in LEGS.items() for animal in animals.split(", ")}
LINES = 5


class LegCounting(ProblemFamily):
    """Levels up to 0.5: 3 to 10 animals, up to 15 of each (the default config). Above: 10 to 30, mostly 64 to 256 of
    each (its hard config)."""

    name = "leg_counting"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        kinds, low, high = size_at(level, 3, 10), 1, 15
        if hard:
            kinds = size_at(level, 10, 30)
            low, high = rng.choice(((64, 256), (64, 256), (1, 256), (1, 15)))
        animals = {animal: rng.randint(low, high) for animal in rng.sample(list(LEGS_OF), kinds)}
        listed = ", ".join(f"{count} {plural(animal, count)}" for animal, count in animals.items())
        total = sum(count * LEGS_OF[animal] for animal, count in animals.items())
        question = self.word(rng, GYM, VARIED).format(animals=listed)
        return Problem(task=self.name, question=question, answer=str(total), metadata={"animals": animals})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        animals: dict[str, int] = problem.metadata["animals"]
        num_steps = sum(4 if LEGS_OF[animal] else 0 for animal in animals)
        slips = Slips(rng, SLIP_PROBABILITY, num_steps)
        total, last = "0", ""
        folds: list[Fold] = []
        lines: list[str] = []
        for animal, count in animals.items():
            if len(lines) == LINES:
                folds.append(Fold("\n".join(lines), f"{total}{last}"))
                lines = []
            head = f"{'abcdef'[len(lines)]} {total}{last}, {count} {plural(animal, count)} {LEGS_OF[animal]}"
            steps, total = add_legs(count, LEGS_OF[animal], total, slips)
            lines.append(head + steps)
            last = f" {plural(animal, count)}"
        if len(lines) == LINES:
            folds.append(Fold("\n".join(lines), f"{total}{last}"))
            lines = []
        end = problem.question.rstrip()[-1]
        answer = highest_first(total)
        lines.append(f"{'abcdef'[len(lines)]} {total}{last}{end}\n{answer}")
        return Demonstration(reasoning="\n".join(lines), answer=answer, folds=tuple(folds))


def plural(animal: str, count: int) -> str:
    """As the dataset writes it: an s, whatever the animal."""
    return animal if count == 1 else f"{animal}s"


def add_legs(count: int, legs: int, total: str, slips: Slips) -> tuple[str, str]:
    """The steps of count * legs + total, and the new total, lowest digit first."""
    parts = [] if legs == 0 else [legs] if legs < 10 else [legs // 2] * 2
    text = ""
    for number, part in enumerate(parts):
        width = max(len(total), len(str(count)))
        digits = lowest_first(count, width)
        if legs >= 10:
            text += f"; {total} {part}" if number else f" {part}"
        steps, total = times_digit_onto(digits, str(part), total.ljust(width, "0"), slips)
        total = lowest_first(int(highest_first(total)))
        text += f" {digits}: {steps}"
    return text, total
