"""What follows, what is refuted, what is open: facts lead along rules, both ways; then each claim is looked up.

A rule leads from its condition to its result, and from the result not holding to the condition not holding. What is
reached follows; its opposite is refuted; what is reached in neither way is open.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from random import Random

from ponder.tasks.families.logic.statements import (
    CLASSES,
    NAMES,
    Theme,
    as_sentence,
    facts,
    opposite,
    random_rule,
    reached_line,
    results,
)
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem

QUESTION = (
    "These statements are true:\n{statements}\nWhich of these follow, which are refuted, and which are open?\n{claims}"
)
VARIED = (
    "Given:\n{statements}\nSay of each whether it follows, is refuted or is open:\n{claims}",
    "{statements}\nAll of this is so. What follows, what is refuted, what is open?\n{claims}",
)
CLAIM = re.compile(r"([abc])[.:]? (?:is )?(follows|refuted|open)\.?")
FOLLOWS, REFUTED, OPEN = VERDICTS = ("follows", "refuted", "open")


class Follows(ProblemFamily):
    """Two to seven statements, one to three claims; each verdict is as likely."""

    name = "follows"

    def sample(self, rng: Random, level: float) -> Problem:
        size, num_claims = size_at(level, 2, 7), rng.randint(1, 3)
        while (drawn := draw_claims(rng, size, num_claims)) is None:
            pass
        codes, claims = drawn
        theme = Theme.draw(rng, [letter for code in codes + claims for letter in code if letter in NAMES])
        statements = "\n".join(f"{number}. {as_sentence(code, theme, rng)}" for number, code in enumerate(codes, 1))
        asked = "\n".join(f"{name}. {as_sentence(code, theme, rng)}" for name, code in zip("abc", claims, strict=False))
        _, verdicts = find_verdicts(codes, claims)
        return Problem(
            task=self.name,
            question=self.word(rng, (QUESTION,), VARIED).format(statements=statements, claims=asked),
            answer=verdicts_text(verdicts),
            metadata={"codes": codes, "claims": claims},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        codes, claims = problem.metadata["codes"], problem.metadata["claims"]
        lines, _ = find_verdicts(codes, claims)
        head = [f"{number} {code}" for number, code in enumerate(codes, 1)]
        head += [f"{name} {code}" for name, code in zip("abc", claims, strict=False)]
        shown = [noticed_slip(line, r"(?<= )(?:follows|refuted|open)$", VERDICTS, rng) for line in lines]
        return Demonstration(reasoning="\n".join([*head, *shown]), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The share of claims with the right verdict, each said once; the problem's own answer is the prover's."""
        given, wanted = read_verdicts(answer), read_verdicts(problem.answer)
        if given is None or wanted is None or given.keys() != wanted.keys():
            why = f"the answer must give each claim a verdict, such as {verdicts_text([FOLLOWS, OPEN])!r}"
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=why)
        wrong = [name for name in wanted if given[name] != wanted[name]]
        why = f"wrong of {', '.join(wrong)}" if wrong else ""
        return Grade(score=1 - len(wrong) / len(wanted), why=why)

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip() or (read_verdicts(a) is not None and read_verdicts(a) == read_verdicts(b))


def verdicts_text(verdicts: Sequence[str]) -> str:
    return ", ".join(f"{name} {verdict}" for name, verdict in zip("abc", verdicts, strict=False))


def read_verdicts(answer: str) -> dict[str, str] | None:
    """The verdict of each claim; None where the answer says something else, or two things of one claim."""
    parts = [
        re.fullmatch(r"([abc])[.:]? (?:is )?(follows|refuted|open)\.?", part.strip()) for part in answer.split(",")
    ]
    found = [(part[1], part[2]) for part in parts if part is not None]
    return dict(found) if len(found) == len(parts) == len(dict(found)) else None


def find_verdicts(codes: Sequence[str], claims: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines of the working, and the verdict of each claim."""
    lines, reached = [], dict.fromkeys(literal for _, literal in facts(codes))
    lines.append(reached_line("facts", facts(codes)))
    queue = list(reached)
    for head in queue:
        found = list(results(head, codes, backward=True))
        lines.append(reached_line(head, found))
        for _, literal in found:
            if literal not in reached:
                reached[literal] = None
                queue.append(literal)
    verdicts = []
    for name, claim in zip("abc", claims, strict=False):
        by = claim if claim in reached else opposite(claim) if opposite(claim) in reached else "none"
        verdicts.append(FOLLOWS if by == claim else OPEN if by == "none" else REFUTED)
        lines.append(f"{name} {claim}: {by} {verdicts[-1]}")
    return lines, verdicts


def draw_claims(rng: Random, size: int, num_claims: int) -> tuple[list[str], list[str]] | None:
    """Statements that are consistent and claims about them; None where what was drawn did not do."""
    letters = rng.sample(list(rng.choice((NAMES, CLASSES))), min(6, size + 1))
    num_facts = 1 if size < 4 else rng.randint(1, 2)
    codes = [letter + rng.choice("++-") for letter in letters[:num_facts]]
    while len(codes) < size:
        rule = random_rule(rng, letters)
        turned = f"{rule[3]}+:{rule[0]}-" if rule.endswith("-") else rule
        if rule in codes or turned in codes:
            return None
        codes.append(rule)
    rng.shuffle(codes)
    cases = cases_of(codes, letters)
    if not cases:
        return None
    claims = []
    for wanted in (rng.choice(VERDICTS) for _ in range(num_claims)):
        fitting = [
            literal
            for literal in (letter + sign for letter in letters for sign in "+-")
            if literal not in codes and literal not in claims and verdict_in(literal, cases) == wanted
        ]
        if not fitting:
            return None
        claims.append(rng.choice(fitting))
    # Some claims take more than following rules: what follows whether or not something holds. Those are left out.
    if find_verdicts(codes, claims)[1] != [verdict_in(claim, cases) for claim in claims]:
        return None
    return codes, claims


def cases_of(codes: Sequence[str], letters: Sequence[str]) -> list[dict[str, bool]]:
    """All ways in which the statements can be true."""
    rows = (dict(zip(letters, row, strict=True)) for row in product((True, False), repeat=len(letters)))
    return [row for row in rows if all(_is_true(code, row) for code in codes)]


def verdict_in(claim: str, cases: Sequence[dict[str, bool]]) -> str:
    values = {_is_true(claim, case) for case in cases}
    return OPEN if len(values) == 2 else FOLLOWS if values == {True} else REFUTED


def _is_true(code: str, case: dict[str, bool]) -> bool:
    condition, colon, result = code.rpartition(":")
    return case[result[0]] == (result[1] == "+") or (bool(colon) and not case[condition[0]])
