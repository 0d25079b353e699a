"""The statements on conversations and their items. Each runs on one of the database's threads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from ponder.serve.store.records import (
    Page,
    SortOrder,
    StoredConversation,
    StoredItem,
    StoreLimits,
    TooLarge,
    dump,
    missing,
)

SCHEMA = (
    """CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        metadata TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX conversations_by_expiry ON conversations (expires_at)",
    """CREATE TABLE items (
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        id TEXT NOT NULL,
        body TEXT NOT NULL,
        hidden TEXT,
        PRIMARY KEY (conversation_id, position),
        UNIQUE (conversation_id, id)
    ) STRICT""",
)
MINE = "id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ?)"


def insert_conversation(
    connection: sqlite3.Connection, conversation: StoredConversation, expires_at: int | None, limits: StoreLimits
) -> None:
    metadata = dump(conversation.metadata, limits.record, "the metadata")
    connection.execute(
        "INSERT INTO conversations (id, owner, created_at, expires_at, metadata) VALUES (?, ?, ?, ?, ?)",
        (conversation.id, conversation.owner, conversation.created_at, expires_at, metadata),
    )


def find_conversation(connection: sqlite3.Connection, owner: str, id: str, now: int) -> StoredConversation:
    """Raises NotFound."""
    row = connection.execute(f"SELECT * FROM conversations WHERE {MINE}", (id, owner, now)).fetchone()
    if row is None:
        raise missing("conversation", id)
    return StoredConversation(
        id=row["id"], owner=row["owner"], created_at=row["created_at"], metadata=json.loads(row["metadata"])
    )


def set_metadata(connection: sqlite3.Connection, id: str, metadata: Mapping[str, str], limits: StoreLimits) -> None:
    text = dump(metadata, limits.record, "the metadata")
    connection.execute("UPDATE conversations SET metadata = ? WHERE id = ?", (text, id))


def keep_until(connection: sqlite3.Connection, id: str, expires_at: int | None) -> None:
    connection.execute("UPDATE conversations SET expires_at = ? WHERE id = ?", (expires_at, id))


def remove_conversation(connection: sqlite3.Connection, owner: str, id: str) -> bool:
    return connection.execute("DELETE FROM conversations WHERE id = ? AND owner = ?", (id, owner)).rowcount == 1


def prune_conversations(connection: sqlite3.Connection, now: int, most: int) -> int:
    doomed = "SELECT id FROM conversations WHERE expires_at <= ? LIMIT ?"
    return connection.execute(f"DELETE FROM conversations WHERE id IN ({doomed})", (now, most)).rowcount


def count(connection: sqlite3.Connection, id: str) -> int:
    return connection.execute("SELECT count(*) FROM items WHERE conversation_id = ?", (id,)).fetchone()[0]


def append(connection: sqlite3.Connection, id: str, items: Sequence[StoredItem], limits: StoreLimits) -> None:
    """Append items. Raises TooLarge; sqlite3.IntegrityError where an item's id is taken."""
    last = "SELECT coalesce(max(position), -1) FROM items WHERE conversation_id = ?"
    first = connection.execute(last, (id,)).fetchone()[0] + 1
    connection.executemany(
        "INSERT INTO items (conversation_id, position, id, body, hidden) VALUES (?, ?, ?, ?, ?)",
        [
            (
                id,
                first + place,
                item.id,
                dump(item.body, limits.record, "an item"),
                None if item.hidden is None else dump(item.hidden, limits.record, "an item"),
            )
            for place, item in enumerate(items)
        ],
    )


def check_room(connection: sqlite3.Connection, id: str, more: int, limits: StoreLimits) -> None:
    if (there := count(connection, id)) + more > limits.conversation_items:
        raise TooLarge(
            f"conversation '{id}' is full ({there} items, {limits.conversation_items} are allowed): "
            "delete some, or begin another"
        )


def item(connection: sqlite3.Connection, id: str, item_id: str) -> StoredItem:
    """Raises NotFound."""
    row = connection.execute("SELECT * FROM items WHERE conversation_id = ? AND id = ?", (id, item_id)).fetchone()
    if row is None:
        raise missing("item", item_id)
    return _read(row)


def delete_item(connection: sqlite3.Connection, id: str, item_id: str) -> bool:
    gone = connection.execute("DELETE FROM items WHERE conversation_id = ? AND id = ?", (id, item_id))
    return gone.rowcount == 1


def page(connection: sqlite3.Connection, id: str, after: str | None, most: int, order: SortOrder) -> Page[StoredItem]:
    """Raises NotFound where there is no item `after`."""
    place = None
    if after is not None:
        item(connection, id, after)
        place = connection.execute(
            "SELECT position FROM items WHERE conversation_id = ? AND id = ?", (id, after)
        ).fetchone()[0]
    beyond, way = (">", "ASC") if order is SortOrder.ASC else ("<", "DESC")
    where = "conversation_id = ?" if place is None else f"conversation_id = ? AND position {beyond} ?"
    rows = connection.execute(
        f"SELECT * FROM items WHERE {where} ORDER BY position {way} LIMIT ?",
        (id, most + 1) if place is None else (id, place, most + 1),
    ).fetchall()
    return Page([_read(row) for row in rows[:most]], len(rows) > most)


def everything(connection: sqlite3.Connection, id: str) -> list[StoredItem]:
    rows = connection.execute("SELECT * FROM items WHERE conversation_id = ? ORDER BY position", (id,))
    return [_read(row) for row in rows]


def _read(row: sqlite3.Row) -> StoredItem:
    hidden = row["hidden"]
    return StoredItem(row["id"], json.loads(row["body"]), None if hidden is None else json.loads(hidden))
