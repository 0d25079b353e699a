"""Background responses: run while no client waits, followed by clients that come back, ended or run again after a
restart. Each attempt of a job is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from ponder.sampler.protocol import Completion, Done
from ponder.serve.answering import Tally, Watch, answer_pieces
from ponder.serve.errors import QueueFull, ServeError, ShuttingDown
from ponder.serve.metrics import ServerMetrics
from ponder.serve.models import Models
from ponder.serve.responses.events import EventWriter
from ponder.serve.responses.objects import failed, failure, response_error
from ponder.serve.responses.turn import EndedTurn, ResponseTurn
from ponder.serve.responses.wire import (
    ResponseError,
    ResponseRequest,
)
from ponder.serve.settings import Settings
from ponder.serve.store import ResponseStatus, RunMode, Store, StoredEvent, StoredResponse
from ponder.serve.store.database import Transaction
from ponder.think.samples import NOTHING_SAID

Release = Callable[[], None]
Read = Callable[[ResponseRequest, str, str, int], Awaitable[ResponseTurn]]
Lock = Callable[[str, str | None], Release]

RESTARTED: ResponseError = {
    "code": "server_restarted",
    "message": "the server stopped while this response was in progress: ask again",
}


class ResponseWatch(Watch, Protocol):
    """Follows a background response to its end. What it returns is written in the transaction that moves the response,
    so that the two never say different things; `moved` is called afterwards. `gone` is called when nothing of it runs
    any more, whatever it came to."""

    def begun(self) -> Transaction[object]: ...

    def ended(self, ended: EndedTurn) -> Transaction[object]: ...

    def failed(self, error: ResponseError) -> Transaction[object]: ...

    def moved(self) -> None: ...

    def gone(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Job:
    """change: set, and replaced, whenever something of the response is kept."""

    turn: ResponseTurn
    writer: EventWriter
    release: Release
    task: asyncio.Task[None] | None = None
    watch: ResponseWatch | None = None
    begun: bool = False
    change: asyncio.Event = field(default_factory=asyncio.Event)


class BackgroundJobs:
    """The background responses that are queued or running, by id."""

    def __init__(
        self, models: Models, settings: Settings, metrics: ServerMetrics, store: Store, *, read: Read, lock: Lock
    ) -> None:
        """read: makes a turn of a request that is run again. lock: takes its conversation."""
        self._models, self._settings, self._metrics, self._store = models, settings, metrics, store
        self._read, self._lock = read, lock
        self._jobs: dict[str, _Job] = {}
        self._accepting = True

    def __len__(self) -> int:
        return len(self._jobs)

    def drain(self) -> None:
        """Take no new job."""
        self._accepting = False

    def check_room(self, owner: str, model: str) -> None:
        """Owners that have jobs share the places; what was accepted is kept. Raises QueueFull where the owner has its
        share, ShuttingDown after `drain`."""
        served = self._models.get(model)
        if not self._accepting:
            raise ShuttingDown()
        owners = [job.turn.owner for job in self._jobs.values()]
        share = self._settings.queued_requests // len({*owners, owner})
        if owners.count(owner) >= max(1, share):
            raise QueueFull(self._models.admission(served).retry_after)

    def start(
        self, turn: ResponseTurn, writer: EventWriter, release: Release, watch: ResponseWatch | None = None
    ) -> None:
        """Run a response that is stored as queued.

        release: called when it has ended.
        watch: follows it.
        """
        job = self._jobs[turn.id] = _Job(turn, writer, release, watch=watch)
        job.task = asyncio.create_task(self._run(job), name=f"response {turn.id}")
        job.task.add_done_callback(lambda task: self._forget(job, task))

    async def cancel(
        self, owner: str, response: StoredResponse, also: Callable[[], Transaction[object]] | None = None
    ) -> None:
        """End a queued or running response. One that ended meanwhile stays as it is.

        also: called when nothing of it runs any more; what it gives belongs to the same transaction.
        """
        await self.stop(response.id)
        body = {**response.body, "status": ResponseStatus.CANCELLED.value}
        await self._store.move(owner, response.id, ResponseStatus.CANCELLED, body, also=also() if also else None)

    async def stop(self, id: str) -> None:
        """Work on a response no more, if it is worked on; what is kept of it stays as it is."""
        job = self._jobs.get(id)
        if job is not None and job.task is not None:
            job.task.cancel()
            await asyncio.wait([job.task])

    async def follow(self, owner: str, id: str, after: int) -> AsyncGenerator[StoredEvent, None]:
        """The events past number `after`, those to come included, until the response has ended. Raises NotFound."""
        while True:
            job = self._jobs.get(id)
            change = None if job is None else job.change  # taken before the look, so that nothing is missed
            status, events = await self._store.events(owner, id, after)
            for event in events:
                yield event
                after = event.number
            if not events and (change is None or not status.live):
                return
            if not events and change is not None:
                await change.wait()

    async def recover(self) -> None:
        """Answer for what the last server left: what had begun has failed, what was queued is run again."""
        for response in await self._store.live():
            if response.status is ResponseStatus.QUEUED and response.running is RunMode.BACKGROUND:
                await self._run_again(response)
            else:
                await self._fail(response, RESTARTED)

    async def close(self, seconds: float) -> None:
        """Let what runs finish for that many seconds, then end it. What is still queued is left to the next server."""
        self.drain()
        for job in list(self._jobs.values()):
            if not job.begun and job.task is not None:
                job.task.cancel()
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for job in list(self._jobs.values()):
            await self.stop(job.turn.id)
            if job.begun:
                await self._fail(job.turn.record(ResponseStatus.IN_PROGRESS), RESTARTED)

    # ----------------------------------------------------------------------------------------------------------------

    async def _run(self, job: _Job) -> None:
        """To the end, whatever that is. It waits for a full queue: its client knows that it is queued."""
        try:
            while True:
                try:
                    await self._answer(job)
                    return
                except QueueFull as error:
                    if job.begun:
                        raise
                    await asyncio.sleep(error.retry_after)
        except ShuttingDown:
            pass  # it stays queued
        except Exception as error:
            public = failure(response_error(error))
            await self._fail(job.turn.record(ResponseStatus.IN_PROGRESS), public, job.watch)

    async def _answer(self, job: _Job) -> None:
        turn, writer, store, watch = job.turn, job.writer, self._store, job.watch
        done: list[Completion] = []
        tally = Tally(self._metrics, turn.served.name)

        async def begin() -> None:
            job.begun = True
            body = turn.body(ResponseStatus.IN_PROGRESS)
            events = [writer.state("in_progress", body)]
            also = watch.begun() if watch else None
            await store.move(turn.owner, turn.id, ResponseStatus.IN_PROGRESS, body, events=events, also=also)
            _changed(job)
            if watch:
                watch.moved()

        gather = watch.gather if watch else self._settings.coalesce / 1000
        answering = answer_pieces(self._models, turn.task, gather=gather, begin=begin, watch=watch)
        async with aclosing(answering) as pieces:
            async for piece in pieces:
                tally.first_token()
                if isinstance(piece, Done):
                    done.append(piece.completion)
                    continue
                events = list(writer.piece(piece))
                if events and not await store.add_events(turn.owner, turn.id, events):
                    return  # deleted or cancelled
                _changed(job)
        ended = turn.end(done[0] if done else NOTHING_SAID, writer)
        tally.end(done)
        await store.move(
            turn.owner,
            turn.id,
            ended.status,
            ended.stored,
            output=ended.output,
            items=ended.items,
            events=ended.events,
            also=watch.ended(ended) if watch else None,
        )
        if watch:
            watch.moved()

    async def _run_again(self, response: StoredResponse) -> None:
        try:
            release = self._lock(response.owner, response.conversation_id)
        except ServeError as error:
            await self._fail(response, failure(error))
            return
        try:
            asked = ResponseRequest.model_validate(response.request)
            turn = await self._read(asked, response.owner, response.id, response.created_at)
        except Exception as error:
            release()
            await self._fail(response, failure(response_error(error)))
            return
        number = await self._store.last_event(response.id) + 1
        self.start(turn, EventWriter(response.id, turn.view, number), release)

    async def _fail(self, response: StoredResponse, error: ResponseError, watch: ResponseWatch | None = None) -> None:
        """Its events end with `response.failed`, where it has events."""
        body = failed(response.body, error)
        events = []
        if response.running is RunMode.BACKGROUND:
            events = [EventWriter.at(await self._store.last_event(response.id) + 1).state("failed", body)]
        also = watch.failed(error) if watch else None
        await self._store.move(response.owner, response.id, ResponseStatus.FAILED, body, events=events, also=also)
        if watch:
            watch.moved()

    def _forget(self, job: _Job, task: asyncio.Task[None]) -> None:
        self._jobs.pop(job.turn.id, None)
        job.release()
        job.change.set()
        if job.watch:
            job.watch.gone()
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it


def _changed(job: _Job) -> None:
    """Wake the clients that follow."""
    change, job.change = job.change, asyncio.Event()
    change.set()
