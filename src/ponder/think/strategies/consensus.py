"""Several answers, and the one that most of them agree on (self-consistency, arXiv 2203.11171)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TypeVar, Unpack

from ponder.sampler.protocol import Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, checked
from ponder.think.candidates import AT_ONCE, Candidate, Candidates, candidates_demand
from ponder.think.confidence import WINDOW, stopping_below, was_given_up
from ponder.think.events import Event, Voted
from ponder.think.ledger import Ledger
from ponder.think.scoring import certainties, check_certainty, check_logprobs, check_verifier, graded, likelihood
from ponder.think.strategy import Demand, Strategy, check_inner
from ponder.think.voting import StopRule, Weigh, count_votes, is_enough, margin_of, same_answer
from ponder.types import InvalidRequest

TEMPERATURE = 1.0


class Weight(StrEnum):
    """What a sample counts in the vote.

    COUNT: one.
    LIKELIHOOD: how likely the model found its own answer.
    SELF_CERTAINTY: by its rank r from the most certain of n on, (n - r + 1) ** 0.5 (Borda, arXiv 2502.18581).
    VERIFIER: the grade of the ask's verifier or judge.
    """

    COUNT = "count"
    LIKELIHOOD = "likelihood"
    SELF_CERTAINTY = "self_certainty"
    VERIFIER = "verifier"


@dataclass(frozen=True, slots=True)
class Consensus:
    """See `consensus`."""

    samples: int
    inner: Strategy | None
    rule: StopRule
    weight: Weight
    at_once: int
    confidence: float | None
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"consensus@{self.samples}"

    def demand(self, ask: Ask) -> Demand:
        ask = self._asked(ask)
        if self.weight is Weight.VERIFIER:
            check_verifier(ask, self.name)
        checked = self.weight is Weight.VERIFIER
        return candidates_demand(ask, self.name, self.samples, self.at_once, self.inner, checked=checked)

    def _asked(self, ask: Ask) -> Ask:
        """What each sample is asked. Raises InvalidRequest where they would all be the same."""
        ask = ask.override(**self.settings)
        _check_temperature(ask.temperature, self.samples)
        return ask.override(temperature=TEMPERATURE) if ask.temperature is None else ask

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask, capabilities = self._asked(ask), sampler.capabilities
        if self.confidence is not None:
            ask = stopping_below(ask, self.confidence, WINDOW, capabilities)
        same = ask.same or same_answer

        def voters(candidates: Sequence[Candidate]) -> list[Candidate]:
            if self.confidence is None:
                return list(candidates)
            return [each for each in candidates if not was_given_up(each.completion, ask, capabilities)]

        def enough(candidates: Sequence[Candidate]) -> bool:
            return is_enough(self.rule, count_votes(voters(candidates), same), self.samples - len(candidates))

        if self.weight is Weight.SELF_CERTAINTY:
            check_certainty(sampler)
        aside = self.weight is Weight.VERIFIER and ask.is_judged
        candidates = Candidates(
            [ask] * self.samples, sampler, ledger, inner=self.inner, at_once=self.at_once, enough=enough, aside=aside
        )
        grades: dict[int, Grade] = {}
        async for event in candidates:
            yield event
            if self.weight is Weight.VERIFIER:
                async for each in graded(candidates.arrived, grades, ask, sampler, ledger):
                    yield each
        weigh: Weigh | None = None
        if self.weight is Weight.LIKELIHOOD:
            check_logprobs(candidates.in_order, sampler)
            weigh = _likelihood
        elif self.weight is Weight.SELF_CERTAINTY:
            async for each in certainties(candidates.in_order, grades, sampler, ledger):
                yield each
            weigh = partial(_grade, borda(grades))
        elif self.weight is Weight.VERIFIER:
            async for each in graded(candidates.in_order, grades, ask, sampler, ledger):
                yield each
            weigh = partial(_grade, grades)
        votes = count_votes(voters(candidates.in_order), same, weigh)
        margin = margin_of(votes)
        yield Voted(votes, margin, ledger.path)
        won = next((each for each in candidates.in_order if votes and each.sample == votes[0].samples[0]), None)
        yield candidates.answer(won, votes=votes, margin=margin)


def _likelihood(candidate: Candidate) -> float:
    return likelihood(candidate.completion)


def _grade(grades: dict[int, Grade], candidate: Candidate) -> float:
    return grades[candidate.sample].score


def borda(grades: Mapping[int, Grade], power: float = 0.5) -> dict[int, Grade]:
    """Grades by rank: the highest of n gets n ** `power`, the lowest 1; see `Weight`. Equal ones rank by their
    samples."""
    ranked = sorted(grades, key=lambda sample: (-grades[sample].score, sample))
    return {sample: Grade(score=(len(ranked) - place) ** power) for place, sample in enumerate(ranked)}


def consensus(
    inner: Strategy | None = None,
    *,
    samples: int = 8,
    until: StopRule | str | None = None,
    weight: Weight | str = Weight.COUNT,
    at_once: int = AT_ONCE,
    confidence: float | None = None,
    **settings: Unpack[AskSettings],
) -> Consensus:
    """The majority of at most `samples` answers, drawn at temperature 1 by default.

    What is empty or was cut off does not vote; a tie goes to the earliest sample. Answers count in the order of their
    seeds, so the same seed gives the same answer however fast each sample is.
    inner: what gives each answer; None: one sample.
    until: see `StopRule`; None: "predict", or "all" where answers are weighed.
    weight: see `Weight`.
    at_once: how many are under way together where a rule may stop early.
    confidence: a sample whose confidence falls below this while it thinks is ended and does not vote; see
        `ponder.think.confidence`.
    settings: hold for its samples, whatever the ask says.
    Raises InvalidRequest for fewer than one sample, and for a rule beside weights, which it does not know.
    """
    if samples < 1 or at_once < 1:
        raise InvalidRequest(f"consensus needs at least 1 sample (got {samples}), and 1 at once (got {at_once})")
    check_inner(inner)
    _check_temperature(settings.get("temperature"), samples)
    weight = _named(Weight, weight, "weight")
    rule = _named(StopRule, until or (StopRule.PREDICT if weight is Weight.COUNT else StopRule.ALL), "until")
    if rule is not StopRule.ALL and weight is not Weight.COUNT:
        raise InvalidRequest(f"consensus cannot stop by {rule} beside weight={weight.value!r}: set until='all'")
    if rule is StopRule.ALL and inner is None:
        at_once = samples
    return Consensus(samples, inner, rule, weight, at_once, confidence, checked(settings))


Named = TypeVar("Named", bound=StrEnum)


def _named(kind: type[Named], text: str, field: str) -> Named:
    try:
        return kind(text)
    except ValueError:
        raise InvalidRequest(f"{field} of consensus must be one of {', '.join(kind)} (got {str(text)!r})") from None


def _check_temperature(temperature: float | None, samples: int) -> None:
    if temperature == 0 and samples > 1:
        raise InvalidRequest("consensus at temperature 0 draws the same answer every time: raise temperature")
