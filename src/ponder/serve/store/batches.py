"""The statements on uploaded files and on batches. Each runs on one of the database's threads.

What a batch has come to is counted from its jobs, and its output is written from them: neither is kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from ponder.serve.store.records import Json, Page, missing

SCHEMA = (
    """CREATE TABLE files (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        purpose TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        content BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX files_by_owner ON files (owner, seq)",
    "CREATE INDEX files_by_expiry ON files (expires_at)",
    """CREATE TABLE batches (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        input_file_id TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        cancelling_at INTEGER,
        metadata TEXT NOT NULL,
        errors TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX batches_by_owner ON batches (owner, seq)",
    "CREATE INDEX batches_by_expiry ON batches (expires_at)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """An uploaded file, without its content."""

    id: str
    owner: str
    name: str
    purpose: str
    bytes: int
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """errors: of the lines that are not requests; a batch with any has no jobs."""

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    created_at: int
    cancelling_at: int | None = None
    metadata: Json = field(default_factory=dict)
    errors: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class BatchTally:
    """The jobs of a batch. expired: those whose time was over. ended_at: of the last one."""

    states: Json
    expired: int
    began_at: float | None
    ended_at: float | None


FILE = "id, owner, name, purpose, bytes, created_at"
BATCH = "id, owner, endpoint, input_file_id, created_at, cancelling_at, metadata, errors"


def insert_file(connection: sqlite3.Connection, file: StoredFile, content: bytes, expires_at: int | None) -> None:
    connection.execute(
        "INSERT INTO files (id, owner, name, purpose, bytes, created_at, expires_at, content) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (file.id, file.owner, file.name, file.purpose, file.bytes, file.created_at, expires_at, content),
    )


def find_file(connection: sqlite3.Connection, owner: str, id: str) -> StoredFile:
    """Raises NotFound."""
    row = connection.execute(f"SELECT {FILE} FROM files WHERE id = ? AND owner = ?", (id, owner)).fetchone()
    if row is None:
        raise missing("file", id)
    return StoredFile(**dict(zip(row.keys(), row, strict=True)))


def file_content(connection: sqlite3.Connection, owner: str, id: str) -> bytes:
    """Raises NotFound."""
    row = connection.execute("SELECT content FROM files WHERE id = ? AND owner = ?", (id, owner)).fetchone()
    if row is None:
        raise missing("file", id)
    content: bytes = row["content"]
    return content


def page_of_files(connection: sqlite3.Connection, owner: str, after: str | None, most: int) -> Page[StoredFile]:
    """The newest first."""
    rows = _page(connection, "files", FILE, owner, after, most)
    return Page([StoredFile(**dict(zip(row.keys(), row, strict=True))) for row in rows[:most]], len(rows) > most)


def remove_file(connection: sqlite3.Connection, owner: str, id: str) -> bool:
    return connection.execute("DELETE FROM files WHERE id = ? AND owner = ?", (id, owner)).rowcount == 1


def insert_batch(connection: sqlite3.Connection, batch: StoredBatch, expires_at: int | None) -> None:
    connection.execute(
        "INSERT INTO batches (id, owner, endpoint, input_file_id, created_at, expires_at, metadata, errors) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            batch.id,
            batch.owner,
            batch.endpoint,
            batch.input_file_id,
            batch.created_at,
            expires_at,
            json.dumps(dict(batch.metadata)),
            json.dumps([dict(each) for each in batch.errors]),
        ),
    )


def find_batch(connection: sqlite3.Connection, owner: str, id: str) -> tuple[StoredBatch, BatchTally]:
    """Raises NotFound."""
    row = connection.execute(f"SELECT {BATCH} FROM batches WHERE id = ? AND owner = ?", (id, owner)).fetchone()
    if row is None:
        raise missing("batch", id)
    return _batch(row), _tally(connection, owner, id)


def page_of_batches(
    connection: sqlite3.Connection, owner: str, after: str | None, most: int
) -> Page[tuple[StoredBatch, BatchTally]]:
    """The newest first."""
    rows = _page(connection, "batches", BATCH, owner, after, most)
    return Page([(_batch(row), _tally(connection, owner, row["id"])) for row in rows[:most]], len(rows) > most)


def mark_cancelling(connection: sqlite3.Connection, owner: str, id: str, now: int) -> None:
    connection.execute(
        "UPDATE batches SET cancelling_at = coalesce(cancelling_at, ?) WHERE id = ? AND owner = ?", (now, id, owner)
    )


def prune_batches(connection: sqlite3.Connection, now: int, most: int) -> int:
    gone = 0
    for table in ("files", "batches"):
        doomed = f"SELECT id FROM {table} WHERE expires_at <= ? LIMIT ?"
        gone += connection.execute(f"DELETE FROM {table} WHERE id IN ({doomed})", (now, most)).rowcount
    return gone


def _page(
    connection: sqlite3.Connection, table: str, columns: str, owner: str, after: str | None, most: int
) -> list[sqlite3.Row]:
    """Raises NotFound where `after` names nothing of this owner."""
    before = 2**62
    if after is not None:
        row = connection.execute(f"SELECT seq FROM {table} WHERE id = ? AND owner = ?", (after, owner)).fetchone()
        if row is None:
            raise missing("after", after)
        before = row["seq"]
    return connection.execute(
        f"SELECT {columns} FROM {table} WHERE owner = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
        (owner, before, most + 1),
    ).fetchall()


def _tally(connection: sqlite3.Connection, owner: str, id: str) -> BatchTally:
    rows = connection.execute(
        "SELECT state, count(*) AS number, min(started_at) AS began, max(ended_at) AS ended, "
        "sum(coalesce(json_extract(error, '$.code') = 'batch_expired', 0)) AS expired "
        "FROM jobs WHERE owner = ? AND batch = ? GROUP BY state",
        (owner, id),
    ).fetchall()
    return BatchTally(
        {row["state"]: row["number"] for row in rows},
        sum(row["expired"] for row in rows),
        min((row["began"] for row in rows if row["began"] is not None), default=None),
        max((row["ended"] for row in rows if row["ended"] is not None), default=None),
    )


def _batch(row: sqlite3.Row) -> StoredBatch:
    fields = dict(zip(row.keys(), row, strict=True))
    return StoredBatch(**{**fields, "metadata": json.loads(row["metadata"]), "errors": json.loads(row["errors"])})
