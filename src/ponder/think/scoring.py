"""What an answer is worth: the grade of a verifier or a judge, or how sure the model was of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from math import exp
from typing import cast

from ponder.dialogue.messages import Conversation
from ponder.sampler.protocol import Completion, Sampler
from ponder.tasks.protocol import Grade, GradeStatus, MessageVerifier, StepVerifier
from ponder.think.ask import Ask
from ponder.think.candidates import Candidate
from ponder.think.events import Cut, Event, Graded
from ponder.think.judging import Judgement
from ponder.think.ledger import Ledger
from ponder.types import GraderError, InvalidRequest, Phase, Usage


def check_verifier(ask: Ask, strategy: str, otherwise: str = "") -> None:
    """Raises InvalidRequest for an ask with neither a verifier nor a judge. otherwise: what else can be done."""
    if ask.verifier is None and ask.judge is None:
        raise InvalidRequest(f"{strategy} has no verifier to choose by: give one, or a judge{otherwise}")
    if ask.is_judged and isinstance(ask.prompt[0], int):
        raise InvalidRequest(f"{strategy} has a judge, which needs a conversation: ids were given")


async def graded(
    candidates: Sequence[Candidate], grades: dict[int, Grade], ask: Ask, sampler: Sampler, ledger: Ledger
) -> AsyncGenerator[Event, None]:
    """Add the verifier's grade of each candidate that has none to `grades`, by its sample, or, without a verifier, the
    judge's. What is empty or was cut off gets 0.

    sampler: what gave the answers.
    """
    for candidate in candidates:
        if candidate.sample in grades:
            continue
        if ask.verifier is not None:
            made = await grade(candidate.completion, ask, ledger)
        else:
            judgement = Judgement(candidate.completion, ask, sampler, ledger)
            async for event in judgement:
                yield event
            made = judgement.grade
        grades[candidate.sample] = made
        yield Graded(candidate.sample, made, ledger.path)


async def grade(completion: Completion, ask: Ask, ledger: Ledger) -> Grade:
    """The grade of the ask's verifier, computed on a separate thread and charged to the ledger."""

    async def checked() -> Grade:
        try:
            return await asyncio.to_thread(_verified, completion, ask)
        except GraderError as error:
            return Grade(score=0.0, status=GradeStatus.FAILED, why=str(error))

    made = await _in_time(completion, checked, ledger)
    ledger.charge(made.usage.completion_tokens)
    return made


async def _in_time(completion: Completion, work: Callable[[], Awaitable[Grade]], ledger: Ledger) -> Grade:
    """The grade of an answer. Out of time or cancelled, it is 0, and the run is stopped."""
    if not completion.answers:
        return Grade(score=0.0, why="no answer")
    if ledger.stopped is not None:
        return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=f"not checked ({ledger.stopped})")
    try:
        async with asyncio.timeout_at(ledger.deadline):
            return await work()
    except TimeoutError:
        return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=f"not checked ({ledger.stop(Cut.SECONDS)})")
    except asyncio.CancelledError:
        return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=f"not checked ({ledger.take_cancel()})")


async def certainties(
    candidates: Sequence[Candidate], grades: dict[int, Grade], sampler: Sampler, ledger: Ledger
) -> AsyncGenerator[Event, None]:
    """As `graded`, with the self-certainty c of the whole completion (arXiv 2502.18581) as the score c / (1 + c): how
    far the model's distributions were from uniform, in nats a token. The sampler reads the tokens once more for it."""
    for candidate in candidates:
        if candidate.sample in grades:
            continue

        async def measured(completion: Completion = candidate.completion) -> Grade:
            total, read = 0.0, 0
            for segment in completion.segments:
                ids = (*segment.prompt_ids, *segment.ids)
                total += len(segment.ids) * await sampler.certainty(ids, len(segment.prompt_ids))
                read += len(ids)
            certainty = total / sum(len(segment.ids) for segment in completion.segments)
            return Grade(score=certainty / (1 + certainty), usage=Usage(prompt_tokens=read))

        made = grades[candidate.sample] = await _in_time(candidate.completion, measured, ledger)
        yield Graded(candidate.sample, made, ledger.path)


def _verified(completion: Completion, ask: Ask) -> Grade:
    """Raises InvalidRequest for a prompt of ids where the verifier reads the conversation."""
    verifier = ask.verifier
    assert verifier is not None
    if not isinstance(verifier, MessageVerifier):
        return verifier(completion.text)
    if isinstance(ask.prompt[0], int):
        raise InvalidRequest("the verifier reads the conversation, and the prompt is given as ids: give messages")
    return verifier.grade_message(cast(Conversation, ask.prompt), completion.message)


async def grade_thought(thought: str, ask: Ask, otherwise: Grade) -> Grade:
    """The grade of an unfinished thought by a verifier of steps; another verifier's is that of the answer it led to."""
    verifier = ask.verifier
    if not isinstance(verifier, StepVerifier) or isinstance(ask.prompt[0], int):
        return otherwise
    return await asyncio.to_thread(verifier.grade_thought, cast(Conversation, ask.prompt), thought)


def likelihoods(candidates: Sequence[Candidate], grades: dict[int, Grade], ledger: Ledger) -> Iterator[Graded]:
    """As `graded`, with `likelihood` in place of a verifier."""
    for candidate in candidates:
        if candidate.sample not in grades:
            answers = candidate.completion.answers
            score = likelihood(candidate.completion) if answers else 0.0
            made = grades[candidate.sample] = Grade(score=score, why="" if answers else "no answer")
            yield Graded(candidate.sample, made, ledger.path)


def likelihood(completion: Completion) -> float:
    """The geometric mean of the probabilities of the visible answer's tokens, from 0 to 1."""
    said = [
        logprob
        for segment in completion.segments
        for logprob, phase in zip(segment.logprobs, segment.phases, strict=True)
        if phase is Phase.ANSWER
    ]
    return exp(sum(said) / len(said)) if said else 0.0


def check_certainty(sampler: Sampler) -> None:
    """Raises InvalidRequest for a sampler that cannot measure self-certainty."""
    if not sampler.capabilities.scores:
        raise InvalidRequest(f"{sampler.name} cannot measure self-certainty: use a local model without quantize")


def check_logprobs(candidates: Sequence[Candidate], sampler: Sampler) -> None:
    """Raises InvalidRequest for answers whose tokens' probabilities are not known."""
    if any(each.completion.answers and not each.completion.segments for each in candidates):
        raise InvalidRequest(f"{sampler.name} gives no log-probabilities to choose by: use a local model")
