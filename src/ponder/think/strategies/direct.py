"""One answer, thought about as long as the effort allows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Unpack

from ponder.sampler.protocol import Sampler
from ponder.think.ask import Ask, AskSettings, checked
from ponder.think.events import Event
from ponder.think.ledger import Ledger
from ponder.think.samples import Samples
from ponder.think.strategy import Demand


@dataclass(frozen=True, slots=True)
class Direct:
    """See `direct`."""

    settings: AskSettings
    name: str = "direct"

    def demand(self, ask: Ask) -> Demand:
        n = ask.override(**self.settings).n
        return Demand(n, n)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings)
        samples = Samples(ask, sampler, ledger, ask.n, are_choices=True)
        async for event in samples:
            yield event
        yield samples.answer(next(iter(samples.completions), None))


def direct(**settings: Unpack[AskSettings]) -> Direct:
    """One sample (`n` of them for an ask of more), greedy unless told otherwise; an endpoint's own default there.

    settings: hold for its samples, whatever the ask says. Raises InvalidRequest for both an effort and
    `thinking`.
    """
    return Direct(checked(settings))
