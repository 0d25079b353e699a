"""`/v1/responses`: make one, look at it, follow it, cancel it, delete it, list what it was asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.serve.errors import BadRequest
from ponder.serve.http.exchange import Events, EventStreamResponse, answered, owner_of, state_of, tally_of
from ponder.serve.responses.events import frame
from ponder.serve.responses.items import (
    Id,
    ItemPage,
)
from ponder.serve.responses.service import Batches
from ponder.serve.responses.wire import (
    Include,
    ResponseDeleted,
    ResponseObject,
    ResponseRequest,
    answers,
)
from ponder.serve.store import SortOrder, StoredEvent

router = APIRouter(prefix="/v1/responses")
LINKS = dict.fromkeys(("get_response", "cancel_response", "list_input_items", "delete_response"), "response_id")
ResponseId = Annotated[Id, Path()]
Includes = Annotated[list[Include], Query(max_length=16)]


@router.post(
    "",
    response_model=None,
    responses=answers(ResponseObject, streams=True, leads_to=LINKS),
    operation_id="create_response",
)
async def create_response(asked: ResponseRequest, http: HttpRequest) -> Response:
    """An answer, whole or, with `stream`, as it comes; with `background`, at once what can be come back for."""
    state, owner = state_of(http), owner_of(http)
    tally = tally_of(http, state.models.get(asked.model))
    responses = state.responses
    if asked.background:
        queued = await responses.begin(asked, owner)
        if asked.stream:
            return EventStreamResponse(_frames(responses.jobs.follow(owner, queued["id"], -1)))
        return JSONResponse(queued)
    if asked.stream:
        return EventStreamResponse(_joined(responses.streamed(asked, owner, tally)))

    async def whole() -> Response:
        return JSONResponse(await responses.whole(asked, owner, tally))

    return await answered(http, whole())


@router.get(
    "/{response_id}", response_model=None, responses=answers(ResponseObject, streams=True), operation_id="get_response"
)
async def get_response(
    response_id: ResponseId,
    http: HttpRequest,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    include: Includes = [],  # noqa: B006
    include_brackets: Annotated[list[Include], Query(alias="include[]", max_length=16)] = [],  # noqa: B006
    include_obfuscation: Literal["false"] | None = None,
) -> Response:
    """A stored response; with `stream`, the events of a background one past number `starting_after`."""
    responses, owner = state_of(http).responses, owner_of(http)
    included = {*include, *include_brackets}
    if not stream:
        shown = await responses.shown(owner, response_id, included)
        if starting_after is not None:
            raise BadRequest("starting_after is given without stream: set stream=true", param="starting_after")
        return JSONResponse(shown)
    events = await responses.follow(owner, response_id, -1 if starting_after is None else starting_after)
    if included:
        raise BadRequest(
            "include: a stream holds what was requested when it was created: leave include out", param="include"
        )
    return EventStreamResponse(_frames(events))


@router.delete(
    "/{response_id}", response_model=None, responses=answers(ResponseDeleted), operation_id="delete_response"
)
async def delete_response(response_id: ResponseId, http: HttpRequest) -> Response:
    """Delete a response, and stop working on it."""
    await state_of(http).responses.delete(owner_of(http), response_id)
    deleted: ResponseDeleted = {"id": response_id, "object": "response", "deleted": True}
    return JSONResponse(deleted)


@router.post(
    "/{response_id}/cancel", response_model=None, responses=answers(ResponseObject), operation_id="cancel_response"
)
async def cancel_response(response_id: ResponseId, http: HttpRequest) -> Response:
    """End a background response. One that has ended stays as it is."""
    return JSONResponse(await state_of(http).responses.cancel(owner_of(http), response_id))


@router.get(
    "/{response_id}/input_items", response_model=None, responses=answers(ItemPage), operation_id="list_input_items"
)
async def list_input_items(
    response_id: ResponseId,
    http: HttpRequest,
    after: Annotated[Id | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: SortOrder = SortOrder.DESC,
) -> Response:
    """What the response was asked."""
    responses = state_of(http).responses
    return JSONResponse(await responses.input_items(owner_of(http), response_id, after=after, most=limit, order=order))


async def _frames(events: AsyncGenerator[StoredEvent, None]) -> Events:
    async with aclosing(events):
        async for event in events:
            yield frame(event)


async def _joined(batches: Batches) -> Events:
    """One write for each batch."""
    async with aclosing(batches):
        async for batch in batches:
            yield b"".join(map(frame, batch))
