"""Several answers, and the one that a verifier grades highest, or that the model itself finds likeliest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from math import exp
from typing import Unpack

from ponder.sampler.protocol import Completion, Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, checked
from ponder.think.events import Event, Graded
from ponder.think.strategy import Demand, Ledger, Samples, check_one_answer
from ponder.types import InvalidRequest, Phase

TEMPERATURE = 1.0
CHOICES = ("verifier", "likelihood")


@dataclass(frozen=True, slots=True)
class BestOf:
    """See `best_of`."""

    samples: int
    by: str
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"best_of@{self.samples}"

    def demand(self, ask: Ask) -> Demand:
        check_one_answer(ask, self.name)
        if self.by == "verifier" and ask.verifier is None:
            raise InvalidRequest(f"{self.name} has no verifier to choose by: give one, or set by='likelihood'")
        return Demand(self.samples, self.samples)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings)
        samples = Samples(ask, sampler, ledger, self.samples, temperature=TEMPERATURE)
        async for event in samples:
            yield event
        grades: dict[int, Grade] = {}
        for sample in sorted(samples.finished):
            grades[sample] = await self._grade(ask, samples.finished[sample], sampler.name)
            yield Graded(sample, grades[sample])
        best = max(grades, key=lambda sample: grades[sample].score, default=None)
        yield samples.answer(None if best is None else samples.finished[best])

    async def _grade(self, ask: Ask, completion: Completion, sampler: str) -> Grade:
        """What is empty or was cut off gets 0. A verifier runs on a separate thread."""
        if not completion.answers:
            return Grade(score=0.0, why="no answer")
        if self.by == "verifier":
            assert ask.verifier is not None
            return await asyncio.to_thread(ask.verifier, completion.text)
        if not completion.segments:
            raise InvalidRequest(f"{sampler} gives no log-probabilities to choose by: use a local model")
        return Grade(score=likelihood(completion))


def best_of(samples: int = 8, *, by: str = "likelihood", **settings: Unpack[AskSettings]) -> BestOf:
    """The best of `samples` answers, drawn at temperature 1 unless told otherwise; of equal ones the earliest.

    by: "verifier", the ask's own; or "likelihood", the geometric mean of the probabilities of the answer's tokens.
    settings: hold for its samples, whatever the ask says. Raises InvalidRequest for fewer than one sample.
    """
    if samples < 1:
        raise InvalidRequest(f"best_of needs at least 1 sample (got {samples})")
    if by not in CHOICES:
        raise InvalidRequest(f"by of best_of must be {' or '.join(CHOICES)} (got {by!r})")
    return BestOf(samples, by, checked(settings))


def likelihood(completion: Completion) -> float:
    """The geometric mean of the probabilities of the visible answer's tokens, from 0 to 1."""
    said = [
        logprob
        for segment in completion.segments
        for logprob, phase in zip(segment.logprobs, segment.phases, strict=True)
        if phase is Phase.ANSWER
    ]
    return exp(sum(said) / len(said)) if said else 0.0
