"""Several answers, and the one that a verifier or a judge grades highest, or that the model itself is surest of."""

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
from ponder.think.scoring import certainties, check_certainty, check_logprobs, check_verifier, graded, likelihoods
from ponder.think.strategy import Demand, Strategy, check_inner
from ponder.types import InvalidRequest

TEMPERATURE = 1.0
CHOICES = ("verifier", "likelihood", "self_certainty")


@dataclass(frozen=True, slots=True)
class BestOf:
    """See `best_of`."""

    samples: int
    inner: Strategy | None
    by: str | None
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"best_of@{self.samples}"

    def demand(self, ask: Ask) -> Demand:
        ask = ask.override(**self.settings)
        if self._by(ask) == "verifier":
            check_verifier(ask, self.name, ", or set by='likelihood'")
        checked = self._by(ask) == "verifier"
        return candidates_demand(ask, self.name, self.samples, self.samples, self.inner, checked=checked)

    def _by(self, ask: Ask) -> str:
        return self.by or ("likelihood" if ask.verifier is None and ask.judge is None else "verifier")

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings)
        ask = ask.override(temperature=TEMPERATURE) if ask.temperature is None else ask
        by = self._by(ask)
        if by == "self_certainty":
            check_certainty(sampler)
        aside = by == "verifier" and ask.is_judged
        candidates = Candidates(
            [ask] * self.samples, sampler, ledger, inner=self.inner, at_once=self.samples, aside=aside
        )
        grades: dict[int, Grade] = {}
        async for event in candidates:
            yield event
            if by == "verifier":
                async for each in graded(candidates.arrived, grades, ask, sampler, ledger):
                    yield each
        if by == "self_certainty":
            async for each in certainties(candidates.in_order, grades, sampler, ledger):
                yield each
        elif by == "likelihood":
            check_logprobs(candidates.in_order, sampler)
            for check in likelihoods(candidates.in_order, grades, ledger):
                yield check
        else:
            async for each in graded(candidates.in_order, grades, ask, sampler, ledger):
                yield each
        yield candidates.answer(max(candidates.in_order, key=lambda each: grades[each.sample].score, default=None))


def best_of(
    inner: Strategy | None = None, *, samples: int = 8, by: str | None = None, **settings: Unpack[AskSettings]
) -> BestOf:
    """The best of `samples` answers, drawn at temperature 1 by default; of equal ones the earliest.

    inner: what gives each answer; None: one sample.
    by: "verifier", the ask's verifier or judge; "likelihood", the geometric mean of the probabilities of the answer's
        tokens; "self_certainty", see `ponder.think.scoring.certainties`; None: the verifier or judge where there is
        one, or else the likelihood.
    settings: hold for its samples, whatever the ask says. Raises InvalidRequest for fewer than one sample.
    """
    if samples < 1:
        raise InvalidRequest(f"best_of needs at least 1 sample (got {samples})")
    check_inner(inner)
    if by is not None and by not in CHOICES:
        raise InvalidRequest(f"by of best_of must be one of {', '.join(CHOICES)} (got {by!r})")
    return BestOf(samples, inner, by, checked(settings))
