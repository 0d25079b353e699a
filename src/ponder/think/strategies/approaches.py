"""Several different ways are proposed first, each is followed by itself, and the best answer is taken."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Unpack

from ponder.sampler.protocol import NextTurn, Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, checked
from ponder.think.candidates import AT_ONCE, Candidates, candidates_demand
from ponder.think.events import Event, Planned, Voted
from ponder.think.ledger import Ledger
from ponder.think.samples import Samples
from ponder.think.scoring import graded
from ponder.think.strategy import Demand, Strategy, check_inner
from ponder.think.voting import count_votes, margin_of, same_answer
from ponder.types import InvalidRequest

TEMPERATURE = 1.0
PROPOSE = "Name {ways} different ways to solve this, one on each line, a few words each. Do not solve it yet."
FOLLOW = "Solve it in this way: {way}"
NUMBERED = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s*")


@dataclass(frozen=True, slots=True)
class Approaches:
    """See `approaches`."""

    ways: int
    inner: Strategy | None
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"approaches@{self.ways}"

    def demand(self, ask: Ask) -> Demand:
        if isinstance(ask.prompt[0], int):
            raise InvalidRequest(f"{self.name} adds to the question, so it needs a conversation: ids were given")
        ask = ask.override(**self.settings)
        followed = candidates_demand(ask, self.name, self.ways, AT_ONCE, self.inner, checked=True)
        return replace(followed, in_all=followed.in_all + 1)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings)
        ask = ask.override(temperature=TEMPERATURE) if ask.temperature is None else ask
        proposal = replace(ask.adding(PROPOSE.format(ways=self.ways)), grammar=None, stop=(), next_turn=NextTurn.NONE)
        planning = ledger.slice(self.ways + 1)
        plan = Samples(proposal, sampler, planning, 1, role="plan")
        async for event in plan:
            yield event
        planning.refund()
        ways = distinct_ways(plan.completions[0].text, self.ways)
        yield Planned(ways, ledger.path)
        if ledger.cut is not None:
            yield plan.answer()
            return
        asks = [ask.adding(FOLLOW.format(way=way)) for way in ways] + [ask] * (self.ways - len(ways))
        chooses = ask.verifier is not None or ask.is_judged
        candidates = Candidates(asks, sampler, ledger, inner=self.inner, aside=ask.is_judged)
        grades: dict[int, Grade] = {}
        async for event in candidates:
            yield event
            if chooses:
                async for check in graded(candidates.arrived, grades, ask, sampler, ledger):
                    yield check
        if chooses:
            async for check in graded(candidates.in_order, grades, ask, sampler, ledger):
                yield check
            yield candidates.answer(max(candidates.in_order, key=lambda each: grades[each.sample].score, default=None))
            return
        votes = count_votes(candidates.in_order, ask.same or same_answer)
        margin = margin_of(votes)
        yield Voted(votes, margin, ledger.path)
        won = next((each for each in candidates.in_order if votes and each.sample == votes[0].samples[0]), None)
        yield candidates.answer(won, votes=votes, margin=margin)


def distinct_ways(text: str, most: int) -> tuple[str, ...]:
    """The lines of a proposal, without numbers and bullets, each once, at most `most`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        way = NUMBERED.sub("", line).strip()
        if way:
            found.setdefault(way.casefold(), way)
    return tuple(found.values())[:most]


def approaches(inner: Strategy | None = None, *, ways: int = 3, **settings: Unpack[AskSettings]) -> Approaches:
    """The best of several answers, each found in another of `ways` ways that the model names first.

    The best is the one that the ask's verifier or judge grades highest, or, without one, the one that most agree on.
    Where the model names fewer ways, the rest is answered without one.
    inner: what follows each way; None: one sample.
    settings: hold for its samples, whatever the ask says. Raises InvalidRequest for fewer than two ways.
    """
    if ways < 2:
        raise InvalidRequest(f"ways of approaches must be at least 2 (got {ways})")
    check_inner(inner)
    return Approaches(ways, inner, checked(settings))
