"""What plain wordings of the further families need of a problem, as fields.py has it of those that mini learned.

Rules that reasoning-gym's wording states, and that a person would state too, stand in the templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from ponder.tasks.families.further.ab import program
from ponder.tasks.families.further.color_cube_rotation import SIDES
from ponder.tasks.families.further.game_of_life import life_board
from ponder.tasks.families.further.needle_haystack import asked_of
from ponder.tasks.families.further.self_reference import bounds_of
from ponder.tasks.families.plain.fields import Fields, gym_details
from ponder.tasks.families.plain.wording import as_numeral, quoted
from ponder.tasks.families.working.grids import printed_rows
from ponder.tasks.protocol import Problem

PRINTED_TIME = re.compile(
    r"(?:\b(?:[A-Z][a-z]+,? )?[A-Z][a-z]+ \d\d,? \d{4}|\b\d\d [A-Z][a-z]+ \d{4}|\b\d{4}-\d\d-\d\d(?: \([A-Z][a-z]+\))?|"
    r"\b\d\d/\d\d/\d{4})(?:,?(?: at)? \d\d:\d\d(?::\d\d)?(?: [+-]\d{4})?)?|\b\d\d:\d\d(?::\d\d(?:\.\d+)?)?"
)
"""A date, a time of day, or both, in the notations of `time_intervals`."""


def ab(problem: Problem, rng: Random) -> Fields:
    return {"program": " ".join(program(problem.question))}


def binary_alternation(problem: Problem, rng: Random) -> Fields:
    return {"bits": quoted(gym_details(problem)["string"], rng, bare=0.7)}


def coin_flip(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    kind = "exactly" if details["problem_type"] == "exact" else "least"
    return {kind: as_numeral(details["k_heads"], rng), "flips": as_numeral(details["num_trials"], rng)}


def color_cube_rotation(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    colors = [f"{side} {details['initial_state'][side]}" for side in SIDES]
    turns = ", then the ".join(details["rotations"])
    return {"colors": ", ".join(colors), "turns": turns, "side": details["target_side"]}


def complex_arithmetic(problem: Problem, rng: Random) -> Fields:
    """The two numbers without the decimals of whole parts."""
    details = gym_details(problem)
    first, second = (_complex(*map(int, details[key])) for key in ("num1", "num2"))
    name = {"+": "plus", "-": "minus", "*": "times", "/": "by"}[details["operation"]]
    return {f"{name}_a": first, f"{name}_b": second}


def _complex(real: int, imaginary: int) -> str:
    unit = {1: "i", -1: "-i"}.get(imaginary, f"{imaginary}i")
    if not real or not imaginary:
        return unit if imaginary else str(real)
    return f"{real} {'-' if imaginary < 0 else '+'} {unit.removeprefix('-')}"


def count_primes(problem: Problem, rng: Random) -> Fields:
    start, end = problem.metadata["start"], problem.metadata["end"]
    fields: Fields = {"start": str(start), "end": str(end)}
    return fields | {"up_to": str(end)} if start <= 2 else fields


def course_schedule(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    way = rng.choice(("{0} needs {1}", "{1} before {0}", "for {0} first take {1}"))
    needs = [way.format(*pair) for pair in details["prerequisites"]]
    count = len(details["courses"])
    return {"count": str(count), "last": str(count - 1), "needs": ", ".join(needs) or "no rules"}


def family_relationships(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    story = problem.question.split("\n\n")[0]
    return {"story": story, "first": details["person1"], "second": details["person2"]}


def game_of_life(problem: Problem, rng: Random) -> Fields:
    between, row = rng.choice((("", "{}"), (" ", "{}"), (",", "[{}]")))
    lines = [row.format(between.join(map(str, line))) for line in life_board(problem.question)]
    return {"grid": "\n".join(lines)}


def group_anagrams(problem: Problem, rng: Random) -> Fields:
    return {"words": gym_details(problem)["words"]}


def manipulate_matrix(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    steps = [str(each["instruction"]).removeprefix("- ") for each in details["operations"]]
    numbered_steps = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    small = ", then ".join(step[0].lower() + step[1:] for step in steps)
    return {"grid": printed_rows(details["matrix"]), "steps": "\n".join(numbered_steps), "then": small}


def matrix_alone(problem: Problem, rng: Random) -> Fields:
    """Of questions that name nothing but a grid of numbers or of signs."""
    details = gym_details(problem)
    return {"grid": printed_rows(details["grid"] if "grid" in details else details["matrix"])}


def needle_haystack(problem: Problem, rng: Random) -> Fields:
    asked, statements = asked_of(problem)
    return {"statements": f"{'. '.join(statements)}.", "asked": asked}


def number_format(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    between = rng.choice((" ", " or ", "; "))
    return {details["size"]: between.join(details["formatted_candidates"])}


def number_sequence(problem: Problem, rng: Random) -> Fields:
    return {"numbers": ", ".join(str(number) for number in gym_details(problem)["sequence"][:-1])}


def palindrome_generation(problem: Problem, rng: Random) -> Fields:
    letters: Sequence[str] = gym_details(problem)["letters"]
    return {"letters": letters, "joined": "".join(letters)}


def pool_matrix(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    kind = "largest" if details["pool_type"] == "max" else "average"
    return {"grid": printed_rows(details["matrix"]), kind: str(details["pool_size"])}


def ransom_note(problem: Problem, rng: Random) -> Fields:
    bare = rng.choice((0.0, 1.0))
    note, magazine = (quoted(problem.metadata[key], rng, bare=bare) for key in ("note", "magazine"))
    return {"note": note, "magazine": magazine}


def rotate_matrix(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    return {"grid": printed_rows(details["matrix"]), "degrees": str(90 * details["num_rotations"])}


def self_reference(problem: Problem, rng: Random) -> Fields:
    return dict(zip(("least", "most", "true", "false"), map(str, bounds_of(problem.question)), strict=True))


def simple_geometry(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    style = rng.choice(("{}", "{}°", "{}°"))
    angles = [style.format(int(angle)) for angle in details["known_angles"]]
    return {"sides": str(details["n_sides"]), "others": str(details["n_sides"] - 1), "angles": angles}


def simple_integration(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    integrand = str(details["integrand"]) if rng.random() < 0.5 else str(details["integrand"]).replace("**", "^")
    return {"integrand": integrand, "variable": details["variable"]}


def string_insertion(problem: Problem, rng: Random) -> Fields:
    return {"string": problem.metadata["string"]}


def string_manipulation(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    style = rng.choice(("{}. {}", "{}) {}", "{}: {}"))
    rules = [style.format(number, rule) for number, rule in enumerate(details["selected_rules"], 1)]
    return {"string": quoted(details["string"], rng, bare=0.7), "rules": "\n".join(rules)}


def time_intervals(problem: Problem, rng: Random) -> Fields:
    """The two times as the dataset writes them."""
    start, end = re.findall(PRINTED_TIME, problem.question)
    form = str(gym_details(problem)["expected_format"])
    return {"days" if form == "D days" else "start": start, "end": end, "format": form}


FURTHER_FIELDS: dict[str, Callable[[Problem, Random], Fields]] = {
    "ab": ab,
    "binary_alternation": binary_alternation,
    "binary_matrix": matrix_alone,
    "coin_flip": coin_flip,
    "color_cube_rotation": color_cube_rotation,
    "complex_arithmetic": complex_arithmetic,
    "count_primes": count_primes,
    "course_schedule": course_schedule,
    "family_relationships": family_relationships,
    "game_of_life": game_of_life,
    "group_anagrams": group_anagrams,
    "largest_island": matrix_alone,
    "manipulate_matrix": manipulate_matrix,
    "needle_haystack": needle_haystack,
    "number_format": number_format,
    "number_sequence": number_sequence,
    "palindrome_generation": palindrome_generation,
    "pool_matrix": pool_matrix,
    "ransom_note": ransom_note,
    "rotate_matrix": rotate_matrix,
    "self_reference": self_reference,
    "shortest_path": matrix_alone,
    "simple_geometry": simple_geometry,
    "simple_integration": simple_integration,
    "spiral_matrix": matrix_alone,
    "string_insertion": string_insertion,
    "string_manipulation": string_manipulation,
    "time_intervals": time_intervals,
}
