"""Words around a problem: templates with parts to choose from, lists and numbers as people write them, and noise.

A file of templates has sections, one template a line; templates.txt says how they are written. Training draws from the
one half of the templates and never from those marked as held out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from random import Random

SECTION = re.compile(r"\[([a-z_ ]+)\]")
FIELD = re.compile(r"\{([a-z_]+)\}")
CHOICE = re.compile(r"<([^<>]*\|[^<>]*)>")
FRAME = "{}"
BEFORE_SHARE, AFTER_SHARE = 0.2, 0.25
LOWER_SHARE, NO_STOP_SHARE, TYPO_SHARE = 0.25, 0.3, 0.08
LETTERED = ("ab", "shortest_path", "string_insertion", "string_splitting", "string_synthesis")
"""The sections whose templates name things by capital letters."""
SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)


class Half(StrEnum):
    """Which templates: those that training draws from, or those that it never sees."""

    TRAIN = "train"
    HELD_OUT = "held_out"


class Sentence(str):
    """A field that begins with a capital where a sentence begins."""

    __slots__ = ()


FieldValue = str | Sequence[str]
"""Text, or a list that is written in one of the ways in which people write lists."""


@dataclass(frozen=True, slots=True)
class Wording:
    """One wording. fields: the names of what it needs."""

    text: str
    fields: frozenset[str]


@cache
def templates(file: str) -> dict[tuple[str, Half], tuple[Wording, ...]]:
    """The templates of a file of this folder, by section and half."""
    found: dict[tuple[str, Half], list[Wording]] = {}
    section = ""
    for line in files("ponder.tasks.families.plain").joinpath(file).read_text(encoding="utf-8").split("\n"):
        if not line or line.startswith("#"):
            continue
        if heading := SECTION.fullmatch(line):
            section = heading[1]
            continue
        half = Half.HELD_OUT if line.startswith("~") else Half.TRAIN
        text = line.removeprefix("~").replace("\\n", "\n")
        found.setdefault((section, half), []).append(Wording(text, frozenset(FIELD.findall(text))))
    return {key: tuple(each) for key, each in found.items()}


def word_plainly(section: str, fields: Mapping[str, FieldValue], kind: str, rng: Random, half: Half) -> str:
    """A question: a template of the section in templates.txt, framed and with noise.

    kind: what the answer is, "number" or "text"; it decides what may be said of the answer's form.
    """
    fitting = [each for each in templates("templates.txt")[section, half] if each.fields <= fields.keys()]
    snippets = filled(rng.choice(fitting).text, fields, rng)
    if len(snippets) == 1 and not snippets[0].literal:  # only the problem itself, `7 × 8`
        return snippets[0].text
    snippets = _framed(snippets, kind, rng, half)
    lower = rng.random() < LOWER_SHARE and section not in LETTERED
    return "".join(snippet.text for snippet in noisy(snippets, rng, lower=lower))


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of a question. literal: words of a template, which noise may touch; else part of the problem."""

    text: str
    literal: bool


def filled(template: str, fields: Mapping[str, FieldValue], rng: Random) -> list[Snippet]:
    """A template with its choices made and its fields filled in."""
    text = chosen(template, rng)
    parts = FIELD.split(text)
    snippets: list[Snippet] = []
    for number, part in enumerate(parts):
        if number % 2 == 0:
            if part:
                snippets.append(Snippet(part, True))
            continue
        value = fields[part]
        if isinstance(value, Sentence):
            before = snippets[-1].text.rstrip(" \n") if snippets else ""
            begins = not snippets or before.endswith((".", "?", "!", ":", "\n"))
            value = value[:1].upper() + value[1:] if begins else str(value)
        elif not isinstance(value, str):
            value = as_list(value, rng, last=number == len(parts) - 2 and parts[-1] in ("", ".", "?"))
        snippets.append(Snippet(value, False))
    return snippets


def chosen(text: str, rng: Random) -> str:
    """One of the parts of each `<a|b>`."""
    return CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text) if "<" in text else text


def as_list(items: Sequence[str], rng: Random, *, last: bool) -> str:
    """A list as people write it. last: it ends the question, so that it may stand one a line or in brackets."""
    draw = rng.random()
    if draw < 0.45 or len(items) < 2:
        return ", ".join(items)
    if draw < 0.65:
        return f"{', '.join(items[:-1])}{rng.choice((' and ', ', and '))}{items[-1]}"
    if draw < 0.75 and not any(" " in item for item in items):
        return " ".join(items)
    if draw < 0.85 and last:
        return "\n" + "\n".join(f"- {item}" if draw < 0.77 else item for item in items)
    if draw < 0.9:
        return "; ".join(items)
    return rng.choice(("[{}]", "({})", "[{}]")).format(", ".join(items))


def as_numeral(number: int, rng: Random) -> str:
    """A number in digits, now and then as a word where it is small, or with thousands commas."""
    if 0 <= number <= 20 and rng.random() < 0.08:
        return SMALL[number]
    return f"{number:,}" if number >= 1000 and rng.random() < 0.05 else str(number)


def quoted(text: str, rng: Random, *, bare: float = 0.5) -> str:
    """Text with quotation marks of some kind around it, or (with the probability `bare`) none."""
    return text if rng.random() < bare else rng.choice(('"{}"', "'{}'", "“{}”", '"{}"')).format(text)


def _framed(snippets: list[Snippet], kind: str, rng: Random, half: Half) -> list[Snippet]:
    frames = templates("templates.txt")
    if rng.random() < BEFORE_SHARE:
        text = chosen(rng.choice(frames["before", half]).text, rng).removesuffix(FRAME)
        first = snippets[0]
        if first.literal and text.endswith((", ", "please ", ": ")) and not re.match(r"I\b|[A-Z]{2}", first.text):
            snippets = [Snippet(first.text[:1].lower() + first.text[1:], True), *snippets[1:]]
        snippets = [Snippet(text, True), *snippets]
    if rng.random() < AFTER_SHARE:
        section = f"after {kind}" if kind and rng.random() < 0.6 else "after"
        text = rng.choice(frames[section, half]).text.removeprefix(FRAME)
        last = snippets[-1]
        if text.startswith(",") and last.literal:
            snippets = [*snippets[:-1], Snippet(last.text.rstrip(".?"), True)]
        elif not last.literal and text[1:2].isupper() and rng.random() < 0.8:
            text = f".{text}"
        snippets = [*snippets, Snippet(text, True)]
    return snippets


def noisy(snippets: list[Snippet], rng: Random, *, lower: bool) -> list[Snippet]:
    """A missing full stop, a slip of the keyboard, each now and then, and never in the problem itself."""
    if lower:
        snippets = [Snippet(each.text.lower(), True) if each.literal else each for each in snippets]
    if rng.random() < NO_STOP_SHARE and snippets[-1].literal:
        snippets = [*snippets[:-1], Snippet(snippets[-1].text.rstrip(".?!"), True)]
    if rng.random() < TYPO_SHARE:
        place = rng.choice([i for i, each in enumerate(snippets) if each.literal] or [0])
        if snippets[place].literal:
            mistyped = Snippet(_with_typo(snippets[place].text, rng), True)
            snippets = [*snippets[:place], mistyped, *snippets[place + 1 :]]
    return snippets


def _with_typo(text: str, rng: Random) -> str:
    """One word of five letters or more with two letters swapped, one left out or one doubled."""
    words = list(re.finditer(r"[A-Za-z]{5,}", text))
    if not words:
        return text.replace("'", "", 1)
    at = rng.choice(words).start() + rng.randint(1, 3)
    swapped, dropped, doubled = text[at + 1] + text[at], "", text[at] * 2 + text[at + 1]
    kept = rng.choice((swapped, dropped + text[at + 1], doubled))
    return text[:at] + kept + text[at + 2 :]
