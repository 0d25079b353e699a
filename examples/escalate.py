"""A strategy of your own: two quick answers; where they disagree, one answer that is thought about for longer.

ponder ask "What is 4821 * 7093?" --strategy "examples/escalate.py:escalate"
ponder eval mini --suite gym:gcd -n 20 --strategy "examples/escalate.py:escalate(quick='minimal')"
ponder serve mini careful='mini:examples/escalate.py:escalate'
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ponder.sampler.protocol import Sampler
from ponder.tasks.graders import same_value
from ponder.think import Ask, Demand, Event, Ledger, Samples


@dataclass(frozen=True)
class Escalate:
    """Its name is shown in tables and traces."""

    quick: str
    long: str
    name: str = "escalate"

    def demand(self, ask: Ask) -> Demand:
        """Two answers at once, three in all."""
        return Demand(at_once=2, in_all=3)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        """Every sample's events are passed on; the last event is the answer."""
        quick = Samples(ask.override(effort=self.quick), sampler, ledger, 2, temperature=1.0)
        async for event in quick:
            yield event
        answers = quick.completions
        same = ask.same or same_value
        if quick.cut or (len(answers) == 2 and same(answers[0].text, answers[1].text)):
            yield quick.answer(next(iter(answers), None))
            return
        long = Samples(ask.override(effort=self.long), sampler, ledger, 1)
        async for event in long:
            yield event
        yield long.answer(next(iter(long.completions), None))


def escalate(quick: str = "low", long: str = "high") -> Escalate:
    """Called with the arguments of the text: `escalate(quick='minimal')`."""
    return Escalate(quick, long)
