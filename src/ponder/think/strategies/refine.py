"""An answer that is checked, and where it is wrong goes back to the step with the error and takes another way."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Unpack, cast

from ponder.dialogue.messages import Conversation, Message
from ponder.sampler.protocol import NextTurn, Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, Judge, checked
from ponder.think.candidates import Candidate, Candidates, candidates_demand
from ponder.think.events import Event
from ponder.think.ledger import Ledger
from ponder.think.samples import Samples, answer_from
from ponder.think.scoring import check_verifier, graded
from ponder.think.steps import ThoughtStep, find_step, go_on_from, steps_of, with_thought
from ponder.think.strategy import Demand, Strategy, check_inner
from ponder.types import InvalidRequest

TEMPERATURE = 1.0
COMPLAINT = "This answer was checked and is wrong{why}.{step} Go back to the error, try another way, and answer again."


@dataclass(frozen=True, slots=True)
class Refine:
    """See `refine`."""

    samples: int
    inner: Strategy | None
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"refine@{self.samples}"

    def demand(self, ask: Ask) -> Demand:
        ask = ask.override(**self.settings)
        check_verifier(ask, self.name)
        if ask.is_judged and isinstance(ask.judge, Judge):
            raise InvalidRequest(
                f"{self.name} needs a judge that is another model (got {ask.judge.value!r}): a model that looks at its "
                "own answer makes more right ones wrong than wrong ones right (arXiv 2310.01798)"
            )
        draft = candidates_demand(ask, self.name, 1, 1, self.inner, checked=True)
        return replace(draft, in_all=draft.in_all + (self.samples - 1) * (2 if ask.is_judged else 1))

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings)
        draft = Candidates([ask], sampler, ledger, inner=self.inner, aside=ask.is_judged)
        async for event in draft:
            yield event
        tries = [Draft(each, ask) for each in draft.in_order]
        grades: dict[int, Grade] = {}
        async for check in graded(draft.in_order, grades, ask, sampler, ledger):
            yield check
        drawn = 1 if self.inner is None else self.inner.demand(ask).in_all
        while tries and not _solved(tries, grades) and len(tries) < self.samples and ledger.cut is None:
            best = _best(tries, grades)
            seed = None if ask.seed is None else ask.seed + drawn + len(tries) - 1
            again, before = _again(ask, best, grades[best.sample], seed, sampler)
            samples = Samples(again, sampler, ledger, 1)
            async for event in samples:
                yield event
            (number,) = samples.finished
            made = Candidate(number, with_thought(samples.finished[number], before))
            tries.append(Draft(made, again, before))
            async for check in graded([made], grades, ask, sampler, ledger):
                yield check
        cut = ledger.cut if len(tries) < self.samples and not _solved(tries, grades) else ledger.stopped
        chosen = _best(tries, grades).candidate.completion if tries else None
        yield answer_from([each.candidate.completion for each in tries], chosen, cut=cut)


@dataclass(slots=True)
class Draft:
    """An answer on the way.

    asked: what it is the answer to; of one that went on from a thought, with that thought in its prompt.
    before: what that thought says.
    redone: the steps that were gone back to already, by their first tokens.
    """

    candidate: Candidate
    asked: Ask
    before: str = ""
    redone: set[int] = field(default_factory=set)

    @property
    def sample(self) -> int:
        return self.candidate.sample


def _best(tries: list[Draft], grades: dict[int, Grade]) -> Draft:
    """The try with the highest grade, of equal ones the earliest: a verified answer is never replaced."""
    return max(tries, key=lambda each: grades[each.sample].score)


def _solved(tries: list[Draft], grades: dict[int, Grade]) -> bool:
    return any(grades[each.sample].solved for each in tries)


def _again(ask: Ask, best: Draft, grade: Grade, seed: int | None, sampler: Sampler) -> tuple[Ask, str]:
    """What is asked after a failed check, and the thought that it goes on from: that before the wrong step, or, of
    samplers without tokens, none: they read what is wrong and answer again."""
    completion = best.candidate.completion
    hotter = ask.override(temperature=ask.temperature or TEMPERATURE, seed=seed, next_turn=NextTurn.NONE)
    step = _step_to_redo(best, grade, sampler)
    if step is not None:
        said = (each.text for each in steps_of(completion, sampler.capabilities) if each.first < step.first)
        asked = go_on_from(best.asked, completion, step, sampler.capabilities)
        asked = asked.override(temperature=hotter.temperature, seed=seed, next_turn=NextTurn.NONE)
        return asked, best.before + "".join(said)
    if completion.segments or not completion.answers or isinstance(ask.prompt[0], int):
        return hotter, ""
    why = f": {grade.why}" if grade.why else ""
    named = f" The error is in: {grade.wrong_step}" if grade.wrong_step else ""
    complaint = Message.user(COMPLAINT.format(why=why, step=named))
    draft = Message.assistant(completion.text)
    return replace(hotter, prompt=(*cast(Conversation, ask.prompt), draft, complaint)), ""


def _step_to_redo(best: Draft, grade: Grade, sampler: Sampler) -> ThoughtStep | None:
    """The step that the check names, or else the one that the model was least sure of; none is redone twice. None:
    there is none left, or the sampler has no tokens to go on from."""
    steps = [
        step for step in steps_of(best.candidate.completion, sampler.capabilities) if step.first not in best.redone
    ]
    if not steps:
        return None
    step = find_step(steps, grade.wrong_step) or min(steps, key=lambda each: each.sureness)
    best.redone.add(step.first)
    return step


def refine(inner: Strategy | None = None, *, samples: int = 4, **settings: Unpack[AskSettings]) -> Refine:
    """An answer, and as long as the ask's verifier, or a judge that is another model, finds it wrong, up to
    `samples` - 1 more tries from the wrong step.

    The step is the one that the verifier names (`Grade.wrong_step`), or else the one that the model was least sure of.
    An answer that the verifier accepts is given at once. It does not run without a verifier: a model that only looks at
    its own answer makes more right ones wrong than wrong ones right (arXiv 2310.01798).
    inner: what gives the first answer; None: one sample.
    settings: hold for its samples, whatever the ask says. Raises InvalidRequest for fewer than two samples.
    """
    if samples < 2:
        raise InvalidRequest(f"samples of refine must be at least 2 (got {samples}): the first one is the draft")
    check_inner(inner)
    return Refine(samples, inner, checked(settings))
