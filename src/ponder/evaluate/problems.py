"""Held-out problems: drawn so that training cannot have drawn the same way, and checked against what it did see."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import cast

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.further import FURTHER_FAMILIES
from ponder.tasks.gym import TRAIN_LIMIT, GymTask, question_hash
from ponder.tasks.protocol import Problem, Task
from ponder.tasks.registry import load_task
from ponder.types import DataError, InvalidRequest

HARD = (
    "base_conversion", "basic_arithmetic", "calendar_arithmetic", "chain_sum", "count_bits", "countdown",
    "decimal_chain_sum", "fraction_simplification", "gcd", "knights_knaves", "lcm", "leg_counting", "letter_counting",
    "mini_sudoku", "power_function", "prime_factorization", "products", "spell_backward", "string_splitting",
    "string_synthesis", "syllogism", "word_sequence_reversal",
)  # fmt: skip
"""The families whose levels reach, or pass, the sizes of the dataset's published hard config."""

FURTHER_HARD = (
    "ab", "color_cube_rotation", "complex_arithmetic", "count_primes", "course_schedule", "family_relationships",
    "palindrome_generation", "ransom_note", "self_reference", "simple_geometry", "simple_integration",
    "string_insertion", "time_intervals",
)  # fmt: skip
"""The same of the further families."""

MINI = ("products", "chain_sum", "letter_counting", "spell_backward", "gcd", "basic_arithmetic", "countdown")
AUDITED = ("products", "chain_sum", "letter_counting", "spell_backward", "gcd", "basic_arithmetic")
SUITES: dict[str, tuple[str, ...]] = {
    "mini": tuple(f"gym:{name}" for name in MINI),
    "families": tuple(f"gym:{name}" for name in FAMILIES),
    "families-hard": tuple(f"gym:{name}@hard" for name in HARD),
    "plain": tuple(f"plain:{name}{wording}" for name in FAMILIES for wording in ("", "@gym")),
    "further": tuple(f"gym:{name}" for name in FURTHER_FAMILIES),
    "further-hard": tuple(f"gym:{name}@hard" for name in FURTHER_HARD),
    "further-plain": tuple(f"plain:{name}{wording}" for name in FURTHER_FAMILIES for wording in ("", "@gym")),
    "scope": ("scope", "scope:near", "scope:within"),
    "audit": tuple(f"plain:{name}@gym" for name in AUDITED),
}
"""A quick look: seven datasets that the bundled model was trained for. Those of all families, under their default and
their hard configs. The families' problems in plain words that training never saw, beside the same problems in
reasoning-gym's words. The same three of the further families, which mini has not learned. What is out of scope
(solved: declined), out of reach (declined or right), and plain questions that must not be declined. What an audit
looks at, in reasoning-gym's words and default sizes."""


def load_suite(spec: str) -> list[Task]:
    """The tasks of suites ("mini", "families") and task names, commas between ("gym:gcd, products, mine.py:Task")."""
    names = [name.strip() for name in _split(spec)]
    if not all(names):
        raise InvalidRequest(
            f"{spec!r} is not a suite: give {', '.join(map(repr, SUITES))} or task names with commas between"
        )
    return [load_task(task) for name in names for task in SUITES.get(name, (name,))]


def _split(spec: str) -> Iterator[str]:
    """At commas outside braces, which hold a task's config."""
    depth, begin = 0, 0
    for place, character in enumerate(spec):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            yield spec[begin:place]
            begin = place + 1
    yield spec[begin:]


def held_out(task: Task, n: int, *, start: int = 0) -> list[Problem]:
    """`n` problems that training does not draw, the same ones every time.

    A reasoning-gym dataset gives the items from TRAIN_LIMIT + start on, but for those that it breaks at. Any other task
    is sampled at levels spread evenly over [0, 1] from generators seeded with the words "held out", its name and the
    number: disjoint from training only as far as the task's own space of questions is large, which `overlap` measures.
    What follows an "@" in the name does not count: wordings of one task (`plain:gcd`, `plain:gcd@gym`) are paired.
    """
    if n < 1 or start < 0:
        raise InvalidRequest(f"n must be at least 1, and start at least 0 (got n {n}, start {start})")
    numbers = range(start, start + n)
    if isinstance(task, GymTask):
        return _drawable(task, TRAIN_LIMIT + start, n)
    name = task.name.partition("@")[0]
    return [task.sample(Random(f"held out {name} {number}"), (place + 0.5) / n) for place, number in enumerate(numbers)]


def _drawable(task: GymTask, index: int, n: int) -> list[Problem]:
    problems: list[Problem] = []
    while len(problems) < n:
        problems.append(task.first_drawable(range(index, index + 100)))
        index = cast(int, problems[-1].metadata["index"]) + 1
    return problems


def overlap(problems: Iterable[Problem], trained_on: frozenset[str]) -> list[bool]:
    """For each problem, whether its question was among the training questions (by `question_hash`)."""
    return [question_hash(problem.question) in trained_on for problem in problems]


def read_hashes(path: str | Path) -> frozenset[str]:
    """The hashes in a run's `sft/questions.bin`: 64-bit little-endian numbers, each the value of a `question_hash`.

    Raises DataError for a file that is not a whole number of them.
    """
    content = Path(path).read_bytes()
    if len(content) % 8:
        raise DataError(f"{path} is not a list of 64-bit hashes ({len(content)} bytes): give a run's sft/questions.bin")
    return frozenset(f"{number:016x}" for (number,) in struct.iter_unpack("<Q", content))
