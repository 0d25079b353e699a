"""What plain wordings of the further families need of a problem, as fields.py has it of those that mini learned.

Rules that reasoning-gym's wording states, and that a person would state too, stand in the templates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ponder.tasks.families.further.ab import program
from ponder.tasks.families.further.self_reference import bounds_of
from ponder.tasks.families.plain.fields import Fields, gym_details
from ponder.tasks.families.plain.wording import as_numeral, quoted
from ponder.tasks.protocol import Problem


def ab(problem: Problem, rng: Random) -> Fields:
    return {"program": " ".join(program(problem.question))}


def binary_alternation(problem: Problem, rng: Random) -> Fields:
    return {"bits": quoted(gym_details(problem)["string"], rng, bare=0.7)}


def coin_flip(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    kind = "exactly" if details["problem_type"] == "exact" else "least"
    return {kind: as_numeral(details["k_heads"], rng), "flips": as_numeral(details["num_trials"], rng)}


def count_primes(problem: Problem, rng: Random) -> Fields:
    start, end = problem.metadata["start"], problem.metadata["end"]
    fields: Fields = {"start": str(start), "end": str(end)}
    return fields | {"up_to": str(end)} if start <= 2 else fields


def palindrome_generation(problem: Problem, rng: Random) -> Fields:
    letters: Sequence[str] = gym_details(problem)["letters"]
    return {"letters": letters, "joined": "".join(letters)}


def ransom_note(problem: Problem, rng: Random) -> Fields:
    bare = rng.choice((0.0, 1.0))
    note, magazine = (quoted(problem.metadata[key], rng, bare=bare) for key in ("note", "magazine"))
    return {"note": note, "magazine": magazine}


def self_reference(problem: Problem, rng: Random) -> Fields:
    return dict(zip(("least", "most", "true", "false"), map(str, bounds_of(problem.question)), strict=True))


def simple_integration(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    integrand = str(details["integrand"]) if rng.random() < 0.5 else str(details["integrand"]).replace("**", "^")
    return {"integrand": integrand, "variable": details["variable"]}


def string_insertion(problem: Problem, rng: Random) -> Fields:
    return {"string": problem.metadata["string"]}


FURTHER_FIELDS: dict[str, Callable[[Problem, Random], Fields]] = {
    "ab": ab,
    "binary_alternation": binary_alternation,
    "coin_flip": coin_flip,
    "count_primes": count_primes,
    "palindrome_generation": palindrome_generation,
    "ransom_note": ransom_note,
    "self_reference": self_reference,
    "simple_integration": simple_integration,
    "string_insertion": string_insertion,
}
