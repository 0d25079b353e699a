"""Several answers, and the one that a verifier grades highest, or that the model itself finds likeliest."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Unpack

from ponder.sampler.protocol import Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, checked
from ponder.think.candidates import Candidates, candidates_demand
from ponder.think.events import Event
from ponder.think.ledger import Ledger
from ponder.think.scoring import check_logprobs, check_verifier, graded, likelihoods
from ponder.think.strategy import Demand, Strategy, check_inner
from ponder.types import InvalidRequest

TEMPERATURE = 1.0
CHOICES = ("verifier", "likelihood")


@dataclass(frozen=True, slots=True)
class BestOf:
    """See `best_of`."""

    samples: int
    inner: Strategy | None
    by: str
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"best_of@{self.samples}"

    def demand(self, ask: Ask) -> Demand:
        ask = ask.override(**self.settings)
        if self.by == "verifier":
            check_verifier(ask, self.name, ", or set by='likelihood'")
        return candidates_demand(ask, self.name, self.samples, self.samples, self.inner)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings)
        ask = ask.override(temperature=TEMPERATURE) if ask.temperature is None else ask
        candidates = Candidates([ask] * self.samples, sampler, ledger, inner=self.inner, at_once=self.samples)
        grades: dict[int, Grade] = {}
        async for event in candidates:
            yield event
            if self.by == "verifier":
                async for each in graded(candidates.arrived, grades, ask, ledger):
                    yield each
        if self.by == "likelihood":
            check_logprobs(candidates.in_order, sampler)
            for check in likelihoods(candidates.in_order, grades, ledger):
                yield check
        else:
            async for each in graded(candidates.in_order, grades, ask, ledger):
                yield each
        yield candidates.answer(max(candidates.in_order, key=lambda each: grades[each.sample].score, default=None))


def best_of(
    inner: Strategy | None = None, *, samples: int = 8, by: str = "likelihood", **settings: Unpack[AskSettings]
) -> BestOf:
    """The best of `samples` answers, drawn at temperature 1 by default; of equal ones the earliest.

    inner: what gives each answer; None: one sample.
    by: "verifier", the ask's own; or "likelihood", the geometric mean of the probabilities of the answer's tokens.
    settings: hold for its samples, whatever the ask says. Raises InvalidRequest for fewer than one sample.
    """
    if samples < 1:
        raise InvalidRequest(f"best_of needs at least 1 sample (got {samples})")
    check_inner(inner)
    if by not in CHOICES:
        raise InvalidRequest(f"by of best_of must be {' or '.join(CHOICES)} (got {by!r})")
    return BestOf(samples, inner, by, checked(settings))
