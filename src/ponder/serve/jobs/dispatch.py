"""From the store to the models: jobs that wait begin when a model has room, owners in turn."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ponder.serve.errors import NotFound, ServeError, ShuttingDown, log
from ponder.serve.jobs.attempt import AttemptWatch
from ponder.serve.jobs.branch import branched_answer
from ponder.serve.jobs.needs import next_attempt
from ponder.serve.jobs.trace import added
from ponder.serve.models import Models
from ponder.serve.responses.objects import failure, response_error
from ponder.serve.responses.service import ResponseService
from ponder.serve.responses.wire import ResponseError, ResponseRequest
from ponder.serve.store import Store
from ponder.serve.store.database import Transaction
from ponder.serve.store.job_records import AttemptKind, JobState, StoredJob, TraceEntry
from ponder.serve.store.jobs import (
    add_trace,
    attempts_of,
    begun_jobs,
    find_job,
    next_waiting,
    put_attempt,
    put_job,
    waiting_models,
)
from ponder.types import PonderError

LOOK = 0.25  # seconds until a model without room is looked at again
FLUSH = 1.0  # seconds between two writes of what runs
MOST_RESTARTS = 3
BATCH_SECONDS = 24 * 3600  # that a batch may take
EXPIRED: ResponseError = {"code": "batch_expired", "message": "the batch took longer than 24 hours: send it again"}
RESTARTED: ResponseError = {
    "code": "server_restarted",
    "message": f"the server stopped {MOST_RESTARTS + 1} times while this job ran: retry it",
}


class Dispatcher:
    """Begins the jobs that wait, and holds those that run.

    changed: called with an owner whose jobs have changed.
    live: attempts that were handed to a model, by the id of the job.
    """

    def __init__(self, models: Models, responses: ResponseService, changed: Callable[[str], None]) -> None:
        self.live: dict[str, AttemptWatch] = {}
        self._models, self._responses, self._changed = models, responses, changed
        self._wake = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def _store(self) -> Store:
        return self._responses.store

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._keep_flushing())]

    def wake(self) -> None:
        """Something waits, or something has ended."""
        self._wake.set()

    def drain(self) -> None:
        """Begin nothing more."""
        self._closing = True
        self._wake.set()

    async def close(self) -> None:
        self.drain()
        for task in self._tasks:
            task.cancel()
        if tasks := [*self._tasks, *self._ending]:
            await asyncio.wait(tasks)

    # ----------------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Put back what the last server left: what had not begun waits again, what had begun is a new attempt."""
        jobs = await self._store.read(begun_jobs)
        if jobs:
            await self._store.write(partial(_all_of, works=[partial(_put_back, job=job) for job in jobs]))

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                waits = await self._begin_all()
            except PonderError:
                log.exception("jobs could not be begun")
                waits = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK if waits else None):
                    await self._wake.wait()

    async def _begin_all(self) -> bool:
        """Whether some still wait."""
        waits = False
        for model in await self._store.read(waiting_models):
            while not self._closing:
                if not self._has_room(model):
                    waits = True
                    break
                busy = Counter(watch.job.owner for watch in self.live.values())
                job = await self._store.read(partial(next_waiting, model=model, busy=busy))
                if job is None:
                    break
                await self._begin(job)
        return waits

    def _has_room(self, model: str) -> bool:
        try:
            served = self._models.get(model)
        except NotFound:
            return True  # it fails at once
        admission = self._models.admission(served)
        pending = sum(
            watch.begun_at is None and self._models.admission(self._models.get(watch.job.model)) is admission
            for watch in self.live.values()
        )
        return admission.room > pending

    async def _begin(self, job: StoredJob) -> None:
        if job.batch is not None and job.batch.startswith("batch_") and time.time() > job.created_at + BATCH_SECONDS:
            await self._store.write(AttemptWatch(job, lambda: None, lambda: None).failed(EXPIRED))
            self._changed(job.owner)
            return
        attempt = (await self._store.read(lambda connection: attempts_of(connection, job.id)))[-1]
        reasoning = {**job.request.get("reasoning", {}), **attempt.asked.get("reasoning", {})}
        said = {**job.request, **attempt.asked, **({"reasoning": reasoning} if reasoning else {})}
        branch = said.pop("branch", None)
        if not (job.batch or "").startswith("batch_"):  # whose lines are as the batch API writes them
            said["include"] = ["reasoning.content"]  # a person who watches the job sees it think
        asked = ResponseRequest.model_validate(said)
        watch = AttemptWatch(job, lambda: self._changed(job.owner), lambda: self._gone(job))
        self.live[job.id] = watch
        try:
            strategy = None if branch is None else await branched_answer(self._responses, job.owner, branch)
            await self._responses.attempt(asked, job.owner, watch, lambda id: _attach(job, id), strategy)
        except (_Gone, ShuttingDown):
            self.live.pop(job.id, None)
        except ServeError as error:
            self.live.pop(job.id, None)
            await self._store.write(watch.failed(failure(response_error(error))))
            self._changed(job.owner)

    def _gone(self, job: StoredJob) -> None:
        """Nothing of an attempt runs any more. Its response may have been cancelled or deleted by itself."""
        watch = self.live.pop(job.id, None)
        self._wake.set()
        if watch is not None and not (watch.over or watch.stopping or self._closing):
            task = asyncio.create_task(self._end(watch))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end(self, watch: AttemptWatch) -> None:
        await self._store.write(watch.cancelled())
        self._changed(watch.job.owner)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH)
            works = [work for watch in list(self.live.values()) if watch.begun_at and (work := watch.flush())]
            if works:
                try:
                    await self._store.write(partial(_all_of, works=works))
                except PonderError:
                    log.exception("the figures of running jobs could not be written")


class _Gone(ServeError):
    """The job was cancelled, deleted or begun meanwhile."""


def _attach(job: StoredJob, response_id: str) -> Transaction[object]:
    """The response belongs to the job from now on, which still waits."""

    def work(connection: sqlite3.Connection) -> None:
        found = find_job(connection, job.owner, job.id)
        if found is None or found.revision != job.revision or found.response_id is not None:
            raise _Gone("the job has changed")
        connection.execute("UPDATE jobs SET response_id = ? WHERE id = ?", (response_id, job.id))
        connection.execute(
            "UPDATE job_attempts SET response_id = ? WHERE job = ? AND number = ?", (response_id, job.id, job.attempt)
        )

    return work


def _all_of(connection: sqlite3.Connection, works: Sequence[Transaction[None]]) -> None:
    for work in works:
        work(connection)


def _put_back(connection: sqlite3.Connection, job: StoredJob) -> None:
    attempts = attempts_of(connection, job.id)
    last = attempts[-1]
    if job.state is JobState.QUEUED:  # its response never began
        connection.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (job.response_id, job.owner))
        connection.execute("UPDATE jobs SET response_id = NULL WHERE id = ?", (job.id,))
        put_attempt(connection, job.id, replace(last, response_id=None))
        return
    now = time.time()
    put_attempt(connection, job.id, replace(last, status="failed", ended_at=now))
    job = replace(job, usage=added(job.usage, last.usage))
    if sum(each.kind is AttemptKind.RESTART for each in attempts) >= MOST_RESTARTS:
        put_job(connection, replace(job, state=JobState.FAILED, error=dict(RESTARTED), ended_at=now, seen=False))
        return
    job, (attempt,) = next_attempt(job, AttemptKind.RESTART, now, asked=last.asked, text=last.text)
    put_attempt(connection, job.id, attempt)
    put_job(connection, job)
    used = (last.usage or {}).get("output_tokens", 0)
    add_trace(connection, job.id, [TraceEntry(attempt.number, now, {"type": "restarted", "text": None, "used": used})])
