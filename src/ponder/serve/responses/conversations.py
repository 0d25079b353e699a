"""`/v1/conversations`: items that outlive a response, and that responses are made in."""

from __future__ import annotations

import secrets
import time
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ponder.serve.http.exchange import owner_of, state_of
from ponder.serve.responses.convert import given_item
from ponder.serve.responses.items import (
    AnyItem,
    GivenItem,
    Id,
    ItemPage,
)
from ponder.serve.responses.objects import listed
from ponder.serve.responses.wire import (
    ConversationDeleted,
    ConversationObject,
    ConversationRequest,
    ItemsRequest,
    MetadataRequest,
    answers,
)
from ponder.serve.store import SortOrder, Store, StoredConversation, StoredItem

router = APIRouter(prefix="/v1/conversations")
ConversationId = Annotated[Id, Path()]
LINKS = dict.fromkeys(
    (
        "get_conversation",
        "update_conversation",
        "create_conversation_items",
        "list_conversation_items",
        "delete_conversation",
    ),
    "conversation_id",
)


@router.post(
    "", response_model=None, responses=answers(ConversationObject, leads_to=LINKS), operation_id="create_conversation"
)
async def create_conversation(http: HttpRequest, asked: ConversationRequest | None = None) -> Response:
    """A new conversation, with its first items."""
    asked = asked or ConversationRequest()
    conversation = StoredConversation(
        id=f"conv_{secrets.token_hex(16)}",
        owner=owner_of(http),
        created_at=int(time.time()),
        metadata=asked.metadata or {},
    )
    await _store(http).add_conversation(conversation, _items(asked.items or []))
    return JSONResponse(_body(conversation))


@router.get(
    "/{conversation_id}", response_model=None, responses=answers(ConversationObject), operation_id="get_conversation"
)
async def get_conversation(conversation_id: ConversationId, http: HttpRequest) -> Response:
    return JSONResponse(_body(await _store(http).conversation(owner_of(http), conversation_id)))


@router.post(
    "/{conversation_id}", response_model=None, responses=answers(ConversationObject), operation_id="update_conversation"
)
async def update_conversation(conversation_id: ConversationId, asked: MetadataRequest, http: HttpRequest) -> Response:
    """Other metadata in place of what there was."""
    store, metadata = _store(http), asked.metadata or {}
    return JSONResponse(_body(await store.set_metadata(owner_of(http), conversation_id, metadata)))


@router.delete(
    "/{conversation_id}",
    response_model=None,
    responses=answers(ConversationDeleted),
    operation_id="delete_conversation",
)
async def delete_conversation(conversation_id: ConversationId, http: HttpRequest) -> Response:
    """Delete a conversation with its items. Responses that were made in it stay."""
    await _store(http).delete_conversation(owner_of(http), conversation_id)
    deleted: ConversationDeleted = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
    return JSONResponse(deleted)


@router.get(
    "/{conversation_id}/items", response_model=None, responses=answers(ItemPage), operation_id="list_conversation_items"
)
async def list_conversation_items(
    conversation_id: ConversationId,
    http: HttpRequest,
    after: Annotated[Id | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: SortOrder = SortOrder.DESC,
) -> Response:
    store = _store(http)
    page = await store.items(owner_of(http), conversation_id, after=after, most=limit, order=order)
    return JSONResponse(listed([item.body for item in page.items], more=page.more))


@router.post(
    "/{conversation_id}/items",
    response_model=None,
    responses=answers(ItemPage),
    operation_id="create_conversation_items",
)
async def create_conversation_items(
    conversation_id: ConversationId, asked: ItemsRequest, http: HttpRequest
) -> Response:
    items = _items(asked.items)
    await _store(http).add_items(owner_of(http), conversation_id, items)
    return JSONResponse(listed([item.body for item in items], more=False))


@router.get(
    "/{conversation_id}/items/{item_id}",
    response_model=None,
    responses=answers(AnyItem),
    operation_id="get_conversation_item",
)
async def get_conversation_item(
    conversation_id: ConversationId, item_id: Annotated[Id, Path()], http: HttpRequest
) -> Response:
    item = await _store(http).item(owner_of(http), conversation_id, item_id)
    return JSONResponse(dict(item.body))


@router.delete(
    "/{conversation_id}/items/{item_id}",
    response_model=None,
    responses=answers(ConversationObject),
    operation_id="delete_conversation_item",
)
async def delete_conversation_item(
    conversation_id: ConversationId, item_id: Annotated[Id, Path()], http: HttpRequest
) -> Response:
    """The conversation without the item."""
    return JSONResponse(_body(await _store(http).delete_item(owner_of(http), conversation_id, item_id)))


def _store(http: HttpRequest) -> Store:
    return state_of(http).responses.store


def _items(asked: list[GivenItem]) -> list[StoredItem]:
    base = f"item_{secrets.token_hex(16)}"
    return [given_item(item, base, place) for place, item in enumerate(asked)]


def _body(conversation: StoredConversation) -> ConversationObject:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": dict(conversation.metadata),
    }
