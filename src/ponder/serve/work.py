"""From a request that is read to its answer: a place in the queue, then the sampler, or a strategy over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ponder.dialogue import Message
from ponder.sampler.local import LocalSampler, is_long, texts_of
from ponder.sampler.protocol import Completion, Delta, Done, Request, Streamed
from ponder.serve.admission import Admission
from ponder.serve.errors import ApiError, unsupported
from ponder.serve.models import Models, Served
from ponder.serve.settings import Settings
from ponder.serve.streaming import coalesced
from ponder.think.parse import parse_strategy
from ponder.think.protocol import Question, Strategy
from ponder.types import Answer, Budget, InvalidRequest, Phase, SamplingParams

Items = AsyncGenerator[Streamed, None]
Batches = AsyncGenerator[list[Streamed], None]
Begin = Callable[[], Awaitable[None]]
BYTES_PER_TOKEN = 4  # of a model behind another server, whose tokens cannot be counted here
LEAST_SECONDS = 1e-3  # what a request is given that got its place just in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be computed, for whom. strategy: None: the sampler alone. The request's seconds count from `began`, on
    the clock of `time.monotonic`: waiting for a place is part of them."""

    served: Served
    owner: str
    request: Request
    strategy: Strategy | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def sequences(self) -> int:
        """How many run at once."""
        return self.request.n if self.strategy is None else getattr(self.strategy, "samples", 1)

    @property
    def deadline(self) -> float | None:
        return None if self.request.seconds is None else self.began + self.request.seconds

    @property
    def begun(self) -> Request:
        """The request, with the seconds that are left now."""
        return begun(self.request, self.began)

    async def prompt_tokens(self) -> int:
        """The prompt's length as the queue counts it, control tokens left out."""
        prompt, tokenizer, local = self.request.prompt, self.served.tokenizer, self.served.local
        if prompt and isinstance(prompt[0], int):
            return len(prompt)
        texts = texts_of(prompt)
        if tokenizer is None:
            return sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN
        if local is not None and local.workers is not None and is_long(prompt):
            encoded = asyncio.get_running_loop().run_in_executor(local.workers, tokenizer.encode_batch, texts)
            return sum(map(len, await encoded))
        return sum(map(len, tokenizer.encode_batch(texts)))


def begun(request: Request, began: float) -> Request:
    """A request that came at `began`, with the seconds that are left of its own."""
    if request.seconds is None:
        return request
    return replace(request, seconds=max(LEAST_SECONDS, began + request.seconds - time.monotonic()))


def strategy_of(text: str | None, request: Request, effort: str | None, settings: Settings) -> Strategy | None:
    """The strategy that a request names, given its settings. Raises ApiError for one that is unknown, asks for more
    samples than this server allows, or stands beside a parameter that strategies do not take."""
    if text is None:
        return None
    for name, taken in (
        ("n", request.n == 1),
        ("stop", not request.stop),
        ("tools", not request.tools),
        *((name, getattr(request.params, name) == getattr(SamplingParams(), name)) for name in UNTAKEN),
    ):
        if not taken:
            raise unsupported(name, "cannot be set beside a strategy")
    params = request.params
    try:
        strategy = parse_strategy(
            text,
            temperature=params.temperature or None,
            seed=params.seed,
            max_tokens=params.max_tokens,
            thinking=None if effort is not None else params.thinking,
            effort=effort,
            answer_room=params.answer_room or None,
        )
    except InvalidRequest as error:
        raise ApiError(400, str(error), param="strategy", code="invalid_value") from None
    samples = getattr(strategy, "samples", 1)
    if samples > settings.samples:
        raise ApiError(400, f"strategy asks for {samples} samples: allowed are {settings.samples}", param="strategy")
    return strategy


UNTAKEN = ("top_p", "top_k", "min_p", "stop_ids", "logit_bias", "top_logprobs")


async def _at_once() -> None:
    pass


async def completions(models: Models, work: Work) -> list[Completion]:
    """The answers, all at once."""
    async with admitted(models, work):
        if work.strategy is not None:
            return [await _by_strategy(work)]
        return await work.served.sampler.sample(work.begun)


async def items(models: Models, work: Work, begin: Begin = _at_once) -> Items:
    """The answers as they come. A strategy shows nothing before it is done. begin: called once there is a place."""
    async with admitted(models, work):
        await begin()
        if work.strategy is None:
            async with aclosing(cast(Items, work.served.sampler.stream(work.begun))) as stream:
                async for item in stream:
                    yield item
            return
        completion = await _by_strategy(work)
        for phase, text in ((Phase.THINK, completion.reasoning), (Phase.ANSWER, completion.text)):
            if text:
                yield Delta(0, phase, text)
        yield Done(0, completion)


def batches(models: Models, work: Work, seconds: float, begin: Begin = _at_once) -> Batches:
    """`items`, gathered: the first at once, each later one at most `seconds` after it came, an end at once. The place
    is left when the model is done, however slowly the answer is read."""
    local = work.served.local
    if work.strategy is None and local is not None:
        return _local_batches(models.admissions[work.served.name], local, work, seconds, begin)
    return coalesced(items(models, work, begin), seconds, lambda item: isinstance(item, Done))


async def _local_batches(
    admission: Admission, local: LocalSampler, work: Work, seconds: float, begin: Begin
) -> Batches:
    place = await admission.enter(work.owner, work.prompt_tokens, work.sequences, work.deadline)
    try:
        await begin()
        async with aclosing(local.batches(work.begun, seconds, place.leave)) as stream:
            async for batch in stream:
                yield batch
    finally:
        place.leave()


def admitted(models: Models, work: Work) -> AbstractAsyncContextManager[None]:
    """A place among what runs."""
    admission = models.admissions[work.served.name]
    return admission.admit(work.owner, work.prompt_tokens, work.sequences, work.deadline)


async def _by_strategy(work: Work) -> Completion:
    assert work.strategy is not None
    request = work.begun
    question = Question(
        conversation=cast(Any, request.prompt),
        policy=request.policy,
        truncation=request.truncation,
        grammar=request.grammar,
    )
    answer = await work.strategy(question, work.served.sampler, Budget(seconds=request.seconds))
    return completion_of(answer)


def completion_of(answer: Answer) -> Completion:
    """An answer as a completion, with the whole bill of what was spent on it."""
    message = answer.trace.get("message")
    if not isinstance(message, Message):
        message = Message.assistant(answer.text, answer.reasoning)
    dropped = answer.trace.get("dropped_turns", 0)
    return Completion(
        message=message,
        stop_reason=answer.stop_reason,
        usage=answer.usage,
        dropped_turns=dropped if isinstance(dropped, int) else 0,
    )
