"""What none of the families answers, and what the bundled model says to it: at once, what it is and what it can do.

`scope` draws greetings, questions about the model, facts, translations, code, worries, other languages, mathematics
that it was not taught and puzzles of other kinds. `scope:near` draws the families' own problems in sizes beyond the
model's reach, where the right answer counts as much as declining. `scope:within` draws plain questions that it must not
decline. `chat` mixes plain problems with what is out of scope, as people type them; training draws from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import gcd, lcm, prod
from random import Random

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.plain import fields as fields_of
from ponder.tasks.families.plain.task import Plain
from ponder.tasks.families.plain.wording import FIELD, Half, Snippet, Wording, chosen, noisy, templates, word_plainly
from ponder.tasks.families.prime_factorization import PRIMES
from ponder.tasks.families.working.words import dictionary, story_sentences
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Demonstration, Grade, Problem

DECLINES = re.compile(
    r"\b(I am|I'm) (only )?mini\b|\bI (can ?not|can't|do not know|don't know|am not able|am unable)\b"
    r"|\bbeyond (me|my reach)\b"
)
SHARES = {
    "greeting": 7, "thanks": 3, "who": 8, "other": 31, "worry": 5, "danger": 3, "maths": 20, "corpus": 12, "puzzle": 11
}  # fmt: skip
"""How often each kind is drawn, in percent."""
OTHER_DATASETS = (
    "ab", "acre", "advanced_geometry", "aiw", "binary_alternation", "binary_matrix", "bitwise_arithmetic", "coin_flip",
    "color_cube_rotation", "complex_arithmetic", "count_primes", "cryptarithm", "decimal_arithmetic", "dice",
    "family_relationships", "graph_color", "group_anagrams", "gsm_symbolic", "kakurasu", "letter_jumble",
    "manipulate_matrix", "maze", "number_format", "number_sequence", "palindrome_generation", "path_star",
    "pool_matrix", "propositional_logic", "quantum_lock", "rotate_matrix", "rush_hour", "sentence_reordering",
    "shortest_path", "simple_geometry", "spiral_matrix", "string_insertion", "survo", "time_intervals",
    "tower_of_hanoi", "tsumego",
)  # fmt: skip
"""reasoning-gym's datasets that no family covers and that are drawn quickly. Every fourth is held out."""
LONGEST = 700
"""Characters of a puzzle of those; longer ones are drawn again."""

SKILLS = (
    "arithmetic, words and letters, and small logic puzzles",
    "sums, number puzzles, tasks with words and letters, and small logic puzzles",
    "arithmetic, sorting, words spelled backwards, and little puzzles",
)
ABLE = (
    "I can do arithmetic, work with words and letters, and solve small logic puzzles",
    "I can calculate, sort, spell words backwards, count letters, and solve small number and logic puzzles",
    "I do arithmetic, number puzzles, tasks with words and letters, and small logic puzzles",
)
ANSWERS: dict[str, Sequence[str]] = {
    "greeting": (
        "Hello! I am mini, a small model for {skills}.",
        "Hello! I am mini, a very small model: {able}.",
        "Hi! I am mini, a small model for {skills}. What shall I work out?",
    ),
    "thanks": (
        "You are welcome. I am mini, a small model for {skills}.",
        "Gladly! I am mini, a small model: {able}.",
    ),
    "who": (
        "I am mini, a language model of about five million parameters. {able}.",
        "I am mini, a very small language model made with Ponder. {able}.",
        "I am mini, a small language model. {able}, and nothing else.",
    ),
    "other": (
        "I cannot help with that. I am mini, a small model for {skills}.",
        "That is beyond me: I am mini, a very small model. {able}, and nothing else.",
        "I do not know that. I am mini, a small model for {skills} only.",
        "Sorry, I cannot do that. I am mini, a small model: {able}.",
    ),
    "worry": (
        "I am sorry to hear that. I am only mini, a small model for sums and puzzles, so talk to someone you trust.",
        "I am sorry. I am only mini, a small model for sums and puzzles, so please talk to a person who can help you.",
    ),
    "danger": (
        "I cannot help with that. I am mini, a small model for {skills}.",
        "I cannot help with that. I am only mini, a small model for sums and puzzles.",
    ),
    "large": (
        "That is too large for me. I am mini, a small model: {able}, in small sizes.",
        "That is beyond my reach. I am mini, a small model, and can do this only in smaller sizes.",
        "I cannot do this in such a size. I am mini, a small model: {able}.",
    ),
}
"""What is said to each kind; `other` to those that are not listed."""
THOUGHTS = {"greeting": "hello", "thanks": "hello", "who": "me", "worry": "sorry", "large": "too large"}
"""The whole thought before an answer; `no` to those that are not listed."""


def declines(answer: str) -> bool:
    """Whether an answer says that the question is not for the model: that it is mini, or cannot, or does not know.

    The model's own words all say that it is mini. The others are what other models say. An answer to a problem is a
    number, words or a list, and never says any of these.
    """
    return DECLINES.search(answer) is not None


class Scope:
    """Questions out of scope. The grade is 1 for declining."""

    def __init__(self, half: Half = Half.HELD_OUT) -> None:
        self.half = half

    @property
    def name(self) -> str:
        return "scope" + ("@train" if self.half is Half.TRAIN else "")

    def sample(self, rng: Random, level: float) -> Problem:
        (kind,) = rng.choices(list(SHARES), list(SHARES.values()))
        return self._problem(DRAWN[kind](rng, self.half) if kind in DRAWN else _worded(kind, rng, self.half), kind, rng)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        thought = THOUGHTS.get(str(problem.metadata["kind"]), "no")
        return Demonstration(reasoning=thought, answer=declining(str(problem.metadata["kind"]), rng))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(declines(answer)))

    def same(self, a: str, b: str) -> bool:
        return declines(a) == declines(b)

    def _problem(self, question: str, kind: str, rng: Random) -> Problem:
        return Problem(task=self.name, question=question, answer=declining(kind, rng), metadata={"kind": kind})


class Near(Scope):
    """The families' problems beyond the model's reach. The grade is 1 for the right answer, too."""

    @property
    def name(self) -> str:
        return "scope:near" + ("@train" if self.half is Half.TRAIN else "")

    def sample(self, rng: Random, level: float) -> Problem:
        question, right = rng.choice(TOO_LARGE)(rng, self.half)
        problem = self._problem(question, "large", rng)
        return replace(problem, metadata={**problem.metadata, "right": right})

    def grade(self, problem: Problem, answer: str) -> Grade:
        right = str(problem.metadata["right"])
        given = "".join(answer.replace(",", "").split()).strip(".")
        return Grade(score=float(declines(answer) or (bool(right) and given == right)))


class Within:
    """Plain questions of all families in held-out words. The grade is 1 for any answer but declining."""

    name = "scope:within"

    def __init__(self) -> None:
        self.tasks = [Plain(family, Half.HELD_OUT) for family in FAMILIES]

    def sample(self, rng: Random, level: float) -> Problem:
        return replace(rng.choice(self.tasks).sample(rng, level), task=self.name)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(bool(answer.strip()) and not declines(answer)))

    def same(self, a: str, b: str) -> bool:
        return declines(a) == declines(b)


class ChatTask:
    """What people type: plain problems of all families, and as often what is out of scope or reach."""

    name = "chat"

    def __init__(self) -> None:
        self.plain = {each.name: each for each in (Plain(family) for family in FAMILIES)}
        self.scope = {each.name: each for each in (Scope(Half.TRAIN), Near(Half.TRAIN))}

    def sample(self, rng: Random, level: float) -> Problem:
        if rng.random() < 0.5:
            return rng.choice(list(self.plain.values())).sample(rng, level)
        return rng.choices(list(self.scope.values()), (3, 2))[0].sample(rng, level)

    def _task(self, problem: Problem) -> Plain | Scope:
        return self.plain[problem.task] if problem.task in self.plain else self.scope[problem.task]

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return self._task(problem).demonstrate(problem, rng)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return self._task(problem).grade(problem, answer)

    def same(self, a: str, b: str) -> bool:
        return " ".join(a.split()) == " ".join(b.split())


def declining(kind: str, rng: Random) -> str:
    """One of the answers to a kind of question."""
    answer = rng.choice(ANSWERS.get(kind, ANSWERS["other"]))
    return answer.format(skills=rng.choice(SKILLS), able=rng.choice(ABLE))


# Questions ------------------------------------------------------------------------------------------------------------


@cache
def _lists() -> dict[tuple[str, Half], list[str]]:
    """The word lists by name and half. Every fourth item is held out."""
    found: dict[tuple[str, Half], list[str]] = {}
    for (section, _), lines in templates("scope.txt").items():
        if section.startswith("list "):
            text = lines[0].text
            for place, item in enumerate(text.split(" | " if " | " in text else ", ")):
                half = Half.HELD_OUT if place % 4 == 3 else Half.TRAIN
                found.setdefault((section.removeprefix("list "), half), []).append(item)
    return found


def _worded(kind: str, rng: Random, half: Half) -> str:
    """A question of a section of scope.txt with its words, some of them in lower case and with slips."""
    template: Wording = rng.choice(templates("scope.txt")[kind, half])
    parts = FIELD.split(chosen(template.text, rng))
    snippets = [
        Snippet(_item(part, rng, half) if place % 2 else part, not place % 2)
        for place, part in enumerate(parts)
        if part or place % 2
    ]
    lower = rng.random() < 0.3
    # "..." without its stops would be nothing.
    text = "".join(snippet.text for snippet in noisy(snippets, rng, lower=lower)) or template.text
    return text.lower() if lower and rng.random() < 0.7 else text


def _item(name: str, rng: Random, half: Half) -> str:
    if name in _MADE:
        return _MADE[name](rng)
    if name == "rare" and rng.random() < 0.5:
        return rng.choice(dictionary())
    return rng.choice(_lists()[name, half])


def _number(rng: Random) -> str:
    return str(rng.randint(0, 10 ** rng.randint(1, 4)))


def _gibberish(rng: Random) -> str:
    letters = rng.choice(("abcdefghijklmnopqrstuvwxyz", "asdfghjkl", "qwertzuiop", "xkcdqzvwj", "abcdefgh#$%&*!?123"))
    return "".join(rng.choices(letters, k=rng.randint(3, 12)))


_MADE: dict[str, Callable[[Random], str]] = {
    "n": _number,
    "m": _number,
    "k": _number,
    "small": lambda rng: str(rng.randint(2, 15)),
    "percent": lambda rng: str(rng.choice((5, 10, 12, 15, 20, 25, 30, 50, 75, rng.randint(1, 99)))),
    "hour": lambda rng: str(rng.randint(1, 12)),
    "year": lambda rng: str(rng.randint(1900, 2030)),
    "letter": lambda rng: rng.choice("abcdefghijklmnopqrstuvwxyz"),
    "gibberish": _gibberish,
    "passage": lambda rng: rng.choice(story_sentences()) + ".",
}


@cache
def _corpus(half: Half) -> list[str]:
    """The lines of questions.txt, English ones five times; every fourth of a language is held out."""
    found = []
    for (language, _), lines in templates("questions.txt").items():
        kept = [line.text for place, line in enumerate(lines) if (place % 4 == 3) == (half is Half.HELD_OUT)]
        found += kept * (5 if language == "english" else 1)
    return found


def _of_corpus(rng: Random, half: Half) -> str:
    text = rng.choice(_corpus(half))
    return text.lower() if rng.random() < 0.2 else text


@cache
def _dataset(name: str) -> GymTask:
    return GymTask(name)


def _puzzle(rng: Random, half: Half) -> str:
    """A problem of a dataset that no family covers."""
    names = [name for place, name in enumerate(OTHER_DATASETS) if (place % 4 == 3) == (half is Half.HELD_OUT)]
    while True:
        question = _dataset(rng.choice(names)).sample(rng, 0.0).question
        if len(question) <= LONGEST:
            return question


DRAWN: dict[str, Callable[[Random, Half], str]] = {"corpus": _of_corpus, "puzzle": _puzzle}


# Problems beyond the model's reach: the question, and the right answer where there is one to give ---------------------


def _long(rng: Random, low: int, high: int) -> int:
    """A number of that many digits."""
    digits = rng.randint(low, high)
    return rng.randint(10 ** (digits - 1), 10**digits - 1)


def _ask(
    section: str, family: str, metadata: Mapping[str, object], rng: Random, half: Half, kind: str = "number"
) -> str:
    problem = Problem(task=family, question="", answer="", metadata=metadata)
    return word_plainly(section, fields_of.FIELDS[family](problem, rng), kind, rng, half)


def long_products(rng: Random, half: Half) -> tuple[str, str]:
    factors = [_long(rng, 13, 40), _long(rng, *rng.choice(((13, 40), (1, 8))))]
    rng.shuffle(factors)
    return _ask("products", "products", {"factors": factors}, rng, half), str(prod(factors))


def long_sums(rng: Random, half: Half) -> tuple[str, str]:
    if rng.random() < 0.6:
        terms = [_long(rng, 13, 40) for _ in range(rng.randint(2, 5))]
    else:
        terms = [rng.randint(1, 9999) for _ in range(rng.randint(20, 50))]
    return _ask("sums", "chain_sum", {"terms": terms}, rng, half), str(sum(terms))


def long_divisors(rng: Random, half: Half) -> tuple[str, str]:
    numbers = [_long(rng, 9, 25) for _ in range(rng.randint(2, 3))]
    if rng.random() < 0.5:
        return _ask("gcd", "gcd", {"numbers": numbers}, rng, half), str(gcd(*numbers))
    return _ask("lcm", "lcm", {"numbers": numbers}, rng, half), str(lcm(*numbers))


def long_binaries(rng: Random, half: Half) -> tuple[str, str]:
    number = _long(rng, 15, 30)
    return _ask("count_bits", "count_bits", {"number": number}, rng, half), str(number.bit_count())


def large_primes(rng: Random, half: Half) -> tuple[str, str]:
    """Numbers with a factor that is not among the primes that are tried: factors or primality."""
    number = _long(rng, 6, 20)
    asks_prime = rng.random() < 0.5
    found = any(number % prime == 0 for prime in PRIMES)
    question = _ask(
        "prime_factorization", "prime_factorization", {"number": number, "primality": asks_prime}, rng, half
    )
    return question, "No" if asks_prime and found else ""


def large_fractions(rng: Random, half: Half) -> tuple[str, str]:
    above, below = _long(rng, 9, 20), _long(rng, 9, 20)
    shared = gcd(above, below)
    metadata = {"numerator": above, "denominator": below}
    question = _ask("fraction_simplification", "fraction_simplification", metadata, rng, half, "text")
    return question, f"{above // shared}/{below // shared}"


def large_powers(rng: Random, half: Half) -> tuple[str, str]:
    base = float(rng.randint(2, 99))
    return _ask("power_function", "power_function", {"base": base, "exponent": rng.randint(25, 2000)}, rng, half), ""


def long_conversions(rng: Random, half: Half) -> tuple[str, str]:
    number = _long(rng, 10, 25)
    base = rng.choice((2, 16, 8, 7, 12))
    problem = Problem(task="", question=f"number {number} to", answer="", metadata={"source": 10, "target": base})
    return word_plainly("base_conversion", fields_of.base_conversion(problem, rng), "text", rng, half), ""


def many_numbers(rng: Random, half: Half) -> tuple[str, str]:
    numbers = [str(rng.randint(-999, 999)) for _ in range(rng.randint(25, 60))]
    metadata = {"numbers": numbers, "direction": rng.choice(("ascending", "descending"))}
    return _ask("number_sorting", "number_sorting", metadata, rng, half, "text"), ""


def many_words(rng: Random, half: Half) -> tuple[str, str]:
    words = [word.lower() for word in rng.sample(dictionary(), rng.randint(25, 50))]
    metadata = {"words": words, "direction": rng.choice(("ascending", "descending"))}
    return _ask("word_sorting", "word_sorting", metadata, rng, half, "text"), ""


def far_countdown(rng: Random, half: Half) -> tuple[str, str]:
    metadata = {"numbers": [rng.randint(1, 100) for _ in range(rng.randint(14, 25))], "target": rng.randint(100, 99999)}
    return _ask("countdown", "countdown", metadata, rng, half, "text"), ""


def full_sudoku(rng: Random, half: Half) -> tuple[str, str]:
    """Nine by nine: the rows of a shifted pattern with cells left out."""
    digits, blank = rng.sample("123456789", 9), rng.choice("_.0")
    rows = [[digits[(3 * (row % 3) + row // 3 + column) % 9] for column in range(9)] for row in range(9)]
    shown = [[cell if rng.random() < 0.4 else blank for cell in row] for row in rows]
    between = rng.choice((" ", " ", ""))
    text = "\n".join(between.join(row) for row in shown)
    train = ("Solve this sudoku:\n{}", "Solve this sudoku puzzle\n{}", "{}\nSolve the sudoku.", "sudoku 9x9\n{}")
    held_out = ("Can you fill in this sudoku?\n{}", "Here is a sudoku, what is its solution?\n{}")
    solution = "".join("".join(row) for row in rows)
    return rng.choice(train if half is Half.TRAIN else held_out).format(text), solution


TOO_LARGE: tuple[Callable[[Random, Half], tuple[str, str]], ...] = (
    long_products, long_products, long_sums, long_divisors, long_binaries, large_primes, large_fractions, large_powers,
    long_conversions, many_numbers, many_words, far_countdown, full_sudoku,
)  # fmt: skip
