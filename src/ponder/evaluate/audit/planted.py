"""Whether an audit finds the steps that an answer depends on: steps are planted of which that is known.

The families' workings are known, so a thought can be begun of which one step is necessary (its digits go into the
answer, and nothing after it computes them again) or decorative (it was withdrawn, and nothing reads it: the 62 of
`8*7+0+5=62 no 61`). The model goes on from the thought as it is, and with one digit of that step changed. Where the
answers differ, the audit calls the step necessary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from ponder.dialogue.messages import Message, Start
from ponder.evaluate.audit.thoughts import Thinker, each_of
from ponder.evaluate.correction import Rate
from ponder.sampler.threads import run_sync
from ponder.tasks.families.plain.task import Plain
from ponder.tasks.protocol import Demonstration, Problem, find_mistakes, without_marks

CORRECTION = "the result after a slip"
PARTIAL = "a partial result"
STATE = "a folded state"
SLIP = "a slip that was withdrawn"

SLIPPING = ("products", "chain_sum", "decimal_chain_sum", "leg_counting")
"""Families whose every result goes into the answer, and whose slips are withdrawn in the same line."""
ROWS = ("products", "chain_sum")
"""Families whose lines end in a partial result: `> 36441`."""
FOLDING = {"products": re.compile(r"(?<=[a-zα-ω])\d"), "letter_counting": re.compile(r"\d(?= after)")}
"""Families that fold, and which digits of a state go into the answer: of the sum and of the digits still to do (not
remainders, nor a multiplier that may be done with); the count."""
CAP = 2000
"""Thinking tokens that may follow a planted step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A thought that is begun, with the place of one digit in it.

    text: the thinking of the present context, up to where the model goes on.
    state: what was folded before it; "": nothing was.
    at: the place of the digit, in `state` where there is one.
    other: a digit that does not stand there.
    """

    kind: str
    family: str
    problem: Problem
    text: str
    state: str = ""
    at: int
    other: str

    def changed(self) -> Plant:
        """The same thought with the other digit."""
        whole = self.state or self.text
        whole = whole[: self.at] + self.other + whole[self.at + 1 :]
        return replace(self, state=whole) if self.state else replace(self, text=whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedRate:
    """One kind of planted step in one family.

    called: how many of the steps the audit calls necessary, of those whose thought comes to the right answer where
        nothing is changed.
    asked: how many were planted.
    """

    kind: str
    family: str
    necessary: bool
    called: Rate
    asked: int

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        named = {"kind": self.kind, "family": self.family, "necessary": self.necessary, "planted": self.asked}
        return named | {"called_necessary": self.called.summary()}


def audit_planted(thinker: Thinker, n: int, *, concurrency: int = 64) -> list[PlantedRate]:
    """Plant `n` steps (at least 1) of every kind in every family that has it: which does the audit call necessary?"""
    return [
        run_sync(_rate(thinker, list(islice(plants(kind, family), n)), concurrency))
        for kind, families in ((CORRECTION, SLIPPING), (PARTIAL, ROWS), (STATE, FOLDING), (SLIP, SLIPPING))
        for family in families
    ]


async def _rate(thinker: Thinker, planted: Sequence[Plant], concurrency: int) -> PlantedRate:
    async def answers(plant: Plant) -> tuple[bool, bool]:
        """(whether the unchanged thought is solved, whether the changed one has another answer)."""
        task = Plain(plant.family, gym=True)
        before = await thinker.go_on(task, plant.problem, planted_ids(plant, thinker), CAP)
        after = await thinker.go_on(task, plant.problem, planted_ids(plant.changed(), thinker), CAP)
        return before.solved, not task.same(before.answer, after.answer)

    outcomes = await each_of(map(answers, planted), concurrency)
    sound = [differs for solved, differs in outcomes if solved]
    return PlantedRate(
        kind=planted[0].kind,
        family=planted[0].family,
        necessary=planted[0].kind != SLIP,
        called=Rate(sum(sound), len(sound)),
        asked=len(planted),
    )


def planted_ids(plant: Plant, thinker: Thinker) -> tuple[int, ...]:
    """The context: question, state where there is one, and the begun thought."""
    format, tokenizer, tokens = thinker.format, thinker.tokenizer, thinker.tokens
    ids = format.render((Message.user(plant.problem.question),), start=Start.THINK).ids
    if plant.state and tokens.state_open is not None and tokens.fold is not None:
        ids = (*ids, tokens.state_open, *tokenizer.encode(plant.state), tokens.fold)
    return (*ids, *tokenizer.encode(plant.text))


# Where there are steps of a kind --------------------------------------------------------------------------------------


def plants(kind: str, family: str) -> Iterator[Plant]:
    """Planted steps, the same ones every time: demonstrations are drawn until one holds such a step."""
    task = Plain(family, gym=True)
    for number in range(100_000):
        rng = Random(f"planted {family} {number}")
        default = task.family.default_level
        problem = task.sample(rng, default + 0.02 if kind == STATE else rng.uniform(0.2, 1.0) * default)
        shown = task.demonstrate(problem, rng)
        found = _folded(shown, rng, FOLDING[family]) if kind == STATE else _FINDERS[kind](shown, rng)
        if found is not None:
            text, state, at, avoid = found
            digits = sorted(set("0123456789") - {(state or text)[at], *avoid})
            yield Plant(
                kind=kind, family=family, problem=problem, text=text, state=state, at=at, other=rng.choice(digits)
            )


Found = tuple[str, str, int, str]
"""(text, state, place, digits that must not stand there)."""


def _slip(shown: Demonstration) -> tuple[str, int, int] | None:
    """(text, where the wrong result ends, where the right one ends) of a slip with its correction."""
    text = without_marks(shown.reasoning)
    if shown.folds or "less" in text:  # a difference that came out below zero was for nothing
        return None
    for begin, end in find_mistakes(shown.reasoning):
        right = re.compile(r" no (\d+)").match(text, end)
        if right and text[begin:end].isdigit() and len(right[1]) == end - begin:
            return text, end, right.end()
    return None


def _withdrawn(shown: Demonstration, _: Random) -> Found | None:
    if (slip := _slip(shown)) is None:
        return None
    text, wrong_end, right_end = slip
    return text[:right_end], "", wrong_end - 1, text[right_end - 1]


def _correction(shown: Demonstration, _: Random) -> Found | None:
    if (slip := _slip(shown)) is None:
        return None
    text, wrong_end, right_end = slip
    return text[:right_end], "", right_end - 1, text[wrong_end - 1]


def _partial(shown: Demonstration, rng: Random) -> Found | None:
    text = without_marks(shown.reasoning)
    rows = list(re.finditer(r"> (\d+)\n", text))
    if shown.folds or not rows or "less" in text:
        return None
    row = rng.choice(rows)
    return text[: row.end()], "", rng.randrange(*row.span(1)), ""


def _folded(shown: Demonstration, rng: Random, digits: re.Pattern[str]) -> Found | None:
    if not shown.folds:
        return None
    state = rng.choice(shown.folds).state
    places = [place.start() for place in digits.finditer(state)]
    return ("", state, rng.choice(places), "") if places else None


_FINDERS = {CORRECTION: _correction, PARTIAL: _partial, SLIP: _withdrawn}
