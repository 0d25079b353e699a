"""`POST /v1/chat/completions`."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.serve import work
from ponder.serve.chat.answer import ANSWERS
from ponder.serve.chat.chunks import Chunks
from ponder.serve.chat.read import read_request
from ponder.serve.chat.schema import ChatRequest
from ponder.serve.chat.write import Writer, usage
from ponder.serve.state import owner_of, state_of
from ponder.serve.streaming import HOLE, Events, EventStream, Template, answered, event
from ponder.serve.tally import Tally
from ponder.types import Usage

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
        batches = work.batches(state.models, task, state.settings.coalesce / 1000)
        return EventStream(_events(batches, writer, tally, body.include_usage))

    async def whole() -> Response:
        completions = await work.completions(state.models, task)
        tally.end(completions)
        return JSONResponse(writer.whole(completions))

    return await answered(http, whole())


async def _events(batches: work.Batches, writer: Writer, tally: Tally, include_usage: bool) -> Events:
    """Chunks, the bill, and [DONE]."""
    chunks = Chunks(writer)
    more: dict[str, Any] = {"usage": None} if include_usage else {}
    templates: dict[tuple[int, str], Template] = {}

    def told(choice: dict[str, Any]) -> bytes:
        (field, text), *others = choice["delta"].items() or [("", None)]
        if others or not isinstance(text, str) or field == "role" or choice["logprobs"]:
            return event(writer.chunk([choice], **more))
        key = (choice["index"], field)
        if key not in templates:
            templates[key] = Template(writer.chunk([{**choice, "delta": {field: HOLE}}], **more))
        return templates[key].fill(text)

    async with aclosing(batches):
        async for batch in batches:
            tally.first_token()
            choices = chunks.choices(batch)
            if choices:
                yield b"".join(map(told, choices))
    tally.end(chunks.done)
    if include_usage:
        yield event(writer.chunk([], usage=usage(sum((each.usage for each in chunks.done), Usage()))))
    yield b"data: [DONE]\n\n"
