"""`POST /v1/chat/completions`."""

from __future__ import annotations

from contextlib import aclosing

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.serve.answering import Pieces, Tally, answer_pieces, served_ask, whole_answer, with_memory
from ponder.serve.chat.convert import ChatWriter, Chunks, read_chat
from ponder.serve.chat.wire import CHAT_ANSWERS, ChatRequest, ChunkChoice
from ponder.serve.http.exchange import (
    HOLE,
    Events,
    EventStreamResponse,
    Template,
    answered,
    event,
    owner_of,
    state_of,
    tally_of,
)

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None, responses=CHAT_ANSWERS)
async def chat_completions(body: ChatRequest, http: HttpRequest) -> Response:
    """An answer to a conversation, whole or, with `stream`, as it comes."""
    state, owner = state_of(http), owner_of(http)
    models, settings = state.models, state.settings
    served = models.get(body.model)
    task = served_ask(read_chat(body, served, settings, owner), served, owner, settings, body.strategy, models)
    if body.memory:
        task = with_memory(task, state.memory)
    writer, tally = ChatWriter(body, served), tally_of(http, served)
    if body.stream:
        pieces = answer_pieces(models, task, gather=settings.coalesce / 1000)
        return EventStreamResponse(_events(pieces, writer, tally, include_usage=body.include_usage))

    async def whole() -> Response:
        completions = await whole_answer(models, task)
        tally.end(completions)
        return JSONResponse(writer.whole(completions))

    return await answered(http, whole())


async def _events(pieces: Pieces, writer: ChatWriter, tally: Tally, *, include_usage: bool) -> Events:
    """Chunks, the bill, and [DONE]."""
    chunks = Chunks(writer)
    templates: dict[tuple[int, str], Template] = {}

    def written(choice: ChunkChoice) -> bytes:
        (field, text), *others = choice["delta"].items() or [("", None)]
        if others or not isinstance(text, str) or field == "role" or choice["logprobs"]:
            return event(writer.chunk([choice]))
        key = (choice["index"], field)
        if key not in templates:
            templates[key] = Template(writer.chunk([{**choice, "delta": {field: HOLE}}]))  # type: ignore[misc]
        return templates[key].fill(text)

    async with aclosing(pieces):
        async for piece in pieces:
            tally.first_token()
            if written_now := b"".join(map(written, chunks.choices(piece))):
                yield written_now
    tally.end(chunks.done)
    if include_usage:
        yield event(writer.bill(chunks.done))
    yield b"data: [DONE]\n\n"
