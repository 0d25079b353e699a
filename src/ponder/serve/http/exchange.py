"""What routes share: the server's state, a request's owner, event streams, and the end of work whose client left."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ponder.serve.answering import Tally
from ponder.serve.batches.service import BatchService
from ponder.serve.errors import ServeError, ShuttingDown, logged
from ponder.serve.http.errors import MESSAGES, ErrorResponse, HttpError, error_object
from ponder.serve.jobs.service import JobService
from ponder.serve.metrics import ServerMetrics
from ponder.serve.models import Models, Served
from ponder.serve.ranking_files import RankingFiles
from ponder.serve.responses.service import ResponseService
from ponder.serve.run_folders import RunFolders
from ponder.serve.settings import Settings
from ponder.tasks.verifiers.reward import RewardModel
from ponder.think.memory.memory import Memory

T = TypeVar("T")
Events = AsyncGenerator[bytes, None]
HOLE = "\0"
KEY_CHECK = 15.0  # seconds between two looks at whether the key of a stream is still valid
KEEP_ALIVE = 15.0  # seconds of silence after which a comment is sent, so that no proxy cuts the connection


@dataclass(slots=True, kw_only=True)
class ServerState:
    """rewards: the reward models, by name.
    memory: notes of owners; None: none are kept.
    runs: the training runs that are shown; None: none are.
    rankings: the files of rankings.
    accepting: False when the server drains.
    ends: when it stops waiting for what runs, on the clock of `time.monotonic`."""

    settings: Settings
    models: Models
    metrics: ServerMetrics
    responses: ResponseService
    jobs: JobService
    batches: BatchService
    rankings: RankingFiles
    rewards: Mapping[str, RewardModel] = field(default_factory=dict)
    memory: Memory | None = None
    runs: RunFolders | None = None
    accepting: bool = True
    ends: float = math.inf

    def drain(self) -> None:
        """Take nothing new; what runs or waits goes on."""
        self.accepting = False
        self.ends = min(self.ends, time.monotonic() + self.settings.drain)
        self.jobs.drain()
        self.responses.drain(self.ends)
        for admission in self.models.admissions.values():
            admission.close()

    @property
    def idle(self) -> bool:
        """No model computes, and no request waits for one."""
        return all(admission.idle for admission in self.models.admissions.values())


def state_of(request: Request) -> ServerState:
    return cast(ServerState, request.app.state.ponder)


def owner_of(request: Request) -> str:
    """The owner whose key the request came with."""
    return cast(str, request.state.owner)


def tally_of(request: Request, served: Served) -> Tally:
    """A tally whose figures stand in the request's line of the log."""
    return Tally(state_of(request).metrics, served.name, request.state.log)


# Streams --------------------------------------------------------------------------------------------------------------


def event(data: Any, name: str | None = None) -> bytes:
    """One event. Its data is JSON on one line, non-ASCII characters escaped."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class Template:
    """An event in which one text changes, and is `HOLE` here: the rest is written once."""

    def __init__(self, data: Any, name: str | None = None) -> None:
        self._before, self._after = event(data, name).split(json.dumps(HOLE).encode())

    def fill(self, text: str) -> bytes:
        return b"%b%b%b" % (self._before, json.dumps(text).encode(), self._after)


class EventStreamResponse(Response):
    """Sends events as they come. When the client leaves, the generator is closed where it stands. What fails before
    the first event is an error response with its own status; what fails later ends the stream with an error event."""

    media_type = "text/event-stream"

    def __init__(self, events: Events) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers.update({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events
        self._sent = 0  # pieces
        self._revoked: HttpError | None = None
        self._sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        working = asyncio.ensure_future(self._send_all(scope, receive, send))
        beating = asyncio.ensure_future(self._beat(send))
        watching = asyncio.ensure_future(self._watch_key(scope, working))
        try:
            if not await unless_gone(receive, working):
                if self._revoked is not None:
                    await self._fail(self._revoked, scope, receive, send)
                left(scope)
        except asyncio.CancelledError:  # the server ends and waits no longer
            await self._fail(ShuttingDown(), scope, receive, send)
        finally:
            await _cancel(beating, watching)

    async def _watch_key(self, scope: Scope, working: asyncio.Future[bool]) -> None:
        """End the stream when its key is valid no more."""
        while True:
            await asyncio.sleep(KEY_CHECK)
            try:
                scope["state"]["still_known"]()  # of `ponder.serve.http.auth`
            except HttpError as error:
                self._revoked = error
                working.cancel()
                return

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Send everything. Returns True, so that it differs from a client that left."""
        try:
            async with aclosing(self._events) as events:
                async for piece in events:
                    await self._send(piece, send)
        except Exception as error:
            await self._fail(logged(error), scope, receive, send)
            return True
        if not self._sent:  # an empty stream is an answer too
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b""})
        return True

    async def _send(self, piece: bytes, send: Send) -> None:
        self._sending = True
        self._sent += 1
        if self._sent == 1:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._sending = False

    async def _fail(self, error: ServeError, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._sent:
            await ErrorResponse(error)(scope, receive, send)
            return
        path = scope["path"]
        told = event(error_object(error, path), "error" if path.startswith(MESSAGES) else None)
        await send({"type": "http.response.body", "body": told, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _beat(self, send: Send) -> None:
        """Send a comment in every long silence, so that no proxy cuts the connection."""
        while True:
            sent = self._sent
            await asyncio.sleep(KEEP_ALIVE)
            if self._sent == sent and not self._sending:
                await self._send(b": keep-alive\n\n", send)


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T | None:
    """The result of `work`; None if the client left first, after `work` was cancelled and has ended."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() and not working.cancelled() else None
    finally:
        await _cancel(working, leaving)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended, by whatever outcome."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it


async def answered(request: Request, work: Coroutine[Any, Any, T]) -> T | Response:
    """The result of `work`, for a route that does not stream; `work` is cancelled when the client leaves."""
    try:
        result = await unless_gone(request.receive, work)
    except asyncio.CancelledError:
        raise ShuttingDown() from None  # the server ends and waits no longer
    if result is None:
        left(request.scope)
        return Response(status_code=499)
    return result


def left(scope: Scope) -> None:
    """Note that the client of a request did not wait for its end."""
    scope["app"].state.ponder.metrics.left()
    scope["state"]["log"]["ended"] = ["disconnect"]
