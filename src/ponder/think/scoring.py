"""What an answer is worth: the grade of a verifier, or how sure the model was of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from math import exp
from typing import cast

from ponder.dialogue.messages import Conversation
from ponder.sampler.protocol import Completion, Sampler
from ponder.tasks.protocol import Grade, GradeStatus, MessageVerifier
from ponder.think.ask import Ask
from ponder.think.candidates import Candidate
from ponder.think.events import Cut, Graded
from ponder.think.ledger import Ledger
from ponder.types import GraderError, InvalidRequest, Phase


def check_verifier(ask: Ask, strategy: str, otherwise: str = "") -> None:
    """Raises InvalidRequest for an ask without a verifier. otherwise: what else can be done."""
    if ask.verifier is None:
        raise InvalidRequest(f"{strategy} has no verifier to choose by: give one{otherwise}")


async def graded(
    candidates: Sequence[Candidate], grades: dict[int, Grade], ask: Ask, ledger: Ledger
) -> AsyncGenerator[Graded, None]:
    """Add the verifier's grade of each candidate that has none to `grades`, by its sample. What is empty or was cut off
    gets 0."""
    for candidate in candidates:
        if candidate.sample not in grades:
            made = grades[candidate.sample] = await grade(candidate.completion, ask, ledger)
            yield Graded(candidate.sample, made, ledger.path)


async def grade(completion: Completion, ask: Ask, ledger: Ledger) -> Grade:
    """The grade of the ask's verifier, computed on a separate thread and charged to the ledger. Out of time or
    cancelled, the answer has the grade 0, and the run is stopped."""
    if not completion.answers:
        return Grade(score=0.0, why="no answer")
    if ledger.stopped is not None:
        return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=f"not checked ({ledger.stopped})")
    try:
        async with asyncio.timeout_at(ledger.deadline):
            made = await asyncio.to_thread(_verified, completion, ask)
    except TimeoutError:
        return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=f"not checked ({ledger.stop(Cut.SECONDS)})")
    except asyncio.CancelledError:
        return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=f"not checked ({ledger.take_cancel()})")
    except GraderError as error:
        return Grade(score=0.0, status=GradeStatus.FAILED, why=str(error))
    ledger.charge(made.usage.completion_tokens)
    return made


def _verified(completion: Completion, ask: Ask) -> Grade:
    """Raises InvalidRequest for a prompt of ids where the verifier reads the conversation."""
    verifier = ask.verifier
    assert verifier is not None
    if not isinstance(verifier, MessageVerifier):
        return verifier(completion.text)
    if isinstance(ask.prompt[0], int):
        raise InvalidRequest("the verifier reads the conversation, and the prompt is given as ids: give messages")
    return verifier.grade_message(cast(Conversation, ask.prompt), completion.message)


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


def check_logprobs(candidates: Sequence[Candidate], sampler: Sampler) -> None:
    """Raises InvalidRequest for answers whose tokens' probabilities are not known."""
    if any(each.completion.answers and not each.completion.segments for each in candidates):
        raise InvalidRequest(f"{sampler.name} gives no log-probabilities to choose by: use a local model")
