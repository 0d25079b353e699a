"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.dialogue import Message
from ponder.sampler.delivery import gathered
from ponder.sampler.protocol import Completion, Delivery, Delta, Done, Streamed
from ponder.serve.answering import Ended, Pieces, ServedAsk, Tally, admitted, completions_of, running, served_ask
from ponder.serve.completions.convert import Scores, TextPrompt, TextWriter, read_prompts
from ponder.serve.completions.wire import TEXT_ANSWERS, CompletionRequest
from ponder.serve.http.exchange import (
    Events,
    EventStreamResponse,
    ServerState,
    answered,
    event,
    owner_of,
    state_of,
    tally_of,
)
from ponder.serve.models import Models, Served
from ponder.think.strategy import Demand
from ponder.types import Phase, StopReason, Usage

router = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTask:
    """Prompts to go on from, for one owner.

    asks: of each prompt; None: nothing is sampled after it.
    """

    models: Models
    served: Served
    owner: str
    prompts: list[TextPrompt]
    asks: list[ServedAsk | None]
    n: int

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Ended]:
        """One place for all of it."""
        asks = [ask for ask in self.asks if ask is not None]
        at_once = sum(ask.demand.at_once for ask in asks) or len(self.prompts) * self.n
        demand = Demand(at_once, sum(ask.demand.in_all for ask in asks))
        deadline = asks[0].ask.deadline if asks else None
        async with admitted(self.models, self.served, self.owner, demand, self._count, deadline) as ended:
            yield ended

    async def _count(self) -> int:
        return sum(len(prompt.ids) for prompt in self.prompts)


@router.post("/v1/completions", response_model=None, responses=TEXT_ANSWERS)
async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
    """Continuations of one or several prompts, whole or, with `stream`, as they come."""
    state, owner = state_of(http), owner_of(http)
    task = await asyncio.to_thread(_read, body, state, owner)
    writer, tally = TextWriter(body, task.served), tally_of(http, task.served)
    if body.stream:
        items = _items(task, writer, state.settings.coalesce / 1000)
        return EventStreamResponse(_chunks(items, writer, tally, include_usage=body.include_usage))

    async def whole() -> Response:
        async with task.admitted() as ended:
            results = await _each(task, ended)
        done = [completion for _, completions in results for completion in completions]
        tally.end(done)
        choices = [
            writer.choice(number * task.n + index, prompt, completion, scores)
            for number, (prompt, (scores, completions)) in enumerate(zip(task.prompts, results, strict=True))
            for index, completion in enumerate(completions)
        ]
        return JSONResponse(writer.whole(choices, done))

    return await answered(http, whole())


def _read(body: CompletionRequest, state: ServerState, owner: str) -> TextTask:
    served = state.models.get(body.model)
    prompts = read_prompts(body, served, state.settings, owner)
    asks = [None if prompt.ask is None else served_ask(prompt.ask, served, owner, state.settings) for prompt in prompts]
    return TextTask(models=state.models, served=served, owner=owner, prompts=prompts, asks=asks, n=body.n)


async def _each(task: TextTask, ended: Ended) -> list[tuple[Scores | None, list[Completion]]]:
    """Every prompt's scores and completions. Where one fails, the others are given up."""

    async def one(prompt: TextPrompt, ask: ServedAsk | None) -> tuple[Scores | None, list[Completion]]:
        scores = await _scores(task, prompt)
        if ask is None:
            return scores, _nothing(task, prompt)
        async with running(ask, Delivery(deltas=False, ended=ended)) as pieces:
            return scores, await completions_of(pieces)

    async with _failing_as_one(), asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(*each)) for each in zip(task.prompts, task.asks, strict=True)]
    return [each.result() for each in tasks]


async def _scores(task: TextTask, prompt: TextPrompt) -> Scores | None:
    return None if prompt.top is None else await task.served.sampler.score(prompt.ids, prompt.top)


def _nothing(task: TextTask, prompt: TextPrompt) -> list[Completion]:
    """The completions of no tokens at all."""
    bills = [Usage(prompt_tokens=len(prompt.ids))] + [Usage()] * (task.n - 1)
    return [Completion(message=Message.assistant(""), stop_reason=StopReason.LENGTH, usage=bill) for bill in bills]


# Streamed -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    """A piece of choice `index`."""

    index: int
    prompt: TextPrompt
    scores: Scores | None
    piece: Streamed


_Items = AsyncGenerator[_Item, None]


async def _chunks(items: _Items, writer: TextWriter, tally: Tally, *, include_usage: bool) -> Events:
    """Pieces of text, each choice's end, the bill, and [DONE]."""
    done: list[Completion] = []
    async with aclosing(items):
        async for item in items:
            tally.first_token()
            if isinstance(item.piece, Done):
                done.append(item.piece.completion)
                yield event(writer.chunk([writer.ending(item.index, item.prompt, item.piece.completion, item.scores)]))
            elif isinstance(item.piece, Delta) and item.piece.text:  # without tools no call can begin
                yield event(writer.chunk([writer.piece(item.index, item.piece.text)]))
    tally.end(done)
    if include_usage:
        yield event(writer.bill(done))
    yield b"data: [DONE]\n\n"


async def _items(task: TextTask, writer: TextWriter, gather: float) -> _Items:
    """What the prompts' streams give, as it comes."""
    async with task.admitted() as ended:
        streams = [_follow(task, number, writer, gather, ended) for number in range(len(task.prompts))]
        async with aclosing(_merged(streams)) as items:
            async for item in items:
                yield item


async def _follow(task: TextTask, number: int, writer: TextWriter, gather: float, ended: Ended) -> _Items:
    """The pieces of prompt `number`. An echo is the first of them, so then they are gathered here."""
    prompt, ask = task.prompts[number], task.asks[number]
    scores, echo = await _scores(task, prompt), writer.echoed(prompt)
    delivery = Delivery(gather=0.0 if echo else gather, ended=ended)

    async def echoed() -> Pieces:
        for index in range(task.n if echo else 0):
            yield Delta(index, Phase.ANSWER, echo)
        if ask is None:
            for index, completion in enumerate(_nothing(task, prompt)):
                yield Done(index, completion)
            return
        async with running(ask, delivery) as pieces:
            async for piece in pieces:
                yield piece

    async with aclosing(gathered(echoed(), gather if echo else 0.0)) as pieces:
        async for piece in pieces:
            yield _Item(number * task.n + piece.index, prompt, scores, piece)


async def _merged(streams: Sequence[_Items]) -> _Items:
    """Several streams as one. Where one fails, the others are given up."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as items:
            async for item in items:
                yield item
        return
    queue: asyncio.Queue[_Item | None] = asyncio.Queue()

    async def feed(stream: _Items) -> None:
        async with aclosing(stream) as items:
            async for item in items:
                queue.put_nowait(item)

    async def feed_all() -> None:
        try:
            async with _failing_as_one(), asyncio.TaskGroup() as group:
                for stream in streams:
                    group.create_task(feed(stream))
        finally:
            queue.put_nowait(None)

    feeding = asyncio.ensure_future(feed_all())
    try:
        while (taken := await queue.get()) is not None:
            yield taken
        await feeding
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


@asynccontextmanager
async def _failing_as_one() -> AsyncIterator[Any]:
    """The first error of a group, by itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
