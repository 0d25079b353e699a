"""What a plain wording needs of a problem: its parts by name, each written in one of the ways in which people write it.

`FIELDS` has a function for each family: (problem, rng) to the fields that the templates of templates.txt name. A field
is left out where a template with it would not say what the problem asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from random import Random
from typing import Any

from ponder.sandbox.payload import unpack_json
from ponder.tasks.families.base_conversion import base_name
from ponder.tasks.families.calendar_arithmetic import DAYS, MONTHS, asked_weekday
from ponder.tasks.families.knights_knaves import is_claim
from ponder.tasks.families.plain.wording import FieldValue, Sentence, as_numeral, quoted
from ponder.tasks.families.syllogism import TURNED, sentence
from ponder.tasks.protocol import Problem

Fields = dict[str, FieldValue]

TIMES = (" * ", " × ", " x ", "*", "×", " · ", "x", "·")
BY = (" / ", "/", " ÷ ", "÷")
LARGER = ("larger than", "greater than", "bigger than", "above", "over", "more than", ">")
SMALLER = ("smaller than", "less than", "below", "under", "lower than", "<")
UPWARD = (
    "in ascending order", "from smallest to largest", "from low to high", "smallest first", "in increasing order",
    "from lowest to highest", "from the smallest to the biggest", "ascending",
)  # fmt: skip
DOWNWARD = (
    "in descending order", "from largest to smallest", "from high to low", "largest first", "in decreasing order",
    "from highest to lowest", "from the biggest to the smallest", "descending",
)  # fmt: skip
FROM_A = ("alphabetically", "in alphabetical order", "from A to Z", "in ascending order", "in dictionary order")
FROM_Z = ("in reverse alphabetical order", "from Z to A", "in descending order", "in alphabetical order backwards")
OPERATIONS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def products(problem: Problem, rng: Random) -> Fields:
    factors: list[int] = problem.metadata["factors"]
    numerals = [as_numeral(factor, rng) for factor in factors]
    fields: Fields = {"product": rng.choice(TIMES).join(map(str, factors)), "numbers": numerals}
    return fields | dict(zip("ab", numerals, strict=True)) if len(factors) == 2 else fields


def sums(terms: Sequence[str], rng: Random) -> Fields:
    """Of signed decimals: `+12`, `-3.5`."""
    spaced = rng.random() < 0.75
    signs = {"+": "+", "-": "-" if rng.random() < 0.9 else "−"}
    chain = terms[0].removeprefix("+")
    words = chain
    for term in terms[1:]:
        chain += f" {signs[term[0]]} {term[1:]}" if spaced else f"{signs[term[0]]}{term[1:]}"
        words += f" {OPERATIONS[term[0]]} {term[1:]}"
    fields: Fields = {"chain": chain, "words": words}
    plain = [as_numeral(int(t[1:]), rng) if t[1:].isdigit() else t[1:] for t in terms]
    if all(term[0] == "+" for term in terms):
        fields["addends"] = plain
    if len(terms) == 2:
        name = "plus" if terms[1][0] == "+" else "minus"
        fields |= {f"{name}_a": plain[0], f"{name}_b": plain[1]}
    return fields


def chain_sum(problem: Problem, rng: Random) -> Fields:
    return sums([f"{term:+d}" for term in problem.metadata["terms"]], rng)


def decimal_chain_sum(problem: Problem, rng: Random) -> Fields:
    tokens = ["+", *str(problem.metadata["chain"]).split()]
    return sums([sign + term for sign, term in zip(tokens[::2], tokens[1::2], strict=True)], rng)


def basic_arithmetic(problem: Problem, rng: Random) -> Fields:
    tokens = str(problem.metadata["expression"]).split()
    times, by = rng.choice(TIMES).strip(), rng.choice(BY).strip()
    written = [{"*": times, "/": by}.get(token, token) for token in tokens]
    expression = " ".join(written).replace("( ", "(").replace(" )", ")")
    if rng.random() < 0.25 and not re.search(r"[-+*/x·×÷] -", expression):
        expression = expression.replace(" ", "")
    fields: Fields = {"expression": expression}
    if all(token.isdigit() or token in OPERATIONS for token in tokens):
        fields["words"] = " ".join(OPERATIONS.get(token, token) for token in tokens)
        if len(tokens) == 3 and tokens[1] == "/":
            fields |= {"div_a": as_numeral(int(tokens[0]), rng), "div_b": as_numeral(int(tokens[2]), rng)}
    return fields


def base_conversion(problem: Problem, rng: Random) -> Fields:
    source, target = int(problem.metadata["source"]), int(problem.metadata["target"])
    digits = re.search(r"number (\S+) to", problem.question)
    assert digits is not None
    prefix = {2: "0b", 16: "0x"}.get(source, "") if rng.random() < 0.08 else ""
    fields: Fields = {
        "digits": prefix + digits[1],
        "source": _base(source, rng),
        "target": _base(target, rng),
    }
    if source == 10:
        fields["dec"] = digits[1]
    return fields


def _base(base: int, rng: Random) -> str:
    special: dict[int, Sequence[str]] = {
        2: ("binary", "binary", "base 2"),
        8: ("octal", "base 8"),
        10: ("decimal", "base 10"),
        16: ("hexadecimal", "hex", "base 16"),
    }
    return rng.choice(special.get(base, (f"base {base}", base_name(base), f"base {base}")))


def caesar_cipher(problem: Problem, rng: Random) -> Fields:
    cipher, text = str(problem.metadata["cipher"]), str(problem.metadata["text"])
    shift = next((ord(a) - ord(b)) % 26 for a, b in zip(cipher, text, strict=True) if a.isalpha())
    shown = cipher.lower() if rng.random() < 0.15 else cipher
    return {"cipher": quoted(shown, rng, bare=0.8), "shift": str(shift)}


def count_bits(problem: Problem, rng: Random) -> Fields:
    return {"number": as_numeral(int(problem.metadata["number"]), rng)}


def countdown(problem: Problem, rng: Random) -> Fields:
    return {"numbers": [str(n) for n in problem.metadata["numbers"]], "target": str(problem.metadata["target"])}


def fraction_simplification(problem: Problem, rng: Random) -> Fields:
    above, below = problem.metadata["numerator"], problem.metadata["denominator"]
    style = rng.choices(("{}/{}", "{} / {}", "{} over {}"), (0.75, 0.1, 0.15))[0]
    return {"fraction": style.format(above, below)}


def common(problem: Problem, rng: Random) -> Fields:
    """Of greatest divisors and least multiples."""
    numerals = [as_numeral(number, rng) for number in problem.metadata["numbers"]]
    fields: Fields = {"numbers": numerals}
    return fields | dict(zip("ab", numerals, strict=True)) if len(numerals) == 2 else fields


def isomorphic_strings(problem: Problem, rng: Random) -> Fields:
    bare = rng.choice((0.0, 1.0))
    s, t = (quoted(word, rng, bare=bare) for word in problem.metadata["words"])
    return {"s": s, "t": t}


def leg_counting(problem: Problem, rng: Random) -> Fields:
    animals: dict[str, int] = problem.metadata["animals"]
    return {"animals": [_herd(animal, count, rng) for animal, count in animals.items()]}


def _herd(animal: str, count: int, rng: Random) -> str:
    """`3 dogs`, `a cat`, `an ant`; plurals as people write them."""
    if count == 1:
        article = "an" if animal[0] in "aeiou" else "a"
        return f"{article if rng.random() < 0.6 else '1'} {animal}"
    if animal in ("sheep", "deer", "fish", "shrimp"):
        return f"{as_numeral(count, rng)} {animal}"
    if animal.endswith("fly"):
        return f"{as_numeral(count, rng)} {animal[:-1]}ies"
    if animal == "woodlouse":
        return f"{as_numeral(count, rng)} woodlice"
    return f"{as_numeral(count, rng)} {animal}{'es' if animal.endswith(('s', 'ch', 'fish')) else 's'}"


def letter_counting(problem: Problem, rng: Random) -> Fields:
    words: list[str] = problem.metadata["words"]
    letter = str(problem.metadata["letter"])
    text = " ".join(words)
    fields: Fields = {"letter": letter if rng.random() < 0.75 else quoted(letter, rng, bare=0.0)}
    if len(words) > 1:
        return fields | {"text": quoted(text, rng, bare=0.0 if len(words) > 4 else 0.3)}
    word = quoted(text, rng)
    return fields | {"word": word, "text": rng.choice(("", "", "the word ")) + word}


def mini_sudoku(problem: Problem, rng: Random) -> Fields:
    rows = [line.split() for line in problem.question.split("\n") if re.fullmatch(r"[1-4_]( [1-4_]){3}", line.strip())]
    assert len(rows) == 4
    blank, between = rng.choice("__.0-?"), rng.choice(("", " ", " ", " "))
    return {"grid": "\n".join(between.join(cell.replace("_", blank) for cell in row) for row in rows)}


def number_filtering(problem: Problem, rng: Random) -> Fields:
    relation = rng.choice(LARGER if problem.metadata["relation"] == "larger" else SMALLER)
    name = "keep" if problem.metadata["operation"] == "keep" else "drop"
    return {name: relation, "bound": str(problem.metadata["bound"]), "numbers": problem.metadata["numbers"]}


def number_sorting(problem: Problem, rng: Random) -> Fields:
    return _in_order(problem.metadata["numbers"], problem, rng, UPWARD, DOWNWARD) | {
        "numbers": problem.metadata["numbers"]
    }


def word_sorting(problem: Problem, rng: Random) -> Fields:
    return _in_order(problem.metadata["words"], problem, rng, FROM_A, FROM_Z) | {"words": problem.metadata["words"]}


def _in_order(items: Sequence[str], problem: Problem, rng: Random, up: Sequence[str], down: Sequence[str]) -> Fields:
    rising = problem.metadata["direction"] == "ascending"
    return {"order": rng.choice(up if rising else down)} | ({"up": items} if rising else {})


def power_function(problem: Problem, rng: Random) -> Fields:
    base, exponent = float(problem.metadata["base"]), int(problem.metadata["exponent"])
    shown = str(int(base)) if base.is_integer() else str(base)
    based = f"({shown})" if base < 0 else shown
    raised = f"({exponent})" if exponent < 0 and rng.random() < 0.4 else str(exponent)
    power = f"{based}{rng.choice(('^', '^', '^', '**', ' ^ '))}{raised}"
    if exponent in (2, 3) and rng.random() < 0.2:
        power = f"{based}{'²' if exponent == 2 else '³'}"
    fields: Fields = {"power": power, "base": shown, "exponent": str(exponent)}
    if exponent == 2:
        fields["squared"] = shown
    if exponent > 3:
        fields["nth"] = f"{exponent}th"
    return fields


def prime_factorization(problem: Problem, rng: Random) -> Fields:
    name = "maybe_prime" if problem.metadata.get("primality") else "number"
    return {name: as_numeral(int(problem.metadata["number"]), rng)}


def simple_equations(problem: Problem, rng: Random) -> Fields:
    found = re.search(r"\S+( [-+] \S+)? = -?\d+", problem.question)
    assert found is not None
    equation = found[0].replace("*", rng.choice(("", "", "*", " * ", "·")))
    if rng.random() < 0.2:
        equation = equation.replace(" ", "")
    return {"equation": equation, "variable": str(problem.metadata["variable"])}


def spell_backward(problem: Problem, rng: Random) -> Fields:
    return {"word": quoted(str(problem.metadata["word"]), rng, bare=0.65)}


def machines(problem: Problem, rng: Random) -> Fields:
    """Of the two puzzles with rules: how many there are of the first three kinds."""
    counts = problem.metadata["machines"] if "machines" in problem.metadata else problem.metadata["blocks"]
    return {name: str(count) for name, count in zip("abc", counts, strict=True)}


def syllogism(problem: Problem, rng: Random) -> Fields:
    first, second, asked = problem.metadata["quantifiers"]
    terms, turned = problem.metadata["terms"], problem.metadata["turned"]
    subject, predicate = (terms[turned], terms[turned - 1]) if turned else (terms[0], terms[2])
    assert asked in TURNED
    sentences = (
        sentence(first, terms[0], terms[1]), sentence(second, terms[1], terms[2]), sentence(asked, subject, predicate)
    )  # fmt: skip
    small = (Sentence(each[0].lower() + each[1:]) for each in sentences)
    return dict(zip(("first", "second", "conclusion"), small, strict=True))


def word_sequence_reversal(problem: Problem, rng: Random) -> Fields:
    return {"words": problem.metadata["words"]}


def gym_details(problem: Problem) -> dict[str, Any]:
    """The metadata that reasoning-gym gave with one of its items."""
    found: dict[str, Any] = unpack_json(problem.metadata["entry"]["metadata"])
    return found


def calendar_arithmetic(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    match details["task"]:
        case "weekday_offset":
            name = "after" if details["offset_days"] > 0 else "ago"
            day = date.fromisoformat(details["start_date"])
            start = DAYS[day.weekday()] if rng.random() < 0.5 else _with_weekday(day, rng)
            return {"start": start, name: str(abs(details["offset_days"]))}
        case "weekday_of_date":
            return {"on": _date(date.fromisoformat(details["target_date"]), rng)}
        case "weekday_of_date_from_first_date":
            day = date.fromisoformat(details["target_date"])
            return {"first": details["first_day"], "then": f"{MONTHS[day.month]} {day.day}"}
        case "recurring_event_day":
            month = MONTHS[details["month"]]
            return {"ordinal": details["ordinal"], "weekday": details["weekday"], "month": month}
        case "is_leap_year":
            return {"year": str(details["year"])}
    begin, end = (_with_weekday(date.fromisoformat(details[key]), rng) for key in ("start_date", "end_date"))
    if details["task"] == "count_days":
        return {"weekday": asked_weekday(problem.question), "from": begin, "to": end}
    return {"work_from": begin, "work_to": end}


def _date(day: date, rng: Random) -> str:
    month = MONTHS[day.month]
    ways = (f"{month} {day.day}, {day.year}", f"{day.day} {month} {day.year}", f"{month} {day.day} {day.year}")
    return rng.choice((*ways, f"the {day.day}{_ordinal(day.day)} of {month} {day.year}", day.strftime("%m/%d/%Y")))


def _with_weekday(day: date, rng: Random) -> str:
    month = MONTHS[day.month]
    ways = (f"{month} {day.day}, {day.year}", f"{month} {day.day} {day.year}", f"{day.day} {month} {day.year}")
    return f"{DAYS[day.weekday()]}{rng.choice((', ', ' '))}{rng.choice(ways)}"


def _ordinal(day: int) -> str:
    return "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def knights_knaves(problem: Problem, rng: Random) -> Fields:
    details = gym_details(problem)
    names, terms = details["names"], details["knight_knave_terms"]
    says = [rng.choice(SAYING)] * len(names) if rng.random() < 0.6 else rng.choices(SAYING, k=len(names))
    speeches = []
    for name, statement, way in zip(names, details["statements"], says, strict=True):
        speeches.append(way.format(name=name, claim=_claimed(statement, names, terms)))
    liars = rng.choice(LIARS).format(knights=f"{terms['knight']}s", knaves=f"{terms['knave']}s")
    return {
        "liars": Sentence(liars),
        "speeches": " ".join(speeches),
        "names": f"{', '.join(names[:-1])} and {names[-1]}",
        "knight": terms["a_knight"],
        "knave": terms["a_knave"],
    }


SAYING = (
    '{name} says: "{claim}."',
    "{name} says that {claim}.",
    "{name} says {claim}.",
    '{name} said, "{claim}".',
    '"{claim}," says {name}.',
    "{name} claims that {claim}.",
    "{name}: {claim}.",
)
LIARS = (
    "{knights} always tell the truth and {knaves} always lie.",
    "{knights} tell the truth, {knaves} lie.",
    "{knaves} always lie, and {knights} never do.",
    "{knights} only say what is true, {knaves} only what is false.",
)


def _claimed(statement: Any, names: Sequence[str], terms: dict[str, str]) -> str:
    kind, *parts = statement
    if is_claim(statement):
        return f"{names[parts[0]]} is {terms['a_knight' if kind == 'telling-truth' else 'a_knave']}"
    if kind == "not" and is_claim(parts[0]):
        inner, who = parts[0]
        return f"{names[who]} is not {terms['a_knight' if inner == 'telling-truth' else 'a_knave']}"
    texts = [_claimed(part, names, terms) for part in parts]
    texts = [text if is_claim(part) else f"({text})" for text, part in zip(texts, parts, strict=True)]
    if kind == "not":
        return f"it is not true that {texts[0]}"
    if kind == "->":
        return f"if {texts[0]} then {texts[1]}"
    return f" {'if and only if' if kind == '<=>' else kind} ".join(texts)


FIELDS: dict[str, Callable[[Problem, Random], Fields]] = {
    "base_conversion": base_conversion,
    "basic_arithmetic": basic_arithmetic,
    "caesar_cipher": caesar_cipher,
    "calendar_arithmetic": calendar_arithmetic,
    "chain_sum": chain_sum,
    "count_bits": count_bits,
    "countdown": countdown,
    "decimal_chain_sum": decimal_chain_sum,
    "fraction_simplification": fraction_simplification,
    "gcd": common,
    "isomorphic_strings": isomorphic_strings,
    "knights_knaves": knights_knaves,
    "lcm": common,
    "leg_counting": leg_counting,
    "letter_counting": letter_counting,
    "mini_sudoku": mini_sudoku,
    "number_filtering": number_filtering,
    "number_sorting": number_sorting,
    "power_function": power_function,
    "prime_factorization": prime_factorization,
    "products": products,
    "simple_equations": simple_equations,
    "spell_backward": spell_backward,
    "string_splitting": machines,
    "string_synthesis": machines,
    "syllogism": syllogism,
    "word_sequence_reversal": word_sequence_reversal,
    "word_sorting": word_sorting,
}
