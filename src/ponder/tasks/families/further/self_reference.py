"""Statements about their own truth: each number of true ones from 0 to 7 is supposed, and all seven are looked at.

`3 true 4 false: at least 2 T, … 4 no` supposes three, and finds four true. Where as many are found as supposed, there
is a solution, and the solutions are numbered.
"""

from __future__ import annotations

import re
from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.graders import numeric
from ponder.tasks.protocol import Demonstration, Grade, Problem

PRIME, COMPOSITE = (2, 3, 5, 7), (4, 6)
STATEMENTS = 7


class SelfReference(FromGym):
    """Seven statements of one pattern with other numbers; all levels (and the hard config) are alike."""

    name = gym_name = "self_reference"

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        bounds = bounds_of(problem.question)
        lines, found = [], 0
        for supposed in range(STATEMENTS + 1):
            texts, values = _looked_at(supposed, bounds)
            holds = sum(values) == supposed
            found += holds
            verdict = f"yes {found}" if holds else "no"
            line = f"{supposed} true {STATEMENTS - supposed} false: {', '.join(texts)}: {sum(values)} {verdict}"
            lines.append(noticed_slip(line, "(?<= )[TF](?=[,:])", "TF", rng))
        return Demonstration(reasoning="\n".join([*lines, str(found)]), answer=str(found))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return numeric(problem.answer, answer)


def bounds_of(question: str) -> list[int]:
    """The numbers of the first four statements: at least, at most, exactly true, exactly false."""
    return [int(n) for n in re.findall(r"(?:At least|At most|Exactly) (\d)", question)]


def _looked_at(supposed: int, bounds: list[int]) -> tuple[list[str], list[bool]]:
    """Each statement as it is looked at with its value, where `supposed` statements are true."""
    least, most, exactly_true, exactly_false = bounds
    false = STATEMENTS - supposed
    third, fourth = supposed == exactly_true, false == exactly_false
    values = [supposed >= least, false <= most, third, fourth, third != fourth, supposed in PRIME, false in COMPOSITE]
    whats = (
        f"{supposed} at least {least}", f"{false} at most {most}", f"{supposed} is {exactly_true}",
        f"{false} is {exactly_false}", "one", f"{supposed} prime", f"{false} composite",
    )  # fmt: skip
    return [f"{what} {'T' if value else 'F'}" for what, value in zip(whats, values, strict=True)], values
