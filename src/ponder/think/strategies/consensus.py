"""Several answers, and the one that most of them agree on (self-consistency, arXiv 2203.11171)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Unpack

from ponder.sampler.protocol import Completion, Sampler
from ponder.tasks.graders import same_value
from ponder.think.ask import Ask, AskSettings, Same, checked
from ponder.think.events import Event, Vote, Voted
from ponder.think.strategy import Demand, Ledger, Samples, check_one_answer
from ponder.types import InvalidRequest

TEMPERATURE = 1.0


@dataclass(frozen=True, slots=True)
class Consensus:
    """See `consensus`."""

    samples: int
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"consensus@{self.samples}"

    def demand(self, ask: Ask) -> Demand:
        ask = ask.override(**self.settings)
        _check_temperature(ask.temperature, self.samples)
        check_one_answer(ask, self.name)
        return Demand(self.samples, self.samples)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings)
        samples = Samples(ask, sampler, ledger, self.samples, temperature=TEMPERATURE)
        async for event in samples:
            yield event
        finished = samples.finished
        votes = count_votes(finished, ask.same or same_value)
        voters, sizes = sum(vote.count for vote in votes), [vote.count for vote in votes] + [0, 0]
        margin = (sizes[0] - sizes[1]) / voters if voters else 0.0
        yield Voted(votes, margin)
        chosen = finished[votes[0].samples[0]] if votes else next(iter(samples.completions), None)
        yield samples.answer(chosen, votes=votes, margin=margin)


def consensus(samples: int = 8, **settings: Unpack[AskSettings]) -> Consensus:
    """The majority of `samples` answers, drawn at temperature 1 unless told otherwise.

    What is empty or was cut off does not vote; a tie goes to the earliest sample.
    settings: hold for its samples, whatever the ask says. Raises InvalidRequest for fewer than one sample.
    """
    if samples < 1:
        raise InvalidRequest(f"consensus needs at least 1 sample (got {samples})")
    _check_temperature(settings.get("temperature"), samples)
    return Consensus(samples, checked(settings))


def _check_temperature(temperature: float | None, samples: int) -> None:
    if temperature == 0 and samples > 1:
        raise InvalidRequest("consensus at temperature 0 draws the same answer every time: raise temperature")


def count_votes(completions: Mapping[int, Completion], same: Same) -> tuple[Vote, ...]:
    """Completions that came to an answer, each grouped with the first that it agrees with; the largest group first, of
    equal ones that of the earliest sample."""
    groups: list[list[int]] = []
    for sample in sorted(completions):
        if not completions[sample].answers:
            continue
        for group in groups:
            if same(completions[group[0]].text, completions[sample].text):
                group.append(sample)
                break
        else:
            groups.append([sample])
    groups.sort(key=lambda group: (-len(group), group[0]))
    return tuple(Vote(completions[group[0]].text, tuple(group)) for group in groups)
