"""Background responses: run while nobody waits, followed by whoever comes back, ended or run again after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ponder.sampler.protocol import Completion, Done
from ponder.serve import work
from ponder.serve.errors import ApiError, shutting_down, too_busy
from ponder.serve.responses.body import failed, failure, in_words
from ponder.serve.responses.events import EventWriter, Wire
from ponder.serve.responses.read import read_turn
from ponder.serve.responses.schema import ResponseRequest
from ponder.serve.responses.turn import Turn
from ponder.serve.store import Event, Response, Running, Status

if TYPE_CHECKING:
    from ponder.serve.state import State

RESTARTED = {"code": "server_restarted", "message": "the server stopped while this response was in progress: ask again"}


@dataclass(slots=True, eq=False)
class _Job:
    """change: set, and replaced, whenever something of it is kept."""

    turn: Turn
    writer: EventWriter
    release: Callable[[], None]
    task: asyncio.Task[None] | None = None
    begun: bool = False
    change: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Jobs:
    """The background responses that are queued or running, by id."""

    state: State
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _closed: bool = False

    def check_room(self, owner: str, served: str) -> None:
        """Raises ApiError 429 where the owner has as many as it may, 503 once the server stops. Whoever has some shares
        the places with everybody else who has; what was promised to others is kept."""
        if self._closed or not self.state.accepting:
            raise shutting_down()
        owners = [job.turn.owner for job in self._jobs.values()]
        share = self.state.settings.queued_requests // len({*owners, owner})
        if owners.count(owner) >= max(1, share):
            raise too_busy(self.state.models.admissions[served].retry_after)

    def start(self, turn: Turn, writer: EventWriter, release: Callable[[], None]) -> None:
        """Run a response that is stored as queued. release: called when it has ended."""
        job = self._jobs[turn.id] = _Job(turn, writer, release)
        job.task = asyncio.create_task(self._run(job), name=f"response {turn.id}")
        job.task.add_done_callback(lambda task: self._forget(job, task))

    async def cancel(self, owner: str, response: Response) -> None:
        """End a queued or running response. One that ended meanwhile stays as it is."""
        await self.stop(response.id)
        body = {**response.body, "status": Status.CANCELLED.value}
        await self.state.store.move(owner, response.id, Status.CANCELLED, body)

    async def stop(self, id: str) -> None:
        """Work on a response no more, if it is worked on; what is kept of it stays as it is."""
        job = self._jobs.get(id)
        if job is not None and job.task is not None:
            job.task.cancel()
            await asyncio.wait([job.task])

    async def follow(self, owner: str, id: str, after: int) -> AsyncGenerator[Event, None]:
        """The events behind number `after`, those to come included, until the response has ended. Raises NotFound."""
        while True:
            job = self._jobs.get(id)
            change = None if job is None else job.change  # taken before the look, so that nothing is missed
            status, events = await self.state.store.events(owner, id, after)
            for event in events:
                yield event
                after = event.number
            if not events and (change is None or not status.live):
                return
            if not events and change is not None:
                await change.wait()

    async def recover(self) -> None:
        """What the last server left: what had begun is failed, what was queued is run again."""
        for response in await self.state.store.live():
            if response.status is Status.QUEUED and response.running is Running.BACKGROUND:
                await self._take_up(response)
            else:
                await self._fail(response, RESTARTED)

    async def close(self, seconds: float) -> None:
        """Let what runs finish, for so long; then end it. What is still queued is left to the next server."""
        self._closed = True
        for job in list(self._jobs.values()):
            if not job.begun and job.task is not None:
                job.task.cancel()
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for job in list(self._jobs.values()):
            await self.stop(job.turn.id)
            if job.begun:
                await self._fail(job.turn.record(Status.IN_PROGRESS), RESTARTED)

    # ----------------------------------------------------------------------------------------------------------------

    async def _run(self, job: _Job) -> None:
        """To the end, whatever that is. A full queue is waited for: the client has been told that it is queued."""
        turn = job.turn
        try:
            while True:
                try:
                    await self._answer(job)
                    return
                except ApiError as error:
                    if error.status != 429 or job.begun:
                        raise
                    await asyncio.sleep(float(error.headers.get("Retry-After", 1)))
        except Exception as error:
            told = in_words(error)
            if told.body.code != "shutting_down":  # then it stays queued
                await self._fail(turn.record(Status.IN_PROGRESS), failure(told))

    async def _answer(self, job: _Job) -> None:
        turn, writer, store = job.turn, job.writer, self.state.store
        done: list[Completion] = []
        began, first = time.monotonic(), None

        async def begin() -> None:
            job.begun = True
            body = turn.body(Status.IN_PROGRESS)
            await store.move(turn.owner, turn.id, Status.IN_PROGRESS, body, events=[writer.state("in_progress", body)])
            _changed(job)

        batches = work.batches(self.state.models, turn.work, self.state.settings.coalesce / 1000, begin)
        async with aclosing(batches):
            async for batch in batches:
                first = first or time.monotonic() - began
                done += (item.completion for item in batch if isinstance(item, Done))
                events = list(writer.pieces(item for item in batch if not isinstance(item, Done)))
                if events and not await store.add_events(turn.owner, turn.id, events):
                    return  # deleted or cancelled
                _changed(job)
        ended = turn.end(done[0], writer)
        usage, reason = done[0].usage, done[0].stop_reason.value
        self.state.metrics.finished(turn.served.name, usage, [reason], time.monotonic() - began, first)
        await store.move(
            turn.owner,
            turn.id,
            ended.status,
            ended.stored,
            output=ended.output,
            items=ended.items,
            events=ended.events,
        )

    async def _take_up(self, response: Response) -> None:
        try:
            release = self.state.claims.take(response.owner, response.conversation_id)
        except ApiError as error:
            await self._fail(response, failure(error))
            return
        try:
            asked = ResponseRequest.model_validate(response.request)
            turn = await read_turn(asked, response.owner, self.state, response.id, response.created_at)
        except Exception as error:
            release()
            await self._fail(response, failure(in_words(error)))
            return
        number = await self.state.store.last_event(response.id) + 1
        self.start(turn, EventWriter(response.id, turn.dress, number), release)

    async def _fail(self, response: Response, error: Wire) -> None:
        """Its events end with `response.failed`, where it has events."""
        store = self.state.store
        body = failed(response.body, error)
        events = []
        if response.running is Running.BACKGROUND:
            events = [EventWriter.at(await store.last_event(response.id) + 1).state("failed", body)]
        await store.move(response.owner, response.id, Status.FAILED, body, events=events)

    def _forget(self, job: _Job, task: asyncio.Task[None]) -> None:
        self._jobs.pop(job.turn.id, None)
        job.release()
        job.change.set()
        if not task.cancelled():
            task.exception()  # read, so that nobody complains that it was not


def _changed(job: _Job) -> None:
    """Wake whoever follows."""
    change, job.change = job.change, asyncio.Event()
    change.set()
