"""What the store keeps, as typed records. Wire objects are JSON values; the store does not look inside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from ponder.serve.errors import NotFound
from ponder.types import InvalidRequest

Json = Mapping[str, Any]
T = TypeVar("T")


class ResponseStatus(StrEnum):
    """The state of a response, in the API's words."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def live(self) -> bool:
        return self in (ResponseStatus.QUEUED, ResponseStatus.IN_PROGRESS)


class RunMode(StrEnum):
    """Whether a client waits for a response (FOREGROUND), or comes back for it and its events are kept (BACKGROUND)."""

    FOREGROUND = "foreground"
    BACKGROUND = "background"


class SortOrder(StrEnum):
    ASC = "asc"
    DESC = "desc"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """One response.

    body: the response as it is sent.
    request: what was asked, enough to run it again.
    input: the request's items as they are listed.
    output: what the model made, hidden reasoning and ids included; never sent.
    """

    id: str
    owner: str
    model: str
    status: ResponseStatus
    running: RunMode
    created_at: int
    body: Json
    request: Json = field(default_factory=dict)
    input: Sequence[Json] = ()
    output: Sequence[Json] = ()
    previous_response_id: str | None = None
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a stream, its data as the very text that is sent."""

    number: int
    type: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConversation:
    id: str
    owner: str
    created_at: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One item of a conversation: as it is sent, and (of a reasoning item) what is never sent."""

    id: str
    body: Json
    hidden: Json | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: Sequence[T]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Upper bounds.

    record: bytes of JSON in one column.
    event: bytes of one event.
    chain: responses that follow one another.
    chain_bytes: their JSON together.
    conversation_items: items of one conversation.
    file: bytes of the database.
    """

    record: int = 16 << 20
    event: int = 32 << 20  # the last one holds the whole response
    chain: int = 1000
    chain_bytes: int = 64 << 20
    conversation_items: int = 10_000
    file: int = 16 << 30


def missing(what: str, id: str) -> NotFound:
    """The error for an object that is not in the store, or is another owner's."""
    return NotFound(f"{what} '{id}' does not exist")


class TooLarge(InvalidRequest):
    """The request asks for more than a bound of the store allows. Nothing was kept."""


def dump(value: Any, limit: int, what: str) -> str:
    """JSON in ASCII alone, so that a lone surrogate or a NUL in a client's text is text like any other."""
    text = json.dumps(value, separators=(",", ":"), default=dict)
    if len(text) > limit:
        raise TooLarge(f"{what} is too large ({len(text)} bytes, {limit} are allowed): send less at once")
    return text
