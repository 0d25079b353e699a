"""One SQLite file: a thread that writes, a thread that reads, and an event loop that waits for neither.

Everything that waits when the writer looks is one transaction (group commit): many writers share one sync of the disk,
and none is answered before it. https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from ponder.types import PonderError, WriteError

APPLICATION_ID = 0x506F6E64  # "Pond": whose file this is
MAX_BATCH = 256  # writes in one transaction
OLDEST_SQLITE = (3, 37)  # STRICT tables

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]


class StoreError(PonderError):
    """The store cannot be opened, or could not write; a write that failed left nothing."""


class NotStored(StoreError, WriteError):
    """A write that the disk or the file did not take."""


class After(StrEnum):
    """What a write waits for besides its commit. ERASED: what it deleted is gone from the write-ahead log too."""

    COMMIT = "commit"
    ERASED = "erased"


@dataclass(slots=True)
class _Write:
    work: Transaction[Any]
    after: After
    future: Future[Any] = field(default_factory=Future)


class Database:
    """The file at `path`, made where it does not exist, readable by its user alone.

    versions: for each version of the layout, the statements that bring a file from the version before to it. A new file
        runs all of them, an older file those that it lacks, in one transaction.
    """

    def __init__(self, path: str | Path, versions: Sequence[Sequence[str]], *, max_bytes: int) -> None:
        """Raises StoreError: a file of another program, of a newer version, or in use by another process."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
        self.path = Path(path)
        self._lock = _lock(self.path)
        try:
            self._writing = _connect(self.path)
            _prepare(self._writing, self.path, versions, max_bytes)
            self._reading = _connect(self.path)
            self._reading.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StoreError(f"{self.path}: cannot be used as a store ({error}): give another file") from error
        except BaseException:
            os.close(self._lock)
            raise
        self._jobs: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._gate = threading.Lock()  # between being open and a job being put
        self._open = True
        self._reader = ThreadPoolExecutor(1, "store-reader")
        self._writer = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._writer.start()

    async def read(self, work: Transaction[T]) -> T:
        """Run `work` on the reading thread and return its result. It sees every write that was answered."""
        with self._gate:
            self._check_open()
            future = self._reader.submit(work, self._reading)
        return await asyncio.wrap_future(future)

    async def write(self, work: Transaction[T], after: After = After.COMMIT) -> T:
        """Run `work` in a transaction and return its result when that is on the disk. An error that it raises is raised
        here, and undoes its own changes alone.

        Cancelled while it waits for its turn, it is not run; cancelled later, it may or may not be in the file.
        Raises NotStored where the disk or the file is full, or fails.
        """
        job = _Write(work, after)
        with self._gate:
            self._check_open()
            self._jobs.put(job)
        return await asyncio.wrap_future(job.future)

    def close(self) -> None:
        """Finish the waiting work, then close the file. A second call does nothing."""
        with self._gate:
            if not self._open:
                return
            self._open = False
            self._jobs.put(None)
        self._writer.join()
        self._reader.shutdown()
        self._reading.close()
        self._writing.close()
        os.close(self._lock)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.path}: the store is closed")

    # On the writing thread ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        going = True
        while going:
            batch = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while batch[-1] is not None and len(batch) < MAX_BATCH:
                    batch.append(self._jobs.get_nowait())
            going = batch[-1] is not None
            wanted = [job for job in batch if job is not None and job.future.set_running_or_notify_cancel()]
            if wanted:
                self._commit(wanted)

    def _commit(self, jobs: Sequence[_Write]) -> None:
        connection = self._writing
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_run(connection, job.work) for job in jobs]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # some failures have rolled back already
                connection.execute("ROLLBACK")
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
            remedy = ": free some space on its disk, or lower `store_days`. What it holds is whole" if full else ""
            failure = NotStored(f"{self.path}: nothing was written ({error}){remedy}")
            outcomes = [(None, failure)] * len(jobs)
        if any(job.after is After.ERASED for job in jobs):
            with contextlib.suppress(sqlite3.Error):  # it is deleted; the next checkpoint clears the log
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for job, (result, raised) in zip(jobs, outcomes, strict=True):
            if raised is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(raised)


def _run(connection: sqlite3.Connection, work: Transaction[Any]) -> tuple[Any, Exception | None]:
    """(result, None), or (None, the error that `work` raised), with its changes undone."""
    connection.execute("SAVEPOINT piece")
    try:
        result = work(connection)
    except sqlite3.OperationalError:
        raise  # the disk or the file, not this piece
    except Exception as error:
        connection.execute("ROLLBACK TO piece")
        connection.execute("RELEASE piece")
        return None, error
    connection.execute("RELEASE piece")
    return result, None


def _lock(path: Path) -> int:
    """A lock that lasts as long as this process: two servers on one file would end each other's jobs."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        number = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}): give another file") from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(number)
        raise StoreError(f"{path}: another process uses this store: stop it, or give another file") from error
    return number


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, versions: Sequence[Sequence[str]], max_bytes: int) -> None:
    def ask(pragma: str) -> Any:
        return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    owner, found = ask("application_id"), ask("user_version")
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not empty and owner != APPLICATION_ID:
        raise StoreError(f"{path}: this is a database of another program: give another file")
    if found > len(versions):
        raise StoreError(
            f"{path}: written by a newer Ponder (store version {found}, this Ponder knows {len(versions)}"
            "): use that Ponder, or give another file"
        )
    if ask("journal_mode = WAL") != "wal":
        raise StoreError(f"{path}: this file system does not support a write-ahead log: give a file on a local disk")
    ask(f"max_page_count = {max(1, max_bytes // ask('page_size'))}")
    if found < len(versions):
        connection.execute("BEGIN IMMEDIATE")
        for statement in (statement for version in versions[found:] for statement in version):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(versions)}")
        connection.execute("COMMIT")
