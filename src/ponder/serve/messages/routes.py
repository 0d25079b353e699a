"""`POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.serve.answering import Pieces, Tally, answer_pieces, served_ask, whole_answer
from ponder.serve.common.convert import total_usage
from ponder.serve.http.exchange import Events, EventStreamResponse, answered, event, owner_of, state_of, tally_of
from ponder.serve.messages.convert import MessageWriter, count_tokens, read_messages_request
from ponder.serve.messages.wire import COUNT_ANSWERS, MESSAGE_ANSWERS, CountRequest, MessagesRequest

router = APIRouter(prefix="/v1/messages")


@router.post("", response_model=None, responses=MESSAGE_ANSWERS)
async def messages(body: MessagesRequest, http: HttpRequest) -> Response:
    """An answer to a conversation, whole or, with `stream`, as events."""
    state, owner = state_of(http), owner_of(http)
    models, settings = state.models, state.settings
    served = models.get(body.model)
    task = served_ask(
        read_messages_request(body, served, settings, owner), served, owner, settings, body.strategy, models
    )
    writer, tally = MessageWriter(body, served), tally_of(http, served)
    if body.stream:
        pieces = answer_pieces(models, task, gather=settings.coalesce / 1000)
        return EventStreamResponse(_events(pieces, partial(count_tokens, body, served), writer, tally))

    async def whole() -> Response:
        completions = await whole_answer(models, task)
        tally.end(completions)
        counted = total_usage(completions) is not None
        return JSONResponse(writer.whole(completions[0], 0 if counted else await count_tokens(body, served)))

    return await answered(http, whole())


@router.post("/count_tokens", response_model=None, responses=COUNT_ANSWERS)
async def count_message_tokens(body: CountRequest, http: HttpRequest) -> Response:
    """How many tokens a conversation takes as a prompt."""
    return JSONResponse({"input_tokens": await count_tokens(body, state_of(http).models.get(body.model))})


async def _events(pieces: Pieces, count: Callable[[], Awaitable[int]], writer: MessageWriter, tally: Tally) -> Events:
    """count: finds the length of the prompt, while the answer begins."""
    begun, counting = False, asyncio.ensure_future(count())
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                tally.first_token()
                prompt_tokens = await counting
                events = [*([] if begun else [writer.start(prompt_tokens)]), *writer.events(piece, prompt_tokens)]
                begun = True
                if events:
                    yield b"".join(event(each, each["type"]) for each in events)
        tally.end(writer.done)
    finally:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
