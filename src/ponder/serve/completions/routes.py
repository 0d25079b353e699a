"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.dialogue import Message
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import CallDelta, Completion, Delta, Done
from ponder.serve.chat.write import usage
from ponder.serve.completions.answer import ANSWERS
from ponder.serve.completions.read import Prompt, read_prompts
from ponder.serve.completions.schema import CompletionRequest
from ponder.serve.completions.write import Scores, Writer
from ponder.serve.models import Models, Served
from ponder.serve.state import owner_of, state_of
from ponder.serve.streaming import Events, EventStream, answered, coalesced, event
from ponder.serve.tally import Tally
from ponder.serve.work import begun
from ponder.types import StopReason, Usage

router = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Prompts to go on from, for one owner."""

    models: Models
    served: Served
    owner: str
    prompts: list[Prompt]
    n: int
    began: float = field(default_factory=time.monotonic)

    @property
    def sampler(self) -> LocalSampler:
        return cast(LocalSampler, self.served.local)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """One place for all of it."""
        admission = self.models.admissions[self.served.name]
        async with admission.admit(self.owner, self.prompt_tokens, len(self.prompts) * self.n, self.deadline):
            yield

    @property
    def deadline(self) -> float | None:
        """On the clock of `time.monotonic`: all prompts have the same."""
        request = self.prompts[0].request
        return None if request is None or request.seconds is None else self.began + request.seconds

    async def prompt_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.prompts)


@router.post("/v1/completions", response_model=None, responses=ANSWERS)
async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
    """Continuations of one or several prompts, whole or, with `stream`, as they come."""
    state, owner = state_of(http), owner_of(http)
    served = state.models.get(body.model)
    prompts = await asyncio.to_thread(read_prompts, body, served, state.settings, owner)
    work = Work(models=state.models, served=served, owner=owner, prompts=prompts, n=body.n)
    writer, tally = Writer(body, served, work.sampler.tokenizer), Tally(http, state, served.name)
    if body.stream:
        return EventStream(_chunks(work, writer, tally, body.include_usage, state.settings.coalesce / 1000))

    async def whole() -> Response:
        async with work.admitted():
            results = await _each(work)
        done = [completion for _, completions in results for completion in completions]
        tally.end(done)
        choices = [
            writer.choice(number * body.n + index, prompt, completion, scores)
            for number, (prompt, (scores, completions)) in enumerate(zip(prompts, results, strict=True))
            for index, completion in enumerate(completions)
        ]
        return JSONResponse(writer.whole(choices, done))

    return await answered(http, whole())


async def _each(work: Work) -> list[tuple[Scores | None, list[Completion]]]:
    """Every prompt's scores and completions. Where one fails, the others are given up."""
    async with _failing_as_one(), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_one(work, prompt)) for prompt in work.prompts]
    return [task.result() for task in tasks]


async def _one(work: Work, prompt: Prompt) -> tuple[Scores | None, list[Completion]]:
    scores = await _scores(work, prompt)
    if prompt.request is None:
        return scores, _nothing(work, prompt)
    return scores, await work.sampler.sample(begun(prompt.request, work.began))


async def _scores(work: Work, prompt: Prompt) -> Scores | None:
    return None if prompt.top is None else await work.sampler.score(prompt.ids, prompt.top)


def _nothing(work: Work, prompt: Prompt) -> list[Completion]:
    """What no tokens at all come to."""
    bills = [Usage(prompt_tokens=len(prompt.ids))] + [Usage()] * (work.n - 1)
    return [Completion(message=Message.assistant(""), stop_reason=StopReason.LENGTH, usage=bill) for bill in bills]


# Streamed ------------------------------------------------------------------------------------------------------------

Item = tuple[int, Prompt, Scores | None, Delta | Done | None]  # None: the prompt itself


async def _chunks(work: Work, writer: Writer, tally: Tally, include_usage: bool, seconds: float) -> Events:
    """Pieces of text, each choice's end, the bill, and [DONE]."""
    done: list[Completion] = []
    more = {"usage": None} if include_usage else {}
    async with aclosing(coalesced(_items(work), seconds, lambda item: isinstance(item[3], Done))) as batches:
        async for batch in batches:
            tally.first_token()
            texts: dict[int, str] = {}
            choices = []
            for index, prompt, scores, item in batch:
                if isinstance(item, Done):
                    done.append(item.completion)
                    if texts.get(index):
                        choices.append(writer.piece(index, texts.pop(index)))
                    choices.append(writer.ending(index, prompt, item.completion, scores))
                else:
                    text = writer.echoed(prompt) if item is None else item.text
                    texts[index] = texts.get(index, "") + text
            choices += [writer.piece(index, text) for index, text in texts.items() if text]
            for choice in choices:
                yield event(writer.chunk([choice], **more))
    tally.end(done)
    if include_usage:
        yield event(writer.chunk([], usage=usage(sum((each.usage for each in done), Usage()))))
    yield b"data: [DONE]\n\n"


async def _items(work: Work) -> AsyncGenerator[Item, None]:
    """What the prompts' streams give, as it comes."""
    inbox: asyncio.Queue[Item | None] = asyncio.Queue()

    async def feed(number: int, prompt: Prompt) -> None:
        scores, first = await _scores(work, prompt), number * work.n
        for index in range(first, first + work.n):
            inbox.put_nowait((index, prompt, scores, None))
        if prompt.request is None:
            for index, completion in enumerate(_nothing(work, prompt)):
                inbox.put_nowait((first + index, prompt, scores, Done(index, completion)))
            return
        request = begun(prompt.request, work.began)
        async with aclosing(work.sampler.stream(request)) as stream:
            async for item in stream:
                assert not isinstance(item, CallDelta)  # ToolChoice.NONE: no call can begin
                inbox.put_nowait((first + item.index, prompt, scores, item))

    async def feed_all() -> None:
        try:
            async with _failing_as_one(), asyncio.TaskGroup() as group:
                for number, prompt in enumerate(work.prompts):
                    group.create_task(feed(number, prompt))
        finally:
            inbox.put_nowait(None)

    async with work.admitted():
        feeding = asyncio.ensure_future(feed_all())
        try:
            while (item := await inbox.get()) is not None:
                yield item
            await feeding
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])


@asynccontextmanager
async def _failing_as_one() -> AsyncIterator[None]:
    """The first error of a group, by itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
