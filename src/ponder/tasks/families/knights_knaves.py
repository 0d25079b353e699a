"""Who tells the truth: the statements in letters, then one assignment after the other until every statement fits.

a+ says that a tells the truth, a- that a lies. Under an assignment every such claim gets T or F right after it, every
bracket its own after the bracket; a truthful speaker's statement must come out T, a liar's F.
"""

from __future__ import annotations

import re
from itertools import product
from random import Random
from typing import Any

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Fold, Grade, Problem

TRIALS_PER_CONTEXT = 2
"""Of three people: the thought folds after every trial in which c lies. Two people's trials fit one context."""


class KnightsKnaves(FromGym):
    """Two people with plain statements (the default config), then three, then three with nested ones (the hard one)."""

    name = gym_name = "knights_knaves"
    configs = ({}, {"n_people": 3}, {"n_people": 3, "depth_constraint": 3, "width_constraint": 3})
    default_level = 0.33

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        names: list[str] = details["names"]
        letters = "abc"[: len(names)]
        statements: list[Any] = details["statements"]
        named = [f"{name} {letter}" for name, letter in zip(names, letters, strict=True)]
        head = [", ".join(named)]
        head += [f"{a}: {claim(s, named)}" for a, s in zip(letters, statements, strict=True)]
        kept = [f"{a}: {claim(s, list(letters))}" for a, s in zip(letters, statements, strict=True)]
        folds: list[Fold] = []
        lines = head
        for number, truthful in enumerate(product((True, False), repeat=len(names))):
            trial = [letter + ("+" if each else "-") for letter, each in zip(letters, truthful, strict=True)]
            if len(names) > 2 and number and number % TRIALS_PER_CONTEXT == 0:
                folds.append(Fold("\n".join(lines), "\n".join([*kept, f"try {' '.join(trial)}"])))
                lines = []
            lines.append(f"try {' '.join(trial)}")
            for who, statement, speaker in zip(trial, statements, truthful, strict=True):
                working, value = evaluate_statement(statement, letters, truthful)
                fits = value == speaker
                lines.append(f"{who}: {working} is {mark(value)} {'ok' if fits else 'no'}")
                if not fits:
                    break
            else:
                break
        thought = noticed_slip("\n".join(lines), "(?<=[+-])[TF]", "TF", rng)
        return Demonstration(reasoning=thought, answer=problem.answer, folds=tuple(folds))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 when every person has the right role, in any order, as the dataset scores; no part marks."""
        return Grade(score=float(roles(answer) == roles(problem.answer)))

    def same(self, a: str, b: str) -> bool:
        return roles(a) == roles(b)


def roles(answer: str) -> set[tuple[str, ...]]:
    """Who is what, in lower case."""
    words = re.sub(r"[.,()]", " ", answer.lower()).split()
    kept = [word for word in words if word not in ("is", "a", "an", "and")]
    return {tuple(kept[i : i + 2]) for i in range(0, len(kept), 2)}


def claim(statement: Any, named: list[str]) -> str:
    """A statement with every person called by `named`: `William a+ iff Amelia b-`."""
    kind, *parts = plain(statement)
    if kind in ("+", "-"):
        return f"{named[parts[0]]}{kind}"
    return in_words(kind, [claim(part, named) if is_claim(part) else f"({claim(part, named)})" for part in parts])


def evaluate_statement(statement: Any, letters: str, truthful: tuple[bool, ...]) -> tuple[str, bool]:
    """A statement in letters with the value after every part, and its own value."""
    kind, *parts = plain(statement)
    if kind in ("+", "-"):
        value = truthful[parts[0]] == (kind == "+")
        return f"{letters[parts[0]]}{kind}{mark(value)}", value
    texts, values = [], []
    for part in parts:
        text, value = evaluate_statement(part, letters, truthful)
        texts.append(text if is_claim(part) else f"({text}){mark(value)}")
        values.append(value)
    return in_words(kind, texts), combined(kind, values)


def combined(kind: str, values: list[bool]) -> bool:
    match kind:
        case "and":
            return all(values)
        case "or":
            return any(values)
        case "not":
            return not values[0]
        case "->":
            return not values[0] or values[1]
        case _:
            return values[0] == values[1]


def in_words(kind: str, parts: list[str]) -> str:
    if kind == "not":
        return f"not {parts[0]}"
    if kind == "->":
        return f"if {parts[0]} then {parts[1]}"
    return f" {'iff' if kind == '<=>' else kind} ".join(parts)


def plain(statement: Any) -> Any:
    """Truth-telling as +, lying as -, and, as the dataset words it, a claim denied as the opposite claim."""
    if statement[0] == "not" and is_claim(statement[1]):
        kind, who = plain(statement[1])
        return ("-" if kind == "+" else "+"), who
    return {"telling-truth": "+", "lying": "-"}.get(statement[0], statement[0]), *statement[1:]


def is_claim(statement: Any) -> bool:
    """Whether a statement is about one person only: the dataset's words for it stand without brackets."""
    return statement[0] in ("telling-truth", "lying")


def mark(value: bool) -> str:
    return "T" if value else "F"
