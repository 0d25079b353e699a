"""The statements on jobs, their attempts and their traces. Each runs on one of the database's threads.

An owner has one clock: it numbers the jobs in the order of handing over, and every change of a job. So the feed of
changes is a query on the jobs themselves, and nothing of their text is kept twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ponder.serve.store.job_records import (
    AttemptKind,
    HandOver,
    JobAttempt,
    JobChanges,
    JobFilter,
    JobPage,
    JobSort,
    JobState,
    StoredJob,
    TraceEntry,
)
from ponder.serve.store.records import missing

SCHEMA = (
    "CREATE TABLE job_clocks (owner TEXT PRIMARY KEY, value INTEGER NOT NULL, oldest INTEGER NOT NULL DEFAULT 0) "
    "STRICT, WITHOUT ROWID",
    """CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        number INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        state TEXT NOT NULL,
        revision INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        model TEXT NOT NULL,
        effort TEXT,
        strategy TEXT,
        budget INTEGER,
        batch TEXT,
        custom_id TEXT,
        labels TEXT NOT NULL,
        needs TEXT NOT NULL,
        title TEXT NOT NULL,
        need TEXT,
        error TEXT,
        votes TEXT,
        seen INTEGER NOT NULL,
        usage TEXT,
        response_id TEXT,
        created_at REAL NOT NULL,
        started_at REAL,
        ended_at REAL,
        expires_at INTEGER,
        follow_ups TEXT NOT NULL,
        answer TEXT,
        request TEXT NOT NULL,
        words TEXT NOT NULL
    ) STRICT""",
    "CREATE UNIQUE INDEX jobs_by_number ON jobs (owner, number)",
    "CREATE UNIQUE INDEX jobs_by_change ON jobs (owner, changed)",
    "CREATE INDEX jobs_by_state ON jobs (owner, state, number)",
    "CREATE INDEX jobs_by_batch ON jobs (owner, batch, state, number)",
    "CREATE INDEX jobs_by_expiry ON jobs (expires_at)",
    "CREATE INDEX waiting_jobs ON jobs (model, owner, seq) WHERE state = 'queued' AND response_id IS NULL",
    "CREATE INDEX begun_jobs ON jobs (state) "
    "WHERE state = 'in_progress' OR (response_id IS NOT NULL AND state = 'queued')",
    """CREATE TABLE job_attempts (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        text TEXT,
        asked TEXT NOT NULL,
        response_id TEXT,
        status TEXT NOT NULL,
        usage TEXT,
        dropped_turns INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        ended_at REAL,
        PRIMARY KEY (job, number)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE job_trace (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        n INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        at REAL NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (job, n)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE job_keys (
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        digest TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        errors TEXT NOT NULL,
        expires_at INTEGER,
        PRIMARY KEY (owner, key)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE deleted_jobs (
        owner TEXT NOT NULL,
        changed INTEGER NOT NULL,
        id TEXT NOT NULL,
        PRIMARY KEY (owner, changed)
    ) STRICT, WITHOUT ROWID""",
)
WORDS = 2000  # characters of question and of answer that a search looks at
TOMBSTONES = 10_000  # deletions that a feed can still tell, of each owner
JSON_FIELDS = ("labels", "needs", "need", "error", "votes", "usage", "follow_ups", "request")
SLIM_COLUMNS = (
    "id owner number changed state revision attempt model effort strategy budget batch custom_id labels needs title "
    "need error votes seen usage response_id created_at started_at ended_at follow_ups answer"
)
SLIM = SLIM_COLUMNS.split()
WHOLE = [*SLIM, "request"]


# Clocks ---------------------------------------------------------------------------------------------------------------


def tick(connection: sqlite3.Connection, owner: str, steps: int = 1) -> int:
    """The first of `steps` new numbers of the owner's clock."""
    (value,) = connection.execute(
        "INSERT INTO job_clocks (owner, value) VALUES (?, ?) "
        "ON CONFLICT (owner) DO UPDATE SET value = value + excluded.value RETURNING value",
        (owner, steps),
    ).fetchone()
    return value - steps + 1


def last_change(connection: sqlite3.Connection, owner: str) -> int:
    row = connection.execute("SELECT value FROM job_clocks WHERE owner = ?", (owner,)).fetchone()
    return 0 if row is None else row["value"]


# Writing --------------------------------------------------------------------------------------------------------------


def insert_jobs(connection: sqlite3.Connection, jobs: Sequence[StoredJob], expires_at: int | None) -> list[StoredJob]:
    """The jobs of one owner with their numbers, each with its first attempt."""
    if not jobs:
        return []
    first = tick(connection, jobs[0].owner, len(jobs))
    numbered = [replace(job, number=first + place, changed=first + place) for place, job in enumerate(jobs)]
    columns = [*WHOLE, "expires_at", "words"]
    connection.executemany(
        f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
        [(*(_written(job, name) for name in WHOLE), expires_at, _words(job)) for job in numbered],
    )
    connection.executemany(
        "INSERT INTO job_attempts (job, number, kind, asked, status, created_at) VALUES (?, 1, 'first', '{}', ?, ?)",
        [(job.id, "failed" if job.state is JobState.FAILED else "queued", job.created_at) for job in numbered],
    )
    return numbered


def find_hand_over(connection: sqlite3.Connection, owner: str, key: str) -> HandOver | None:
    row = connection.execute(
        "SELECT digest, first, last, errors FROM job_keys WHERE owner = ? AND key = ?", (owner, key)
    ).fetchone()
    return None if row is None else HandOver(row["digest"], row["first"], row["last"], json.loads(row["errors"]))


def keep_hand_over(
    connection: sqlite3.Connection, owner: str, key: str, made: HandOver, expires_at: int | None
) -> None:
    connection.execute(
        "INSERT INTO job_keys (owner, key, digest, first, last, errors, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, key, made.digest, made.first, made.last, _dumped(made.errors), expires_at),
    )


def jobs_between(connection: sqlite3.Connection, owner: str, first: int, last: int) -> list[StoredJob]:
    rows = connection.execute(
        f"SELECT {', '.join(SLIM)} FROM jobs WHERE owner = ? AND number BETWEEN ? AND ? ORDER BY number",
        (owner, first, last),
    )
    return [_read(row) for row in rows]


def put_job(connection: sqlite3.Connection, job: StoredJob) -> StoredJob:
    """The job with its next revision, written."""
    job = replace(job, revision=job.revision + 1, changed=tick(connection, job.owner))
    fixed = ("id", "owner", "number", "created_at")
    columns = [name for name in WHOLE if name not in fixed]
    connection.execute(
        f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in columns)}, words = ? WHERE id = ? AND owner = ?",
        (*(_written(job, name) for name in columns), _words(job), job.id, job.owner),
    )
    return job


def put_attempt(connection: sqlite3.Connection, id: str, attempt: JobAttempt) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO job_attempts (job, number, kind, text, asked, response_id, status, usage, "
        "dropped_turns, created_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            id,
            attempt.number,
            attempt.kind,
            attempt.text,
            _dumped(attempt.asked),
            attempt.response_id,
            attempt.status,
            None if attempt.usage is None else _dumped(attempt.usage),
            attempt.dropped_turns,
            attempt.created_at,
            attempt.ended_at,
        ),
    )


def add_trace(connection: sqlite3.Connection, id: str, entries: Sequence[TraceEntry]) -> None:
    """Add to the trace of a job, if it is still there."""
    if not entries or connection.execute("SELECT 1 FROM jobs WHERE id = ?", (id,)).fetchone() is None:
        return
    (last,) = connection.execute("SELECT coalesce(max(n), 0) FROM job_trace WHERE job = ?", (id,)).fetchone()
    connection.executemany(
        "INSERT INTO job_trace (job, n, attempt, at, data) VALUES (?, ?, ?, ?, ?)",
        [(id, last + 1 + place, each.attempt, each.at, _dumped(each.data)) for place, each in enumerate(entries)],
    )


def remove_jobs(connection: sqlite3.Connection, owner: str, ids: Sequence[str]) -> list[str]:
    """Delete jobs with all that belongs to them. Returns the ids of those that were there."""
    gone = []
    for id in ids:
        if find_job(connection, owner, id) is None:
            continue
        responses = [
            row["response_id"]
            for row in connection.execute(
                "SELECT response_id FROM job_attempts WHERE job = ? AND response_id IS NOT NULL", (id,)
            )
        ]
        connection.executemany(
            "DELETE FROM responses WHERE id = ? AND owner = ?", [(each, owner) for each in responses]
        )
        connection.execute("DELETE FROM jobs WHERE id = ? AND owner = ?", (id, owner))
        number = tick(connection, owner)
        connection.execute("INSERT INTO deleted_jobs (owner, changed, id) VALUES (?, ?, ?)", (owner, number, id))
        gone.append(id)
    if gone:
        _forget_old_deletions(connection, owner)
    return gone


def _forget_old_deletions(connection: sqlite3.Connection, owner: str) -> None:
    row = connection.execute(
        "SELECT changed FROM deleted_jobs WHERE owner = ? ORDER BY changed DESC LIMIT 1 OFFSET ?", (owner, TOMBSTONES)
    ).fetchone()
    if row is not None:
        connection.execute("DELETE FROM deleted_jobs WHERE owner = ? AND changed <= ?", (owner, row["changed"]))
        connection.execute("UPDATE job_clocks SET oldest = ? WHERE owner = ?", (row["changed"], owner))


def prune_jobs(connection: sqlite3.Connection, now: int, most: int) -> int:
    connection.execute("DELETE FROM job_keys WHERE expires_at <= ?", (now,))
    doomed = connection.execute("SELECT owner, id FROM jobs WHERE expires_at <= ? LIMIT ?", (now, most)).fetchall()
    for row in doomed:
        remove_jobs(connection, row["owner"], [row["id"]])
    return len(doomed)


# Reading --------------------------------------------------------------------------------------------------------------


def find_job(connection: sqlite3.Connection, owner: str, id: str) -> StoredJob | None:
    row = connection.execute(f"SELECT {', '.join(WHOLE)} FROM jobs WHERE id = ? AND owner = ?", (id, owner)).fetchone()
    return None if row is None else _read(row)


def the_job(connection: sqlite3.Connection, owner: str, id: str) -> StoredJob:
    """Raises NotFound."""
    found = find_job(connection, owner, id)
    if found is None:
        raise missing("job", id)
    return found


def attempts_of(connection: sqlite3.Connection, id: str) -> list[JobAttempt]:
    rows = connection.execute("SELECT * FROM job_attempts WHERE job = ? ORDER BY number", (id,))
    return [
        JobAttempt(
            number=row["number"],
            kind=AttemptKind(row["kind"]),
            text=row["text"],
            asked=json.loads(row["asked"]),
            response_id=row["response_id"],
            status=row["status"],
            usage=None if row["usage"] is None else json.loads(row["usage"]),
            dropped_turns=row["dropped_turns"],
            created_at=row["created_at"],
            ended_at=row["ended_at"],
        )
        for row in rows
    ]


def trace_of(connection: sqlite3.Connection, id: str, after: int, most: int) -> list[TraceEntry]:
    rows = connection.execute("SELECT * FROM job_trace WHERE job = ? AND n > ? ORDER BY n LIMIT ?", (id, after, most))
    return [TraceEntry(row["attempt"], row["at"], json.loads(row["data"]), row["n"]) for row in rows]


def page_of_jobs(
    connection: sqlite3.Connection,
    owner: str,
    wanted: JobFilter,
    sort: JobSort,
    after: int | None,
    most: int,
    *,
    whole: bool = False,
) -> JobPage:
    """whole: with their requests."""
    where, values = _where(owner, wanted)
    if after is not None:
        where += f" AND {sort.column} {'<' if sort.down else '>'} ?"
        values.append(after)
    rows = connection.execute(
        f"SELECT {', '.join(WHOLE if whole else SLIM)} FROM jobs WHERE {where} "
        f"ORDER BY {sort.column} {'DESC' if sort.down else 'ASC'} LIMIT ?",
        (*values, most + 1),
    ).fetchall()
    return JobPage([_read(row) for row in rows[:most]], len(rows) > most, last_change(connection, owner))


def ids_of(connection: sqlite3.Connection, owner: str, wanted: JobFilter) -> list[str]:
    where, values = _where(owner, wanted)
    return [row["id"] for row in connection.execute(f"SELECT id FROM jobs WHERE {where} ORDER BY number", values)]


def count_jobs(connection: sqlite3.Connection, owner: str, wanted: JobFilter) -> tuple[dict[str, int], int, int]:
    """(jobs by state, incomplete ones that were not seen, the number of the latest change)."""
    where, values = _where(owner, wanted)
    counts = dict.fromkeys(map(str, JobState), 0)
    counts |= dict(
        connection.execute(f"SELECT state, count(*) FROM jobs WHERE {where} GROUP BY state", values).fetchall()
    )
    unseen = connection.execute(
        f"SELECT count(*) FROM jobs WHERE {where} AND state = 'incomplete' AND NOT seen", values
    ).fetchone()[0]
    return counts, unseen, last_change(connection, owner)


def batches_of(connection: sqlite3.Connection, owner: str, most: int) -> list[tuple[str, int]]:
    """The latest names of what was handed over together, and how many jobs each has."""
    rows = connection.execute(
        "SELECT batch, count(*), max(number) FROM jobs WHERE owner = ? AND batch IS NOT NULL GROUP BY batch "
        "ORDER BY 3 DESC LIMIT ?",
        (owner, most),
    )
    return [(row[0], row[1]) for row in rows]


def changes_after(connection: sqlite3.Connection, owner: str, after: int, most: int) -> JobChanges:
    clock = connection.execute("SELECT value, oldest FROM job_clocks WHERE owner = ?", (owner,)).fetchone()
    last, oldest = (0, 0) if clock is None else (clock["value"], clock["oldest"])
    if after > last or after < oldest:
        return JobChanges([], [], last, reset=True)
    jobs = connection.execute(
        f"SELECT {', '.join(SLIM)} FROM jobs WHERE owner = ? AND changed > ? ORDER BY changed LIMIT ?",
        (owner, after, most),
    ).fetchall()
    end = jobs[-1]["changed"] if len(jobs) == most else last
    deleted = connection.execute(
        "SELECT changed, id FROM deleted_jobs WHERE owner = ? AND changed > ? AND changed <= ? ORDER BY changed",
        (owner, after, end),
    ).fetchall()
    return JobChanges([_read(row) for row in jobs], [(row["changed"], row["id"]) for row in deleted], last)


def next_waiting(connection: sqlite3.Connection, model: str, busy: dict[str, int]) -> StoredJob | None:
    """The job of a model that begins next: the oldest of the owner with the fewest that run.

    busy: how many of each owner run.
    """
    rows = connection.execute(
        "SELECT owner, min(seq) AS seq FROM jobs WHERE state = 'queued' AND response_id IS NULL AND model = ? "
        "GROUP BY owner",
        (model,),
    ).fetchall()
    if not rows:
        return None
    first = min(rows, key=lambda row: (busy.get(row["owner"], 0), row["seq"]))
    row = connection.execute(f"SELECT {', '.join(WHOLE)} FROM jobs WHERE seq = ?", (first["seq"],)).fetchone()
    return _read(row)


def waiting_models(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT DISTINCT model FROM jobs WHERE state = 'queued' AND response_id IS NULL")
    return [row["model"] for row in rows]


def begun_jobs(connection: sqlite3.Connection) -> list[StoredJob]:
    """Every owner's jobs that were handed to a model, for a server that starts."""
    rows = connection.execute(
        f"SELECT {', '.join(WHOLE)} FROM jobs "
        "WHERE state = 'in_progress' OR (response_id IS NOT NULL AND state = 'queued') ORDER BY seq"
    )
    return [_read(row) for row in rows]


# ----------------------------------------------------------------------------------------------------------------------


def _where(owner: str, wanted: JobFilter) -> tuple[str, list[Any]]:
    clauses, values = ["owner = ?"], [owner]

    def among(column: str, given: Sequence[str]) -> None:
        if given:
            clauses.append(f"{column} IN ({', '.join('?' * len(given))})")
            values.extend(given)

    among("state", wanted.states)
    among("model", wanted.models)
    if wanted.batch is not None:
        among("batch", [wanted.batch])
    if wanted.labels:
        marks = ", ".join("?" * len(wanted.labels))
        clauses.append(f"EXISTS (SELECT 1 FROM json_each(labels) WHERE value IN ({marks}))")
        values.extend(wanted.labels)
    if wanted.unseen:
        clauses.append("NOT seen")
    if wanted.q.strip():
        clauses.append("instr(words, ?)")
        values.append(wanted.q.strip().casefold())
    return " AND ".join(clauses), values


def _words(job: StoredJob) -> str:
    """What a search looks at. It stands in the row itself, without an index: then a deletion leaves no word of it."""
    question = " ".join(_texts(job.request.get("input")))
    parts = [question[:WORDS], (job.answer or "")[:WORDS], job.batch or "", job.custom_id or "", *job.labels]
    return "\n".join(part for part in parts if part).casefold()


def _texts(given: Any) -> Iterable[str]:
    """The texts of an input, wherever they stand in it."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, list):
        for each in given:
            yield from _texts(each)
    elif isinstance(given, dict):
        for name in ("content", "text", "output"):
            yield from _texts(given.get(name))


def _written(job: StoredJob, name: str) -> Any:
    value = getattr(job, name)
    if name in JSON_FIELDS:
        return None if value is None else _dumped(value)
    return int(value) if name == "seen" else value


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=list)


def _read(row: sqlite3.Row) -> StoredJob:
    fields = dict(zip(row.keys(), row, strict=True))
    for name in JSON_FIELDS:
        if fields.get(name) is not None:
            fields[name] = json.loads(fields[name])
    return StoredJob(**{**fields, "state": JobState(fields["state"]), "seen": bool(fields["seen"])})
