"""`/v1/responses`: make one, look at it, follow it, cancel it, delete it, list what it was asked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.sampler.protocol import Completion, Done
from ponder.serve import work
from ponder.serve.errors import ApiError
from ponder.serve.responses.answer import ItemPage, ResponseDeleted, ResponseObject, answers
from ponder.serve.responses.body import failed, failure, in_words
from ponder.serve.responses.events import EventWriter, Wire, frame
from ponder.serve.responses.history import kept_items
from ponder.serve.responses.items import Dress
from ponder.serve.responses.paging import page_of
from ponder.serve.responses.read import read_turn
from ponder.serve.responses.schema import Id, Include, ResponseRequest
from ponder.serve.responses.turn import Turn
from ponder.serve.state import State, owner_of, state_of
from ponder.serve.store import Event, Order, Running, Status
from ponder.serve.store import Response as Kept
from ponder.serve.streaming import Events, EventStream, answered
from ponder.serve.tally import Tally

router = APIRouter(prefix="/v1/responses")
LINKS = dict.fromkeys(("get_response", "cancel_response", "list_input_items", "delete_response"), "response_id")
ResponseId = Annotated[Id, Path()]
Includes = Annotated[list[Include], Query(max_length=16)]


def new_id() -> str:
    """128 random bits: nobody guesses another's."""
    return f"resp_{secrets.token_hex(16)}"


@router.post(
    "",
    response_model=None,
    responses=answers(ResponseObject, streams=True, leads_to=LINKS),
    operation_id="create_response",
)
async def create(asked: ResponseRequest, http: HttpRequest) -> Response:
    """An answer, whole or, with `stream`, as it comes; with `background`, at once what can be come back for."""
    state, owner = state_of(http), owner_of(http)
    tally = Tally(http, state, state.models.get(asked.model).name)
    if asked.background:
        id = await _begin_in_background(asked, owner, state)
        if asked.stream:
            return EventStream(_frames(state.jobs.follow(owner, id, -1)))
        return JSONResponse((await state.store.response(owner, id)).body)
    if asked.stream:
        return EventStream(_streamed(asked, owner, state, tally))
    return await answered(http, _whole(asked, owner, state, tally))


@router.get(
    "/{response_id}", response_model=None, responses=answers(ResponseObject, streams=True), operation_id="get_response"
)
async def retrieve(
    response_id: ResponseId,
    http: HttpRequest,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    include: Includes = [],  # noqa: B006
    include_brackets: Annotated[list[Include], Query(alias="include[]", max_length=16)] = [],  # noqa: B006
    include_obfuscation: Literal["false"] | None = None,
) -> Response:
    """A stored response; with `stream`, the events of a background one behind number `starting_after`."""
    state, owner = state_of(http), owner_of(http)
    kept = await state.store.response(owner, response_id)
    included = {*include, *include_brackets}
    if not stream:
        if starting_after is not None:
            raise ApiError(400, "starting_after needs stream=true", param="starting_after")
        return JSONResponse(_shown(kept, state, included))
    if kept.running is not Running.BACKGROUND:
        raise ApiError(400, "stream: only background responses can be followed", param="stream")
    if included:
        raise ApiError(400, "include: a stream is as it was asked for", param="include")
    after = -1 if starting_after is None else starting_after
    return EventStream(_frames(state.jobs.follow(owner, response_id, after)))


@router.delete(
    "/{response_id}", response_model=None, responses=answers(ResponseDeleted), operation_id="delete_response"
)
async def delete(response_id: ResponseId, http: HttpRequest) -> Response:
    """Delete a response, and stop working on it."""
    state, owner = state_of(http), owner_of(http)
    await state.store.response(owner, response_id)
    await state.jobs.stop(response_id)
    await state.store.delete(owner, response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.post(
    "/{response_id}/cancel", response_model=None, responses=answers(ResponseObject), operation_id="cancel_response"
)
async def cancel(response_id: ResponseId, http: HttpRequest) -> Response:
    """End a background response. One that has ended stays as it is."""
    state, owner = state_of(http), owner_of(http)
    kept = await state.store.response(owner, response_id)
    if kept.running is not Running.BACKGROUND:
        raise ApiError(400, "only background responses can be cancelled", param="response_id")
    if kept.status.live:
        await state.jobs.cancel(owner, kept)
    return JSONResponse(_shown(await state.store.response(owner, response_id), state, set()))


@router.get(
    "/{response_id}/input_items", response_model=None, responses=answers(ItemPage), operation_id="list_input_items"
)
async def input_items(
    response_id: ResponseId,
    http: HttpRequest,
    after: Annotated[Id | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = Order.DESC,
) -> Response:
    """What the response was asked."""
    kept = await state_of(http).store.response(owner_of(http), response_id)
    return JSONResponse(page_of(list(kept.input), after, limit, order))


# Making one -----------------------------------------------------------------------------------------------------------


async def _whole(asked: ResponseRequest, owner: str, state: State, tally: Tally) -> Response:
    release = state.claims.take(owner, asked.conversation_id)
    try:
        turn = await read_turn(asked, owner, state, new_id(), int(time.time()))
        try:
            completions = await work.completions(state.models, turn.work)
        except Exception as error:
            raise in_words(error) from error
        ended = turn.end(completions[0], EventWriter(turn.id, turn.dress))
        if asked.stored:
            await state.store.add(turn.record(ended.status, ended), items=ended.items)
        tally.end(completions)
        return JSONResponse(ended.shown)
    finally:
        release()


async def _streamed(asked: ResponseRequest, owner: str, state: State, tally: Tally) -> Events:
    """What fails before the first piece is an error of its own status: nothing is told before there is one."""
    release = state.claims.take(owner, asked.conversation_id)
    try:
        turn = await read_turn(asked, owner, state, new_id(), int(time.time()))
        async with aclosing(_told(turn, state, tally)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        release()


async def _told(turn: Turn, state: State, tally: Tally) -> Events:
    writer = EventWriter(turn.id, turn.dress)
    batches = work.batches(state.models, turn.work, state.settings.coalesce / 1000)
    done: list[Completion] = []
    try:
        async with aclosing(batches):
            async for batch in batches:
                tally.first_token()
                if writer.number == 0:
                    if turn.asked.stored:
                        await state.store.add(turn.record(Status.IN_PROGRESS))
                    begun = turn.body(Status.IN_PROGRESS)
                    yield _joined([writer.state("created", begun), writer.state("in_progress", begun)])
                done += (item.completion for item in batch if isinstance(item, Done))
                events = list(writer.pieces(item for item in batch if not isinstance(item, Done)))
                if events:
                    yield _joined(events)
        ended = turn.end(done[0], writer)
        if turn.asked.stored:
            await state.store.move(
                turn.owner, turn.id, ended.status, ended.stored, output=ended.output, items=ended.items
            )
        tally.end(done)
        yield _joined(ended.events)
    except (GeneratorExit, asyncio.CancelledError):  # the client left
        await _end(turn, state, Status.CANCELLED, turn.body(Status.CANCELLED))
        raise
    except Exception as error:
        told = in_words(error)
        if writer.number == 0:
            raise told from error
        body = failed(turn.body(Status.FAILED), failure(told))
        await _end(turn, state, Status.FAILED, body)
        yield _joined([writer.state("failed", body)])


async def _end(turn: Turn, state: State, status: Status, body: Wire) -> None:
    if turn.asked.stored:
        await state.store.move(turn.owner, turn.id, status, body)


async def _begin_in_background(asked: ResponseRequest, owner: str, state: State) -> str:
    """The id of a response that is stored as queued, and will be made."""
    state.jobs.check_room(owner, asked.model)
    release = state.claims.take(owner, asked.conversation_id)
    try:
        turn = await read_turn(asked, owner, state, new_id(), int(time.time()))
        writer = EventWriter(turn.id, turn.dress)
        queued = turn.body(Status.QUEUED)
        events = [writer.state("created", queued), writer.state("queued", queued)]
        await state.store.add(turn.record(Status.QUEUED), events=events)
    except BaseException:
        release()
        raise
    state.jobs.start(turn, writer, release)
    return turn.id


# Showing one ----------------------------------------------------------------------------------------------------------


def _shown(kept: Kept, state: State, included: set[Include]) -> Wire:
    """A stored response with what was asked to be included, then or now."""
    wanted = included | set(kept.request.get("include") or ())
    if "reasoning.encrypted_content" in wanted and state.sealer is None:
        raise ApiError(400, "include: this server does not seal reasoning", param="include")
    sealer = state.sealer if "reasoning.encrypted_content" in wanted else None
    dress = Dress(kept.owner, kept.model, "reasoning.content" in wanted, sealer)
    return {**kept.body, "output": [dress.item(item) for item in kept_items(kept)]}


async def _frames(events: AsyncGenerator[Event, None]) -> Events:
    async with aclosing(events):
        async for event in events:
            yield frame(event)


def _joined(events: list[Event]) -> bytes:
    return b"".join(frame(event) for event in events)
