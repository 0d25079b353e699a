"""`POST /v1/chat/completions`."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.sampler.protocol import Completion, Delta, Done
from ponder.serve import work
from ponder.serve.chat.answer import ANSWERS
from ponder.serve.chat.read import read_request
from ponder.serve.chat.schema import ChatRequest
from ponder.serve.chat.write import Writer, finish_reason, usage
from ponder.serve.state import owner_of, state_of
from ponder.serve.streaming import Events, EventStream, answered, event
from ponder.serve.tally import Tally
from ponder.types import Phase, Usage

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None, responses=ANSWERS)
async def chat_completions(body: ChatRequest, http: HttpRequest) -> Response:
    """An answer to a conversation, whole or, with `stream`, as it comes."""
    state, owner = state_of(http), owner_of(http)
    served = state.models.get(body.model)
    request = read_request(body, served, state.settings, owner)
    strategy = work.strategy_of(body.strategy, request, body.reasoning_effort, state.settings)
    task = work.Work(served=served, owner=owner, request=request, strategy=strategy)
    writer, tally = Writer(body, served), Tally(http, state, served.name)
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        batches = work.batches(state.models, task, state.settings.coalesce / 1000)
        return EventStream(_chunks(batches, writer, tally, include_usage))

    async def whole() -> Response:
        completions = await work.completions(state.models, task)
        tally.end(completions)
        return JSONResponse(writer.whole(completions))

    return await answered(http, whole())


async def _chunks(batches: work.Batches, writer: Writer, tally: Tally, include_usage: bool) -> Events:
    """`chat.completion.chunk`s: the role first, then pieces, then each choice's end, the bill, and [DONE]."""
    begun: set[int] = set()
    done: list[Completion] = []
    async with aclosing(batches):
        async for batch in batches:
            more: dict[str, Any] = {"usage": None} if include_usage else {}
            choices = _choices(batch, begun, done, writer, tally)
            if choices:
                yield b"".join(event(writer.chunk([choice], **more)) for choice in choices)
    tally.end(done)
    if include_usage:
        yield event(writer.chunk([], usage=usage(sum((each.usage for each in done), Usage()))))
    yield b"data: [DONE]\n\n"


def _choices(
    batch: list[Delta | Done], begun: set[int], done: list[Completion], writer: Writer, tally: Tally
) -> list[dict[str, Any]]:
    """What a batch of items says, neighbouring pieces of one field joined."""
    choices: list[dict[str, Any]] = []
    for item in batch:
        tally.first_token()
        if item.index not in begun:
            begun.add(item.index)
            choices.append(_choice(item.index, {"role": "assistant", "content": "", "refusal": None}))
        if isinstance(item, Done):
            done.append(item.completion)
            choices += _ending(item, writer)
            continue
        field = writer.reasoning_field if item.phase is Phase.THINK else "content"
        if field is None:
            continue
        last = choices[-1] if choices else None
        if last and last["index"] == item.index and set(last["delta"]) == {field}:
            last["delta"][field] += item.text
        else:
            choices.append(_choice(item.index, {field: item.text}))
    return choices


def _ending(item: Done, writer: Writer) -> list[dict[str, Any]]:
    """Tool calls and log-probabilities, which come with the end; then the reason for it."""
    ends = []
    calls = writer.calls(item.completion)
    if calls:
        ends.append(_choice(item.index, {"tool_calls": [{"index": at, **call} for at, call in enumerate(calls)]}))
    logprobs = writer.logprobs(item.completion)
    if logprobs is not None:
        ends.append({**_choice(item.index, {}), "logprobs": logprobs})
    return [*ends, {**_choice(item.index, {}), "finish_reason": finish_reason(item.completion)}]


def _choice(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
