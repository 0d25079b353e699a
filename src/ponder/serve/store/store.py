"""The store as the server sees it: one method for each thing that is kept, changed or asked.

Every method takes the owner; another owner's objects do not exist for it. A method that changes something returns when
the change is on the disk.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ponder.serve.errors import NotFound
from ponder.serve.settings import Settings
from ponder.serve.store import batches, conversations, jobs, responses
from ponder.serve.store.database import After, Database, Transaction
from ponder.serve.store.records import (
    Json,
    Page,
    ResponseStatus,
    SortOrder,
    StoredConversation,
    StoredEvent,
    StoredItem,
    StoredResponse,
    StoreLimits,
    missing,
)
from ponder.types import InvalidRequest

# What brings a file from version k to version k + 1. A new version is one more entry; no entry is ever changed.
VERSIONS = ((*responses.SCHEMA, *conversations.SCHEMA), (*jobs.SCHEMA, *batches.SCHEMA))
DAYS_KEPT = 30
MOST_PRUNED = 200  # of a table, in one transaction: others wait for it

T = TypeVar("T")


class Store:
    """Responses, events, conversations and jobs in the file `path`.

    days: how long a response is kept after it was made, a conversation after it was last added to; None: for ever.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        days: float | None = DAYS_KEPT,
        limits: StoreLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises StoreError saying what is wrong with the file."""
        self.limits = limits or StoreLimits()
        self._days = days
        self._clock = clock
        self._database = Database(path, VERSIONS, max_bytes=self.limits.file)

    @property
    def path(self) -> Path:
        return self._database.path

    def close(self) -> None:
        self._database.close()

    async def prune(self) -> int:
        """Delete the responses and conversations past their time. Returns how many."""
        now, total = self._now(), 0

        def work(connection: sqlite3.Connection) -> int:
            return (
                jobs.prune_jobs(connection, now, MOST_PRUNED)
                + batches.prune_batches(connection, now, MOST_PRUNED)
                + responses.prune_responses(connection, now, MOST_PRUNED)
                + conversations.prune_conversations(connection, now, MOST_PRUNED)
            )

        while gone := await self._database.write(work, After.ERASED):
            total += gone
        return total

    async def read(self, work: Transaction[T]) -> T:
        """What the statements of `work` read. They are those of `store/jobs.py`, which take the owner themselves."""
        return await self._database.read(work)

    async def write(self, work: Transaction[T], after: After = After.COMMIT) -> T:
        """Run such statements in one transaction. What they raise undoes all of them."""
        return await self._database.write(work, after)

    # Responses ------------------------------------------------------------------------------------------------------

    async def add(
        self,
        response: StoredResponse,
        *,
        events: Sequence[StoredEvent] = (),
        items: Sequence[StoredItem] = (),
        also: Transaction[object] | None = None,
    ) -> None:
        """Keep a new response, its first events, and what it adds to its conversation. Raises TooLarge.

        also: what belongs to the same transaction.
        """

        def work(connection: sqlite3.Connection) -> None:
            if also is not None:
                also(connection)
            responses.insert_response(connection, response, self.expiry(), self.limits)
            responses.write_events(connection, response.id, events, self.limits)
            self._append(connection, response.owner, response.conversation_id, items)

        await self._database.write(work)

    async def move(
        self,
        owner: str,
        id: str,
        status: ResponseStatus,
        body: Json,
        *,
        output: Sequence[Json] = (),
        events: Sequence[StoredEvent] = (),
        items: Sequence[StoredItem] = (),
        also: Transaction[object] | None = None,
    ) -> bool:
        """Whether a queued or running response now stands at `status`. One that ended or was deleted meanwhile is left
        alone, and nothing of this is kept. Raises TooLarge.

        also: what belongs to the same transaction.
        """

        def work(connection: sqlite3.Connection) -> bool:
            if not responses.is_live(connection, owner, id):
                return False
            responses.write_events(connection, id, events, self.limits)
            conversation_id = responses.move(connection, id, status, body, output, self.limits)
            self._append(connection, owner, conversation_id, items)
            if also is not None:
                also(connection)
            return True

        return await self._database.write(work)

    async def response(self, owner: str, id: str) -> StoredResponse:
        """Raises NotFound."""
        found = await self._database.read(lambda c: responses.find_response(c, owner, id, self._now()))
        if found is None:
            raise missing("response", id)
        return found

    async def chain(self, owner: str, id: str) -> list[StoredResponse]:
        """The response and all that it follows, oldest first. Raises NotFound naming the missing one, TooLarge."""
        return await self._database.read(lambda c: responses.chain(c, owner, id, self._now(), self.limits))

    async def delete(self, owner: str, id: str) -> None:
        """Raises NotFound."""
        if not await self._database.write(lambda c: responses.remove_response(c, owner, id), After.ERASED):
            raise missing("response", id)

    async def live(self) -> list[StoredResponse]:
        """Every owner's queued and running responses, oldest first, for a server that starts."""
        return await self._database.read(responses.live)

    async def add_events(self, owner: str, id: str, events: Sequence[StoredEvent]) -> bool:
        """Whether the response still runs, and the events are kept."""

        def work(connection: sqlite3.Connection) -> bool:
            if not responses.is_live(connection, owner, id):
                return False
            responses.write_events(connection, id, events, self.limits)
            return True

        return await self._database.write(work)

    async def events(
        self, owner: str, id: str, after: int = -1, most: int = 500
    ) -> tuple[ResponseStatus, list[StoredEvent]]:
        """The status of the response and up to `most` events past number `after`. Raises NotFound."""
        return await self._database.read(lambda c: responses.events(c, owner, id, after, most, self._now()))

    async def last_event(self, id: str) -> int:
        """The number of the last event that is kept; -1: none is."""
        return await self._database.read(lambda c: responses.last_event(c, id))

    # Conversations --------------------------------------------------------------------------------------------------

    async def add_conversation(self, conversation: StoredConversation, items: Sequence[StoredItem] = ()) -> None:
        """Raises TooLarge; InvalidRequest where two items have one id."""

        def work(connection: sqlite3.Connection) -> None:
            conversations.insert_conversation(connection, conversation, self.expiry(), self.limits)
            self._add_items(connection, conversation.owner, conversation.id, items)

        await self._database.write(work)

    async def conversation(self, owner: str, id: str) -> StoredConversation:
        """Raises NotFound."""
        return await self._database.read(lambda c: conversations.find_conversation(c, owner, id, self._now()))

    async def set_metadata(self, owner: str, id: str, metadata: Mapping[str, str]) -> StoredConversation:
        """Raises NotFound, TooLarge."""

        def work(connection: sqlite3.Connection) -> StoredConversation:
            conversations.find_conversation(connection, owner, id, self._now())
            conversations.set_metadata(connection, id, metadata, self.limits)
            return conversations.find_conversation(connection, owner, id, self._now())

        return await self._database.write(work)

    async def delete_conversation(self, owner: str, id: str) -> None:
        """With its items. Raises NotFound."""
        if not await self._database.write(lambda c: conversations.remove_conversation(c, owner, id), After.ERASED):
            raise missing("conversation", id)

    async def add_items(self, owner: str, id: str, items: Sequence[StoredItem]) -> None:
        """Raises NotFound, TooLarge; InvalidRequest where an item's id is taken."""
        await self._database.write(lambda c: self._add_items(c, owner, id, items))

    async def items(self, owner: str, id: str, *, after: str | None, most: int, order: SortOrder) -> Page[StoredItem]:
        """Raises NotFound."""

        def work(connection: sqlite3.Connection) -> Page[StoredItem]:
            conversations.find_conversation(connection, owner, id, self._now())
            return conversations.page(connection, id, after, most, order)

        return await self._database.read(work)

    async def all_items(self, owner: str, id: str) -> list[StoredItem]:
        """Raises NotFound, and TooLarge where there is no room for an answer."""

        def work(connection: sqlite3.Connection) -> list[StoredItem]:
            conversations.find_conversation(connection, owner, id, self._now())
            conversations.check_room(connection, id, 1, self.limits)
            return conversations.everything(connection, id)

        return await self._database.read(work)

    async def item(self, owner: str, id: str, item_id: str) -> StoredItem:
        """Raises NotFound."""

        def work(connection: sqlite3.Connection) -> StoredItem:
            conversations.find_conversation(connection, owner, id, self._now())
            return conversations.item(connection, id, item_id)

        return await self._database.read(work)

    async def delete_item(self, owner: str, id: str, item_id: str) -> StoredConversation:
        """The conversation that is left. Raises NotFound."""

        def work(connection: sqlite3.Connection) -> StoredConversation:
            found = conversations.find_conversation(connection, owner, id, self._now())
            if not conversations.delete_item(connection, id, item_id):
                raise missing("item", item_id)
            return found

        return await self._database.write(work, After.ERASED)

    # ----------------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self._clock())

    def expiry(self) -> int | None:
        """When what is made now is deleted, in seconds since 1970; None: never."""
        return None if self._days is None else self._now() + round(self._days * 86400)

    def _add_items(self, connection: sqlite3.Connection, owner: str, id: str, items: Sequence[StoredItem]) -> None:
        conversations.find_conversation(connection, owner, id, self._now())
        conversations.check_room(connection, id, len(items), self.limits)
        try:
            conversations.append(connection, id, items, self.limits)
        except sqlite3.IntegrityError as error:
            raise InvalidRequest(f"conversation '{id}' already has an item with that id: leave ids out") from error
        conversations.keep_until(connection, id, self.expiry())

    def _append(self, connection: sqlite3.Connection, owner: str, id: str | None, items: Sequence[StoredItem]) -> None:
        """Add the items of a response to its conversation, unless that was deleted meanwhile."""
        if id is None or not items:
            return
        try:
            conversations.find_conversation(connection, owner, id, self._now())
        except NotFound:
            return
        conversations.append(connection, id, items, self.limits)
        conversations.keep_until(connection, id, self.expiry())


def open_store(settings: Settings, otherwise: Path | None = None) -> Store:
    """The store that the settings name, or else the file `otherwise`. Raises StoreError."""
    return Store(settings.store or otherwise or "", days=settings.store_days or None)
