"""Memory outside the window: notes of users in one SQLite file, which any number of processes and threads may share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from ponder.think.memory.notes import (
    LEAST,
    MOST,
    SCHEMA,
    Note,
    Recollection,
    find_note,
    forget_notes,
    forget_user,
    insert_note,
    list_notes,
    recall_notes,
    supersede_note,
)
from ponder.types import InvalidRequest, PonderError, WriteError

APPLICATION_ID = 0x506F4D65  # "PoMe": whose file this is
WAIT_SECONDS = 30  # for another writer

T = TypeVar("T")


class Remembers(Protocol):
    """What strategies need of a memory. Every call names the user whose notes it is about."""

    async def note_async(self, user: str, text: str, *, source: str) -> Note: ...

    async def recall_async(
        self, user: str, query: str, *, at: float | None = None, most: int = MOST, least: float = LEAST
    ) -> list[Recollection]: ...

    async def supersede_async(self, user: str, id: int, text: str, *, source: str) -> Note: ...

    async def forget_async(self, user: str, id: int) -> list[int]: ...


class Memory:
    """Notes in the file at `path`, made where it does not exist, readable by its owner alone. None: notes that only
    this object has, and that end with it.

    What a call returned is on the disk: neither a crash nor a kill undoes it. Calls may come from any thread. What they
    raise is said at the functions of `ponder.think.memory.notes` that they are named after; besides, WriteError where
    the disk or the file takes nothing.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Raises InvalidRequest for a file of another program, or one that cannot be opened."""
        self.path = None if path is None else Path(path)
        self._lock = threading.Lock()
        try:
            if self.path is not None:
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = connection = sqlite3.connect(
                self.path or ":memory:", isolation_level=None, check_same_thread=False, timeout=WAIT_SECONDS
            )
            connection.row_factory = sqlite3.Row
            for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {setting}").fetchall()
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise InvalidRequest(f"{self.path}: cannot be used as a memory ({error}): give another file") from error

    def _prepare(self) -> None:
        with self._transaction():
            mark = self._connection.execute("PRAGMA application_id").fetchone()[0]
            tables = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if mark != APPLICATION_ID and tables:
                raise InvalidRequest(f"{self.path}: is the database of another program: give another file")
            if not tables:
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                for statement in SCHEMA:
                    self._connection.execute(statement)

    def note(self, user: str, text: str, *, source: str, at: float | None = None, until: float | None = None) -> Note:
        """Keep a text: `insert_note`."""
        return self._write(lambda connection: insert_note(connection, user, text, source=source, at=at, until=until))

    def recall(
        self, user: str, query: str, *, at: float | None = None, most: int = MOST, least: float = LEAST
    ) -> list[Recollection]:
        """What a question is about: `recall_notes`."""
        with self._lock:
            return recall_notes(self._connection, user, query, at=at, most=most, least=least)

    def supersede(self, user: str, id: int, text: str, *, source: str, at: float | None = None) -> Note:
        """Keep a text in place of a note: `supersede_note`."""
        return self._write(lambda connection: supersede_note(connection, user, id, text, source=source, at=at))

    def forget(self, user: str, *ids: int) -> list[int]:
        """Delete notes with the versions that they replaced, to the byte: `forget_notes`."""
        gone = self._write(lambda connection: forget_notes(connection, user, ids))
        self._erase()
        return gone

    def forget_all(self, user: str) -> int:
        """Delete all notes of a user, to the byte, and return their number."""
        gone = self._write(lambda connection: forget_user(connection, user))
        self._erase()
        return gone

    def find(self, user: str, id: int) -> Note:
        """The note of this id. Raises NoSuchNote."""
        with self._lock:
            return find_note(self._connection, user, id)

    def notes(self, user: str, *, after: int = 0, most: int = 100) -> list[Note]:
        """A page of the notes of a user: `list_notes`."""
        with self._lock:
            return list_notes(self._connection, user, after=after, most=most)

    async def note_async(self, user: str, text: str, *, source: str) -> Note:
        """`note`, awaited."""
        return await asyncio.to_thread(self.note, user, text, source=source)

    async def recall_async(
        self, user: str, query: str, *, at: float | None = None, most: int = MOST, least: float = LEAST
    ) -> list[Recollection]:
        """`recall`, awaited."""
        return await asyncio.to_thread(self.recall, user, query, at=at, most=most, least=least)

    async def supersede_async(self, user: str, id: int, text: str, *, source: str) -> Note:
        """`supersede`, awaited."""
        return await asyncio.to_thread(self.supersede, user, id, text, source=source)

    async def forget_async(self, user: str, id: int) -> list[int]:
        """`forget`, awaited."""
        return await asyncio.to_thread(self.forget, user, id)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, self._transaction():
            return work(self._connection)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything or nothing. Raises WriteError for what the disk or the file does not take."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):  # some failures have rolled back already
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise WriteError(f"{self.path}: nothing was written ({error}). What it holds is whole") from error
            raise

    def _erase(self) -> None:
        """Clear the write-ahead log, which may still hold what was deleted. Raises StillInUse."""
        with self._lock:
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StillInUse(
                f"{self.path}: the notes are deleted, but another process read for {WAIT_SECONDS} s and "
                "their bytes stay in the file's log: forget again, or close the other process"
            )


class StillInUse(PonderError):
    """What was deleted cannot be erased from the log yet, because another process reads the file."""
