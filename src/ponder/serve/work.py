"""From a request that is read to its answer: a place in the queue, then the sampler, or a strategy over it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace

from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Completion, Delivery, Delta, Done, Request, Streamed
from ponder.serve.admission import Admission
from ponder.serve.errors import ApiError, unsupported
from ponder.serve.models import Models, Served
from ponder.serve.settings import Settings
from ponder.serve.streaming import coalesced
from ponder.think.ask import Ask
from ponder.think.events import completion_of
from ponder.think.registry import parse_strategy
from ponder.think.strategy import NotTaken, Strategy, answer_of
from ponder.types import InvalidRequest, Phase

Items = AsyncGenerator[Streamed, None]
Batches = AsyncGenerator[list[Streamed], None]
Begin = Callable[[], Awaitable[None]]
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
        return self.request.n if self.strategy is None else self.strategy.demand(self.ask).at_once

    @property
    def ask(self) -> Ask:
        return ask_of(self.request, self.deadline)

    @property
    def deadline(self) -> float | None:
        return None if self.request.seconds is None else self.began + self.request.seconds

    @property
    def begun(self) -> Request:
        """The request, with the seconds that are left now."""
        return begun(self.request, self.began)

    async def prompt_tokens(self) -> int:
        """The prompt's length as the queue counts it, control tokens left out."""
        return await self.served.sampler.count(self.request.prompt)


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
    ):
        if not taken:
            raise unsupported(name, "cannot be set beside a strategy")
    try:
        strategy = parse_strategy(text, files=False)
        samples = strategy.demand(ask_of(request)).in_all
    except NotTaken as error:
        raise ApiError(400, str(error), param=error.field, code="unsupported_parameter") from None
    except InvalidRequest as error:
        raise ApiError(400, str(error), param="strategy", code="invalid_value") from None
    if samples > settings.samples:
        raise ApiError(400, f"strategy asks for {samples} samples: allowed are {settings.samples}", param="strategy")
    return strategy


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
            async with aclosing(work.served.sampler.stream(work.begun)) as stream:
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
    left = work.request.n

    def ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            place.leave()

    try:
        await begin()
        async with aclosing(local.stream(work.begun, Delivery(gather=seconds, ended=ended))) as stream:
            async for item in stream:
                yield [item]
    finally:
        place.leave()


def admitted(models: Models, work: Work) -> AbstractAsyncContextManager[None]:
    """A place among what runs."""
    admission = models.admissions[work.served.name]
    return admission.admit(work.owner, work.prompt_tokens, work.sequences, work.deadline)


async def _by_strategy(work: Work) -> Completion:
    assert work.strategy is not None
    return completion_of(await answer_of(work.strategy, work.ask, work.served.sampler))


def ask_of(request: Request, deadline: float | None = None) -> Ask:
    """A request as a strategy takes it."""
    params = request.params
    return Ask(
        prompt=request.prompt,
        n=request.n,
        thinking=params.thinking if request.effort is None else None,
        effort=request.effort,
        answer_room=params.answer_room or None,
        max_tokens=params.max_tokens,
        temperature=params.temperature or None,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        seed=params.seed,
        stop=request.stop,
        stop_ids=params.stop_ids,
        logit_bias=params.logit_bias,
        top_logprobs=params.top_logprobs,
        logprobs=request.logprobs,
        grammar=request.grammar,
        policy=request.policy,
        truncation=request.truncation,
        deadline=deadline,
    )
