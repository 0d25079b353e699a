"""The families' problems in plain words: `plain:NAME` is one family's, in held-out templates, `plain:NAME@train` in
those of training, `plain:NAME@gym` the same problems in reasoning-gym's wording.

The problem, its working and its answer stay the family's own. Where a person would expect another form of the answer
(a list without brackets, yes or no), that is the answer, and the grade is what a person would accept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from math import gcd, isqrt, lcm
from random import Random

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.base_conversion import GYM as CONVERT
from ponder.tasks.families.base_conversion import base_name, in_base
from ponder.tasks.families.basic_arithmetic import exact_value, next_operation, unbracket, within_reach
from ponder.tasks.families.further import FURTHER_FAMILIES
from ponder.tasks.families.gcd import GYM as DIVISOR
from ponder.tasks.families.lcm import GYM as MULTIPLE
from ponder.tasks.families.leg_counting import GYM as LEGS
from ponder.tasks.families.leg_counting import LEGS_OF, plural
from ponder.tasks.families.letter_counting import GYM as COUNT
from ponder.tasks.families.number_filtering import GYM as FILTER
from ponder.tasks.families.number_sorting import GYM as ORDER
from ponder.tasks.families.plain.fields import FIELDS
from ponder.tasks.families.plain.further_fields import FURTHER_FIELDS
from ponder.tasks.families.plain.wording import Half, word_plainly
from ponder.tasks.families.prime_factorization import GYM as FACTOR
from ponder.tasks.families.prime_factorization import prime_factors
from ponder.tasks.families.word_sorting import GYM as SORT
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.words import dictionary
from ponder.tasks.protocol import Demonstration, Grade, Problem
from ponder.types import InvalidRequest

PREFIX = "plain:"
WORDED: dict[str, ProblemFamily] = FAMILIES | FURTHER_FAMILIES
"""The families that have plain wordings."""
SECTIONS = {"chain_sum": "sums", "decimal_chain_sum": "sums"}
NUMBERS = frozenset(
    (
        *("basic_arithmetic", "binary_alternation", "chain_sum", "coin_flip", "count_bits", "count_primes"),
        *("decimal_chain_sum", "gcd", "largest_island", "lcm", "leg_counting", "letter_counting", "number_format"),
        *("number_sequence", "power_function", "products", "self_reference", "simple_equations", "simple_geometry"),
    )
)
"""The families whose every answer is a number."""
LISTS = ("number_filtering", "number_sorting")
"""The families whose answers are lists in Python's notation, which plain answers write with commas alone."""
NONE_LEFT = "none"
USUAL_BASES = (2, 10, 16, 8)


class Plain:
    """One family's problems in plain words.

    half: whose templates are used. Held-out ones come with the default config's sizes: level 1 is the family's default.
    gym: the same problems in reasoning-gym's wording, with the family's own answer and grade, to compare with.
    """

    def __init__(self, family: str, half: Half = Half.TRAIN, *, gym: bool = False) -> None:
        if family not in WORDED:
            raise InvalidRequest(f"there is no family {family!r} to word plainly: there are {', '.join(WORDED)}")
        self.family: ProblemFamily = type(WORDED[family])()
        self.family.gym_wording_share = 1.0
        self.half, self.gym = half, gym

    @property
    def name(self) -> str:
        variant = "@gym" if self.gym else "@train" if self.half is Half.TRAIN else ""
        return f"{PREFIX}{self.family.name}{variant}"

    def sample(self, rng: Random, level: float) -> Problem:
        """The family's problem comes first out of `rng`: it is the same in every wording."""
        if self.half is Half.HELD_OUT:
            level *= self.family.default_level
        name = self.family.name
        problem = self.family.sample(rng, level)
        if name in ADAPTED:
            problem = ADAPTED[name](self.family, problem, rng, level)
        if self.gym:
            return replace(problem, task=self.name)
        kind = "number" if name in NUMBERS else "text"
        fields = (FIELDS[name] if name in FIELDS else FURTHER_FIELDS[name])(problem, rng)
        question = word_plainly(SECTIONS.get(name, name), fields, kind, rng, self.half)
        return Problem(
            task=self.name,
            question=question,
            answer=plain_answer(problem),
            metadata={**problem.metadata, "original": (problem.question, problem.answer)},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        shown = self.family.demonstrate(self._original(problem), rng)
        answer = plain_answer(self._original(problem, shown.answer))
        return shown if answer == shown.answer else replace(shown, answer=answer, pieces=())

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The family's grade of the answer without the marks that a person would not mind."""
        original = self._original(problem)
        if self.gym:
            return self.family.grade(original, answer)
        answer = answer.strip()
        if self.family.name in LISTS:
            return Grade(score=float(_values(answer) == _values(problem.answer)))
        if original.metadata.get("primality"):
            return Grade(score=float(_yes(answer) is not None and _yes(answer) == _yes(problem.answer)))
        if original.answer in ("True", "False", "Yes", "No"):
            return Grade(score=float(_yes(answer) is not None and _yes(answer) == _yes(original.answer)))
        if self.family.name in ("word_sorting", "word_sequence_reversal"):
            return Grade(score=float(_items(answer) == _items(original.answer)))
        first = self.family.grade(original, answer)
        return first if first.solved else self.family.grade(original, answer.strip("\"'“”.").strip())

    def same(self, a: str, b: str) -> bool:
        """Whether a person would take both for one answer."""
        if self.family.name in LISTS:
            return _values(a) is not None and _values(a) == _values(b)
        if _yes(a) is not None:
            return _yes(a) == _yes(b)
        return self.family.same(a, b) or _items(a) == _items(b)

    def _original(self, problem: Problem, answer: str | None = None) -> Problem:
        """The family's problem, with the question that its working was made for."""
        question, wanted = problem.metadata.get("original", (problem.question, problem.answer))
        return replace(problem, task=self.family.name, question=question, answer=wanted if answer is None else answer)


def plain_answer(problem: Problem) -> str:
    """The answer of a family's problem as a person would write it."""
    if problem.metadata.get("primality"):
        return "Yes" if "×" not in problem.answer else f"No, {problem.metadata['number']} = {problem.answer}"
    if problem.task in LISTS:
        return ", ".join(_items(problem.answer)) or NONE_LEFT
    return problem.answer


def _items(text: str) -> list[str]:
    """The items of a list, whatever brackets, quotes and commas are around them."""
    return [] if text.strip(" .").lower() == NONE_LEFT else re.findall(r"[^\s,;\[\]()\"'“”]+", text)


def _values(text: str) -> list[Decimal] | None:
    """The items as numbers; None where one is none."""
    try:
        return [Decimal(item) for item in _items(text)]
    except InvalidOperation:
        return None


def _yes(answer: str) -> bool | None:
    """What the first word says; None where it says neither."""
    first = re.match(r"[a-z]+", answer.lower())
    return None if first is None else {"yes": True, "true": True, "no": False, "false": False}.get(first[0])


# What people ask more often than the generators draw it ---------------------------------------------------------------


def usual_bases(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Binary, decimal, hexadecimal and octal in most questions, where the sizes of the digits allow it."""
    value = int(problem.metadata["value"])
    if value > 1000 or rng.random() < 0.3:
        return problem
    source, target = rng.sample(USUAL_BASES, 2)
    question = CONVERT[0].format(digits=in_base(value, source), source=base_name(source), target=base_name(target))
    metadata = {"value": value, "source": source, "target": target}
    return replace(problem, question=question, answer=in_base(value, target), metadata=metadata)


def even_division(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Divisions that leave nothing: a person would not expect another one to be rounded down. Divisions of two numbers
    are asked more often than drawn, and numbers below zero less often."""
    template = "Calculate {expression}."
    if rng.random() < 0.25:
        b = rng.randint(2, 99 if level > 0.2 else 12)
        expression = f"{b * rng.randint(2, 99 if level > 0.2 else 12)} / {b}"
        return family.problem(template, expression)  # type: ignore[attr-defined]
    positive = rng.random() < 0.6
    while True:
        expression = str(problem.metadata["expression"])
        if positive:
            expression = re.sub(r"-(?=\d)", "", expression).replace("-(", "(")
        if _even(expression) and within_reach(expression.split()):
            return family.problem(template, expression)  # type: ignore[attr-defined]
        problem = family.sample(rng, level)


def _even(expression: str) -> bool:
    """Whether every division comes out."""
    tokens = unbracket(expression.split())
    while len(tokens) > 1:
        begin, end = next_operation(tokens)
        part = tokens[begin:end]
        if part[1] == "/" and (int(part[2]) == 0 or int(part[0]) % int(part[2])):
            return False
        tokens = unbracket([*tokens[:begin], str(exact_value(part)), *tokens[end:]])
    return True


def few_words(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Mostly a word or a few, not a sentence."""
    if level > 0.7 or rng.random() < 0.3:
        return problem
    words = rng.choices(dictionary(), k=rng.choice((1, 1, 1, 1, 2, 3, 4)))
    spelled = "".join(words).lower()
    letter = rng.choice(spelled) if rng.random() < 0.85 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    text, count = " ".join(words), spelled.count(letter)
    metadata = {"letter": letter, "words": words}
    question = COUNT[0].format(letter=letter, text=text)
    return replace(problem, question=question, answer=str(count), metadata=metadata)


def small_letters(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Words without capitals, so that the order of the alphabet is the order of the characters."""
    words = list(dict.fromkeys(word.lower() for word in problem.metadata["words"]))
    direction = problem.metadata["direction"]
    question = SORT[0].format(direction=direction, words=", ".join(words))
    answer = ", ".join(sorted(words, reverse=direction == "descending"))
    return replace(problem, question=question, answer=answer, metadata={"words": words, "direction": direction})


def primality(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """A quarter of the questions ask whether a number is prime; about half of those numbers are."""
    if rng.random() < 0.75:
        return problem
    number = int(problem.metadata["number"])
    if rng.random() < 0.4:
        while any(number % divisor == 0 for divisor in range(2, isqrt(number) + 1)):
            number -= 1
    answer = " × ".join(map(str, prime_factors(number)))
    metadata = {"number": number, "primality": True}
    return replace(problem, question=FACTOR[0].format(number=number), answer=answer, metadata=metadata)


def round_bases(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Half of the bases have one decimal or none."""
    if rng.random() < 0.5:
        return problem
    for _ in range(20):
        base = round(float(problem.metadata["base"]) / rng.choice((1, 10, 100)), rng.choice((0, 0, 1))) or 2.0
        exponent = int(problem.metadata["exponent"])
        metadata = {"base": base, "exponent": exponent}
        question = problem.question.replace(f"{problem.metadata['base']}^", f"{base}^")
        found = replace(problem, question=question, answer=str(base**exponent), metadata=metadata)
        if family.grade(found, family.demonstrate(found, Random(0)).answer).solved:
            return found
    return problem


def few_animals(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """One to three kinds of animals in half of the questions."""
    if level > 0.6 or rng.random() < 0.5:
        return problem
    animals = dict(list(problem.metadata["animals"].items())[: rng.randint(1, 3)])
    listed = ", ".join(f"{count} {plural(animal, count)}" for animal, count in animals.items())
    total = sum(count * LEGS_OF[animal] for animal, count in animals.items())
    return replace(problem, question=LEGS[0].format(animals=listed), answer=str(total), metadata={"animals": animals})


def few_numbers(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Three or four small numbers now and then, or two with a divisor in common."""
    draw = rng.random()
    if draw < 0.6:
        return problem
    shared = rng.randint(2, 12)
    numbers = [shared * rng.randint(1, 12) for _ in range(2 if draw < 0.8 else rng.randint(3, 4))]
    whole = family.name == "gcd"
    question = (DIVISOR if whole else MULTIPLE)[0].format(numbers=", ".join(map(str, numbers)))
    answer = str(gcd(*numbers) if whole else lcm(*numbers))
    return replace(problem, question=question, answer=answer, metadata={"numbers": numbers})


def whole_numbers_in_order(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Whole numbers in half of the questions, most of them above zero."""
    if rng.random() < 0.5:
        return problem
    numbers = _whole(problem.metadata["numbers"], rng)
    direction = problem.metadata["direction"]
    answer = str(sorted(numbers, key=float, reverse=direction == "descending"))
    question = ORDER[0].format(direction=direction, numbers=", ".join(numbers))
    return replace(problem, question=question, answer=answer, metadata={"numbers": numbers, "direction": direction})


def whole_numbers_and_bound(family: ProblemFamily, problem: Problem, rng: Random, level: float) -> Problem:
    """Whole numbers in half of the questions, most of them above zero."""
    if rng.random() < 0.5:
        return problem
    numbers = _whole(problem.metadata["numbers"], rng)
    bound = str(rng.randint(min(map(int, numbers)), max(map(int, numbers))))
    operation, relation = problem.metadata["operation"], problem.metadata["relation"]
    hit = [int(n) > int(bound) if relation == "larger" else int(n) < int(bound) for n in numbers]
    kept = [n for n, hits in zip(numbers, hit, strict=True) if hits == (operation == "keep")]
    question = FILTER[0].format(operation=operation.capitalize(), relation=relation, bound=bound, numbers=numbers)
    metadata = {"numbers": numbers, "bound": bound, "operation": operation, "relation": relation}
    return replace(problem, question=question, answer=str(kept), metadata=metadata)


def _whole(numbers: Sequence[str], rng: Random) -> list[str]:
    low = 0 if rng.random() < 0.8 else -100
    return [str(rng.randint(low, 100)) for _ in numbers]


ADAPTED: dict[str, Callable[[ProblemFamily, Problem, Random, float], Problem]] = {
    "base_conversion": usual_bases,
    "basic_arithmetic": even_division,
    "gcd": few_numbers,
    "lcm": few_numbers,
    "leg_counting": few_animals,
    "letter_counting": few_words,
    "number_filtering": whole_numbers_and_bound,
    "number_sorting": whole_numbers_in_order,
    "power_function": round_bases,
    "prime_factorization": primality,
    "word_sorting": small_letters,
}
