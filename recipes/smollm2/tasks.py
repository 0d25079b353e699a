"""Word problems with worked solutions, on templates that training sees and on templates that it never sees.

`Gsm` and `HeldOutGsm` are reasoning-gym's gsm_symbolic, whose hundred templates each bring a worked solution: seeds
alone repeat the same templates, so every fifth of those that work is held out. `Stories` and `HeldOutStories` are our
own, in plain words: what happens is a chain of one to four operations.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from ponder.tasks.graders import same_value
from ponder.tasks.protocol import Demonstration, Grade, Problem

EVERY = 5  # of the templates of gsm_symbolic, one in this many is held out
NAMES = (
    "Ann",
    "Ben",
    "Carla",
    "David",
    "Elena",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kofi",
    "Lena",
    "Mia",
    "Noor",
)
THINGS = ("apples", "books", "coins", "eggs", "flowers", "marbles", "pencils", "shells", "stamps", "tickets")


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}


class WordProblems:
    """What all of them share: the answer is a number."""

    name: str

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The last number of the answer counts, so that a whole sentence may be one."""
        found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", answer)
        said = found[-1].replace(",", "").rstrip(".") if found else ""
        return Grade(score=float(bool(said) and same_value(said, problem.answer.replace(",", ""))))

    def same(self, a: str, b: str) -> bool:
        return same_value(a, b)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return Demonstration(reasoning=problem.metadata["solution"], answer=problem.answer)


# gsm_symbolic --------------------------------------------------------------------------------------------------------


@cache
def gsm_templates() -> tuple[list[int], list[int]]:
    """The numbers of the templates to train on, and of those held out."""
    from reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic import tasks_ok

    return [n for at, n in enumerate(tasks_ok) if at % EVERY], tasks_ok[::EVERY]


def gsm_item(template: int, rng: Random) -> Mapping[str, Any]:
    from reasoning_gym.arithmetic.gsm_symbolic import generators_00_49, generators_50_99

    module = generators_00_49 if template < 50 else generators_50_99
    item: Mapping[str, Any] = vars(module)[f"generate_{template}"](rng, 1.0)
    return item


class Gsm(WordProblems):
    name = "gsm"
    held_out = False

    def sample(self, rng: Random, level: float) -> Problem:
        while True:
            template = rng.choice(gsm_templates()[self.held_out])
            item = gsm_item(template, rng)
            solution, mark, said = item["metadata"]["answer_cot"].rpartition("####")
            if re.search(r"\d\.\d{4}", item["question"] + solution):  # a binary fraction, written to its last digit
                continue
            if mark and same_value(said.strip().replace(",", ""), item["answer"].replace(",", "")):
                break
        question = " ".join(item["question"].split())
        facts = {"template": template, "solution": solution.strip()}
        return Problem(task=self.name, question=question, answer=item["answer"], metadata=facts)


class HeldOutGsm(Gsm):
    name = "gsm_held_out"
    held_out = True


# Our own -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Story:
    """text: with {A} and {B} for people, {things}, and {a} … {d} for numbers.
    steps: words, then an operation on numbers or on results: x is the first step's, y the second's, z the third's.
    most: of each number, as it is named.
    """

    text: str
    steps: tuple[tuple[str, str], ...]
    most: Mapping[str, int]


def story(text: str, *steps: str, **most: int) -> Story:
    """Each step as "words: operation"."""
    cut = tuple((words.strip(), operation.strip()) for words, _, operation in (step.rpartition(":") for step in steps))
    return Story(text, cut, most)


TOLD = (
    story(
        "{A} has {a} {things}. {B} gives {A} {b} more. How many {things} does {A} have now?",
        "With those from {B}: a + b",
        a=90,
        b=60,
    ),
    story(
        "{A} had {a} {things} and lost {b} of them. Then {A} found {c}. How many {things} are there now?",
        "After the loss: a - b",
        "After the find: x + c",
        a=90,
        b=40,
        c=30,
    ),
    story(
        "A box holds {a} {things}. {A} fills {b} boxes and has {c} {things} left over. How many {things} are there?",
        "In the boxes: a * b",
        "With those left over: x + c",
        a=24,
        b=12,
        c=20,
    ),
    story(
        "{A} reads {a} pages a day for {b} days, and {B} reads {c} pages in all. How many pages do they read together?",
        "{A} reads: a * b",
        "Together: x + c",
        a=40,
        b=14,
        c=90,
    ),
    story(
        "A ticket costs {a} dollars and a drink {b} dollars. {A} buys {c} tickets and {d} drinks. What does {A} pay?",
        "The tickets: a * c",
        "The drinks: b * d",
        "Together: x + y",
        a=15,
        b=6,
        c=9,
        d=9,
    ),
    story(
        "{A} earns {a} dollars an hour and works {b} hours. {A} then spends {c} dollars. How much is left?",
        "Earned: a * b",
        "Left: x - c",
        a=30,
        b=12,
        c=25,
    ),
    story(
        "{A} picks {a} {things} in the morning and {b} in the evening and fills bags of {c}. How many bags are full?",
        "Picked: a + b",
        "Full bags: x // c",
        a=70,
        b=70,
        c=9,
    ),
    story(
        "{A} shares {a} {things} equally among {b} friends. How many are left over?",
        "Each friend gets: a // b",
        "Given away: x * b",
        "Left over: a - y",
        a=95,
        b=9,
    ),
    story(
        "{A} is {a} years old. {B} is {b} years older than {A}. How old will {B} be in {c} years?",
        "{B} is: a + b",
        "In {c} years: x + c",
        a=40,
        b=30,
        c=20,
    ),
    story(
        "A shop has {a} {things}. It sells {b} on Monday and twice as many on Tuesday. How many are left?",
        "On Tuesday: b * 2",
        "Sold: b + x",
        "Left: a - y",
        a=200,
        b=30,
    ),
    story(
        "{A} saves {a} dollars each week. How many dollars are still missing from {b} dollars after {c} weeks?",
        "Saved: a * c",
        "Missing: b - x",
        a=20,
        b=400,
        c=12,
    ),
    story(
        "There are {a} rows of {b} chairs. {c} chairs are broken. How many people can sit?",
        "Chairs: a * b",
        "Without the broken ones: x - c",
        a=15,
        b=20,
        c=12,
    ),
    story(
        "{A} walks {a} minutes to school and {b} minutes back by a longer way. How many minutes is that in {c} days?",
        "A day: a + b",
        "All days: x * c",
        a=40,
        b=40,
        c=9,
    ),
    story(
        "{A} bakes {a} cakes with {b} eggs each and has {c} eggs left. How many eggs were there?",
        "In the cakes: a * b",
        "With those left: x + c",
        a=9,
        b=6,
        c=20,
    ),
    story(
        "{A} has {a} {things}, {B} has {b} times as many. How many do they have together?",
        "{B} has: a * b",
        "Together: a + x",
        a=30,
        b=8,
    ),
    story(
        "A farm has {a} hens and {b} cows. How many legs do the animals have?",
        "Hens: a * 2",
        "Cows: b * 4",
        "All: x + y",
        a=40,
        b=30,
    ),
)
HELD_OUT = (
    story("{A} buys {a} packs of {b} {things} and gives {c} to {B}. How many does {A} keep?",
          "Bought: a * b", "Kept: x - c", a=12, b=10, c=9),
    story("A bus starts with {a} people. At the first stop {b} get on and {c} get off. How many are on the bus?",
          "After some get on: a + b", "After some get off: x - c", a=40, b=20, c=15),
    story("{A} has {a} dollars. A toy costs {b} dollars. How many dollars are left after {A} buys {c} toys?",
          "The toys: b * c", "Left: a - x", a=200, b=12, c=9),
    story("{A} and {B} collect {things}. {A} has {a} and {B} has {b} fewer. How many do they have together?",
          "{B} has: a - b", "Together: a + x", a=90, b=30),
    story("A machine makes {a} {things} an hour. It runs {b} hours a day for {c} days. How many {things} does it make?",
          "A day: a * b", "All days: x * c", a=20, b=9, c=9),
    story("{A} plants {a} rows of {b} trees and {B} plants {c} rows of {d} trees. How many trees are there?",
          "{A}: a * b", "{B}: c * d", "Together: x + y", a=12, b=12, c=12, d=12),
    story("{a} {things} are packed into crates of {b}. How many crates are full?",
          "Full crates: a // b", a=150, b=12),
    story("A tank holds {a} litres. {b} litres are used each day for {c} days. How many litres are left?",
          "Used: b * c", "Left: a - x", a=500, b=20, c=12),
)  # fmt: skip


class Stories(WordProblems):
    name = "stories"
    told = TOLD

    def sample(self, rng: Random, level: float) -> Problem:
        """Numbers grow with the level."""
        while True:
            number_of = rng.randrange(len(self.told))
            chosen = self.told[number_of]
            grown = {
                name: rng.randint(2, max(3, round(most * (0.3 + 0.7 * level)))) for name, most in chosen.most.items()
            }
            first, second = rng.sample(NAMES, 2)
            words = {"A": first, "B": second, "things": rng.choice(THINGS), **grown}
            lines, values = [], dict(grown)
            for place, (said, operation) in zip("xyz", chosen.steps, strict=False):
                left, sign, right = operation.split()
                one, two = values.get(left), values[right] if right in values else int(right)
                assert one is not None
                values[place] = OPERATIONS[sign](one, two)
                shown = "/" if sign == "//" else sign
                rest = f" remainder {one % two}" if sign == "//" and one % two else ""
                lines.append(f"{said.format(**words)}: {one} {shown} {two} = {values[place]}{rest}")
            result = values["xyz"[len(chosen.steps) - 1]]
            if min(values.values()) >= 0 and result > 0:
                break
        return Problem(
            task=self.name,
            question=chosen.text.format(**words),
            answer=str(result),
            metadata={"template": number_of, "solution": "\n".join(lines)},
        )


class HeldOutStories(Stories):
    name = "stories_held_out"
    told = HELD_OUT
