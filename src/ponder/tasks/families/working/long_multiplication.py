"""Multiplication of any length in contexts of bounded length: a few rows, a check, a new state (DESIGN.md, Folding).

Each digit has its own label, so that every look-up is a copy of what followed the label last (a line break stands
where a mark before a label would become one token with it):

    *               the terms still to come, one a line, highest digit first, every digit of every term under its
    ц9ч1ш3*         own label
     Γ7 Δ3 Θ5~6     the multiplier M, lowest digit first, and what its digits leave modulo 9
    a1b4c0d2e9~6    the running sum S, lowest digit first, and what its last digits (as many as M's) leave modulo 9
     c8 d3| e1      the multiplicand's digits still to do, lowest first; this context does those before the bar

A row adds M times one digit onto S, beginning at that digit's label; `~` gives a remainder modulo 9:

     c8*6~3+6~0 Γ7*8c0+0=5c6 Δ3*8d2+5=3d1 Θ5*8e9+3=5e2f5   7*8+0+0=56: 5 is carried, c becomes 6; f is the last carry

After the rows, the digits that are not final and then those that are, each with the running remainder. It must be the
one that the rows' heads add up to: `ok`, and S's new digits go into the next state; or `no`: nothing is kept, and the
next context tries again with one row less, lest the same thoughts lead to the same mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from random import Random
from string import ascii_letters

from ponder.tasks.protocol import Demonstration, Fold, Try, mistake

PLACES = ascii_letters + "αβγδεζηθικλμ"
"""Labels of S's digits; with a space before them, of the multiplicand's."""
MULTIPLIER = "ΓΔΘΛΞΠΣΦΨΩÆÐØÞ"
TERMS = "".join(chr(code) for first in "аА" for code in range(ord(first), ord(first) + 32))
RESULTS = [f"{result:02d}" for result in range(100)]
ROWS = 4
"""Rows of a context: 8-digit terms then need at most 1,000 tokens, the question included."""


@dataclass(frozen=True, slots=True)
class MultiplicationState:
    """What is left to do. Digits lowest first but for `terms`, which are (place of the first label, digits)."""

    terms: tuple[tuple[int, str], ...]
    multiplier: str
    sum: str
    todo: str
    bar: int

    @property
    def done(self) -> int:
        """How many of the multiplicand's digits are done: as many of S's digits are final."""
        return len(self.sum) - len(self.multiplier)

    @property
    def text(self) -> str:
        places = [f" {PLACES[self.done + i]}{digit}" for i, digit in enumerate(self.todo)]
        places.insert(self.bar, "|")
        multiplier = "".join(f" {label}{digit}" for label, digit in zip(MULTIPLIER, self.multiplier, strict=False))
        return "\n".join(
            (
                labelled_terms(self.terms),
                f"{multiplier}~{remainder(self.multiplier)}",
                f"{''.join(map(''.join, zip(PLACES, self.sum, strict=False)))}~{remainder(self.sum[self.done :])}",
                "".join(places),
            )
        )


def remainder(digits: Iterable[str]) -> int:
    """What the digits, and so the number, leave modulo 9."""
    return sum(map(int, digits)) % 9


def labelled_terms(terms: Iterable[tuple[int, str]]) -> str:
    """`*`, then `а4б8*`, `в2г1*`, a line each."""
    each = ("".join(map("".join, zip(TERMS[first:], digits, strict=False))) for first, digits in terms)
    return "*" + "".join(f"\n{term}*" for term in each)


def demonstrate(factors: list[int], rng: Random, mistakes: float) -> Demonstration:
    """The product, folded.

    mistakes: the share of contexts with one wrong step, whose check fails.
    """
    folds: list[Fold] = []
    for thought, state in contexts(factors, rng, mistakes, ROWS):
        folds.append(Fold(thought, state.text))
    return Demonstration(reasoning=closing(state.sum), answer=str(prod(factors)), folds=tuple(folds))


def demonstrate_accumulated(factors: list[int]) -> Demonstration:
    """The product of two factors by the same rows, all in one context: of several copies of a label the last counts."""
    (first, state), *rest = contexts(factors, Random(0), 0.0, rows=len(str(factors[0])))
    thoughts = [first, "\n", state.text, *(thought for thought, _ in rest), closing(rest[-1][1].sum)]
    return Demonstration(reasoning="".join(thoughts), answer=str(prod(factors)))


def contexts(factors: list[int], rng: Random, mistakes: float, rows: int) -> Iterator[tuple[str, MultiplicationState]]:
    """(thought, the state it ends in), up to the state whose S is the product."""
    digits = [str(factor) for factor in factors]
    terms = tuple((sum(map(len, digits[:i])), term) for i, term in enumerate(digits))
    thought, state = opening(terms, rows)
    while True:
        yield thought, state
        if state.todo:
            thought, state = do_rows(state, rng, mistakes, rows)
        elif state.terms:
            thought, state = next_term(state, rows)
        else:
            return


def opening(terms: tuple[tuple[int, str], ...], rows: int) -> tuple[str, MultiplicationState]:
    """Label the terms; the first is the multiplicand, the second the multiplier."""
    (first, highest), *_ = terms
    source = TERMS[first : first + len(highest)][::-1]
    return set_out(labelled_terms(terms), source, highest[::-1], terms[1:], rows)


def next_term(state: MultiplicationState, rows: int) -> tuple[str, MultiplicationState]:
    """The product so far is the next multiplicand."""
    return set_out("", PLACES[: len(state.sum)], state.sum, state.terms, rows)


def set_out(
    head: str, source: str, multiplicand: str, terms: tuple[tuple[int, str], ...], rows: int
) -> tuple[str, MultiplicationState]:
    """Copy the multiplicand and the next term under their new labels: ` a:`, `з7`; the term's with remainders."""
    first, highest = terms[0]
    multiplier, left = highest[::-1], 0
    copied = zip(PLACES, source, multiplicand, strict=False)
    lines = [head, "".join(f" {place}:\n{label}{digit}" for place, label, digit in copied)]
    steps = []
    for i, digit in enumerate(multiplier):
        left = (left + int(digit)) % 9
        steps.append(f" {MULTIPLIER[i]}:\n{TERMS[first + len(multiplier) - 1 - i]}{digit}{left}")
    zeros = "0" * len(multiplier)
    return "\n".join([*lines, "".join(steps)]), MultiplicationState(
        terms[1:], multiplier, zeros, multiplicand, min(rows, len(multiplicand))
    )


def do_rows(state: MultiplicationState, rng: Random, mistakes: float, rows: int) -> tuple[str, MultiplicationState]:
    """The rows before the bar and their check."""
    width, done, count = len(state.multiplier), state.done, state.bar
    multiplier = [(label, digit, int(digit)) for label, digit in zip(MULTIPLIER, state.multiplier, strict=False)]
    wrong = rng.randrange(count * width) if rng.random() < mistakes else -1
    total, left = [*state.sum], remainder(state.sum[done:])
    factor = remainder(state.multiplier)
    lines = [""]
    for row, by in enumerate(state.todo[:count]):
        begin = done + row
        product = int(by) * factor % 9
        after = (product + left) % 9
        steps, carry = [f" {PLACES[begin]}{by}*{factor}~{product}+{left}~{after}"], "0"
        left = after
        for i, (label, digit, value) in enumerate(multiplier):
            place, added = PLACES[begin + i], total[begin + i]
            result = RESULTS[value * int(by) + int(added) + int(carry)]
            shown = added, *result
            if row * width + i == wrong:
                shown, result = slip(shown, value * int(by) + int(carry), rng)
            steps.append(f" {label}{digit}*{by}{place}{shown[0]}+{carry}={shown[1]}{place}{shown[2]}")
            carry, total[begin + i] = result[0], result[1]
        total.append(carry)
        lines.append(f"{''.join(steps)}{PLACES[begin + width]}{carry}")
    found, check = 0, []
    for place in (*range(done + count, len(total)), *range(done, done + count)):
        if place == done:
            check.append(f"~{found}\n")
        found = (found + int(total[place])) % 9
        check.append(f"{PLACES[place]}{total[place]}{found}")
    lines += ["=", f"{''.join(check)}~{found}={left} {'ok' if found == left else 'no'}"]
    thought = "\n".join(lines)
    if found != left:
        return thought, replace(state, bar=count - 1 or min(rows, len(state.todo)))
    todo = state.todo[count:]
    return thought, replace(state, sum="".join(total), todo=todo, bar=min(rows, len(todo)))


def slip(right: tuple[str, ...], product: int, rng: Random) -> tuple[tuple[str, ...], str]:
    """A step gone wrong, with the wrong digit marked, and the result it goes on with.

    right: S's digit and the result's two. S's is misread, or one of the result's is wrong, but not by 9: that would
        leave the remainder as it is.
    product: what S's digit is added to.
    """
    at = rng.randrange(3)
    wrong = rng.choice([digit for digit in "0123456789" if (int(digit) - int(right[at])) % 9])
    read = [*right[:at], wrong, *right[at + 1 :]]
    if at == 0:
        read[1:] = RESULTS[product + int(wrong)]
    return (*read[:at], mistake(wrong), *read[at + 1 :]), "".join(read[1:])


def closing(digits: str) -> str:
    """The product's digits with their labels, highest first: the order of the answer."""
    return "\n" + "".join(f"{PLACES[i]}{digits[i]}" for i in reversed(range(len(digits))))


_STATE = re.compile(r"\*\n((?: \w\d)+)~\d\n((?:\w\d)+)~\d\n((?: \w\d)*)\|[^\n]*\n")
_CHECK = re.compile(r"\n=\n((?:\w\d\d)+)~\d\n((?:\w\d\d)+)~\d=\d (ok|no)")


def tries(reasoning: str) -> list[Try]:
    """The checks in a reasoning, each against the exact sum of the rows that its own state asked for."""
    found = []
    states = list(_STATE.finditer(reasoning))
    for i, state in enumerate(states):
        check = _CHECK.search(reasoning, state.end() - 1, *(after.start() for after in states[i + 1 : i + 2]))
        if check is None:
            continue
        multiplier, before, rows = (re.findall(r"\d", part) for part in state.groups())
        done = len(before) - len(multiplier)
        value = digits_value(before[done:]) + digits_value(rows) * digits_value(multiplier)
        after = [entry[1] for part in (check[2], check[1]) for entry in re.findall(r"\w\d\d", part)]
        found.append(Try(right=digits_value(after) == value, accepted=check[3] == "ok"))
    return found


def digits_value(digits: Iterable[str]) -> int:
    """Digits lowest first."""
    return int("".join(digits)[::-1] or "0")
