"""Statements as codes and as sentences, and what is reached from them.

`D+` Dan is late, `D-` he is not, `D+:E-` if Dan is late then Eve is not, `A>B` Ann is older than Bo. Small letters are
classes that one person belongs to: `b+` Gus is a baker, `b+:c+` all bakers are cooks, `b+:c-` no bakers are cooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random

_NAMES = "Ann Bo Cy Dan Eve Fay Gus Hal Ida Jo Kim Leo"
_CLASSES = "baker cook dancer farmer guard hunter judge knight lawyer miller nurse painter"
NAMES = {name[0]: name for name in _NAMES.split()}
CLASSES = {name[0]: name for name in _CLASSES.split()}
ADJECTIVES = ("late", "happy", "rich", "tired", "sick", "guilty")
COMPARATIVES = (("older", "younger"), ("taller", "shorter"), ("heavier", "lighter"), ("faster", "slower"))


@dataclass(frozen=True, slots=True)
class Theme:
    """What the letters of one problem are about. person: the one whose classes are told; not among the other names."""

    adjective: str
    person: str
    more: str
    less: str

    @classmethod
    def draw(cls, rng: Random, names: Sequence[str]) -> Theme:
        """names: letters that are taken."""
        person = rng.choice([letter for letter in NAMES if letter not in names])
        more, less = rng.choice(COMPARATIVES)
        return cls(rng.choice(ADJECTIVES), NAMES[person], more, less)

    def packed(self) -> dict[str, str]:
        return asdict(self)


def opposite(literal: str) -> str:
    return literal[0] + ("-" if literal[1] == "+" else "+")


def as_sentence(code: str, theme: Theme, rng: Random) -> str:
    """A statement in controlled English (docs/logic.md)."""
    if ">" in code:
        left, right = NAMES[code[0]], NAMES[code[2]]
        if rng.random() < 0.5:
            return f"{left} is {theme.more} than {right}."
        return f"{right} is {theme.less} than {left}."
    condition, colon, result = code.rpartition(":")
    holds = result[1] == "+"
    if code[0] in NAMES:
        said = f"{NAMES[result[0]]} is {'' if holds else 'not '}{theme.adjective}"
        return f"If {NAMES[condition[0]]} is {theme.adjective} then {said}." if colon else f"{said}."
    if colon:
        return f"{'All' if holds else 'No'} {CLASSES[condition[0]]}s are {CLASSES[result[0]]}s."
    return f"{theme.person} is {'' if holds else 'not '}a {CLASSES[result[0]]}."


def reached_line(head: str, found: Sequence[tuple[int, str]]) -> str:
    """`D+: 4 E+, 8 F-`: what is reached from `D+`, and by which statements."""
    return f"{head}: {', '.join(f'{number} {what}' for number, what in found) or 'none'}"


def facts(codes: Sequence[str]) -> list[tuple[int, str]]:
    return [(number, code) for number, code in enumerate(codes, 1) if len(code) == 2]


def results(literal: str, codes: Sequence[str], *, backward: bool = False) -> Iterator[tuple[int, str]]:
    """What rules say from a literal. backward: also from what a rule says not to hold to its condition not holding."""
    for number, code in enumerate(codes, 1):
        condition, colon, result = code.rpartition(":")
        if colon and condition == literal:
            yield number, result
        elif colon and backward and result == opposite(literal):
            yield number, opposite(condition)


def random_rule(rng: Random, letters: Sequence[str]) -> str:
    condition, result = rng.sample(list(letters), 2)
    return f"{condition}+:{result}{rng.choice('++-')}"
