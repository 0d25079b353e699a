"""The statements on responses and their events. Each runs on one of the database's threads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from ponder.serve.store.records import (
    Json,
    ResponseStatus,
    RunMode,
    StoredEvent,
    StoredResponse,
    StoreLimits,
    TooLarge,
    dump,
    missing,
)

SCHEMA = (
    """CREATE TABLE responses (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        model TEXT NOT NULL,
        status TEXT NOT NULL,
        running TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        previous_response_id TEXT,
        conversation_id TEXT,
        body TEXT NOT NULL,
        request TEXT NOT NULL,
        input TEXT NOT NULL,
        output TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX responses_by_expiry ON responses (expires_at)",
    "CREATE INDEX live_responses ON responses (status) WHERE status IN ('queued', 'in_progress')",
    """CREATE TABLE events (
        response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        type TEXT NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (response_id, number)
    ) STRICT, WITHOUT ROWID""",
)
LIVE = "status IN ('queued', 'in_progress')"
MINE = "id = :id AND owner = :owner AND (expires_at IS NULL OR expires_at > :now)"


def insert_response(
    connection: sqlite3.Connection, response: StoredResponse, expires_at: int | None, limits: StoreLimits
) -> None:
    connection.execute(
        "INSERT INTO responses (id, owner, model, status, running, created_at, expires_at, previous_response_id, "
        "conversation_id, body, request, input, output) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            response.id,
            response.owner,
            response.model,
            response.status,
            response.running,
            response.created_at,
            expires_at,
            response.previous_response_id,
            response.conversation_id,
            dump(response.body, limits.record, "the response"),
            dump(response.request, limits.record, "the request"),
            dump(response.input, limits.record, "the input"),
            dump(response.output, limits.record, "the output"),
        ),
    )


def is_live(connection: sqlite3.Connection, owner: str, id: str) -> bool:
    """Whether there is such a response, queued or running."""
    found = connection.execute(f"SELECT 1 FROM responses WHERE id = ? AND owner = ? AND {LIVE}", (id, owner))
    return found.fetchone() is not None


def move(
    connection: sqlite3.Connection,
    id: str,
    status: ResponseStatus,
    body: Json,
    output: Sequence[Json],
    limits: StoreLimits,
) -> str | None:
    """The conversation that the response belongs to."""
    return connection.execute(
        "UPDATE responses SET status = ?, body = ?, output = ? WHERE id = ? RETURNING conversation_id",
        (status, dump(body, limits.record, "the response"), dump(output, limits.record, "the output"), id),
    ).fetchone()[0]


def find_response(connection: sqlite3.Connection, owner: str, id: str, now: int) -> StoredResponse | None:
    row = _row(connection, owner, id, now)
    return None if row is None else _read(row)


def chain(connection: sqlite3.Connection, owner: str, id: str, now: int, limits: StoreLimits) -> list[StoredResponse]:
    """The response and those before it, oldest first. Raises NotFound naming the missing one, TooLarge."""
    links: list[StoredResponse] = []
    size, wanted = 0, id
    while wanted:
        row = _row(connection, owner, wanted, now)
        if row is None:
            raise missing("response", wanted)
        size += len(row["input"]) + len(row["output"])
        if len(links) == limits.chain or size > limits.chain_bytes:
            raise TooLarge(
                f"'{id}' continues more than {limits.chain} responses or {limits.chain_bytes} bytes: "
                "start without previous_response_id"
            )
        links.append(_read(row))
        wanted = row["previous_response_id"]
    return links[::-1]


def remove_response(connection: sqlite3.Connection, owner: str, id: str) -> bool:
    return connection.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (id, owner)).rowcount == 1


def live(connection: sqlite3.Connection) -> list[StoredResponse]:
    """Every owner's queued and running responses, oldest first: for a server that starts."""
    rows = connection.execute(f"SELECT * FROM responses WHERE {LIVE} ORDER BY created_at, rowid")
    return [_read(row) for row in rows]


def prune_responses(connection: sqlite3.Connection, now: int, most: int) -> int:
    doomed = "SELECT id FROM responses WHERE expires_at <= ? LIMIT ?"
    return connection.execute(f"DELETE FROM responses WHERE id IN ({doomed})", (now, most)).rowcount


def write_events(connection: sqlite3.Connection, id: str, events: Sequence[StoredEvent], limits: StoreLimits) -> None:
    for event in events:
        if len(event.data) > limits.event:
            raise TooLarge(f"event {event.number} is too large ({len(event.data)} bytes, {limits.event} are allowed)")
    connection.executemany(
        "INSERT INTO events (response_id, number, type, data) VALUES (?, ?, ?, ?)",
        [(id, event.number, event.type, event.data) for event in events],
    )


def events(
    connection: sqlite3.Connection, owner: str, id: str, after: int, most: int, now: int
) -> tuple[ResponseStatus, list[StoredEvent]]:
    """The status of the response, and its events past number `after`. Raises NotFound."""
    row = connection.execute(
        f"SELECT status FROM responses WHERE {MINE}", {"id": id, "owner": owner, "now": now}
    ).fetchone()
    if row is None:
        raise missing("response", id)
    found = connection.execute(
        "SELECT number, type, data FROM events WHERE response_id = ? AND number > ? ORDER BY number LIMIT ?",
        (id, after, most),
    )
    return ResponseStatus(row["status"]), [StoredEvent(*each) for each in found]


def last_event(connection: sqlite3.Connection, id: str) -> int:
    """The number of the last event; -1: there is none."""
    return connection.execute("SELECT coalesce(max(number), -1) FROM events WHERE response_id = ?", (id,)).fetchone()[0]


def _row(connection: sqlite3.Connection, owner: str, id: str, now: int) -> sqlite3.Row | None:
    found = connection.execute(f"SELECT * FROM responses WHERE {MINE}", {"id": id, "owner": owner, "now": now})
    row: sqlite3.Row | None = found.fetchone()
    return row


def _read(row: sqlite3.Row) -> StoredResponse:
    return StoredResponse(
        id=row["id"],
        owner=row["owner"],
        model=row["model"],
        status=ResponseStatus(row["status"]),
        running=RunMode(row["running"]),
        created_at=row["created_at"],
        previous_response_id=row["previous_response_id"],
        conversation_id=row["conversation_id"],
        body=json.loads(row["body"]),
        request=json.loads(row["request"]),
        input=json.loads(row["input"]),
        output=json.loads(row["output"]),
    )
