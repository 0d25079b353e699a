"""Server-sent events, and noticing that nobody reads them: work ends when its client has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ponder.serve.errors import logged

T = TypeVar("T")
Events = AsyncGenerator[bytes, None]
KEEP_ALIVE = 15.0  # seconds of silence after which a comment is sent, so that nothing between cuts the connection


def event(data: Any, name: str | None = None) -> bytes:
    """One event. Its data is JSON on one line, non-ASCII characters escaped."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Sends events as they come. When the client leaves, the generator is closed where it stands. What fails before
    the first event is an error response with its own status; what fails later ends the stream with an error event."""

    media_type = "text/event-stream"

    def __init__(self, events: Events) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers.update({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False
        try:
            async with aclosing(kept_alive(self._events)) as events:
                async for piece in events:
                    if not began:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        began = True
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:
            told = logged(error)
            if not began:
                await JSONResponse(told.as_json(), told.status, told.headers)(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": event(told.as_json()), "more_body": True})
        if not began:  # nothing to tell is told too
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b""})


async def kept_alive(events: Events) -> Events:
    """`events`, with a comment in every long silence."""
    coming: asyncio.Task[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait([coming], timeout=KEEP_ALIVE)
            if not done:
                yield b": keep-alive\n\n"
                continue
            piece, coming = coming.result(), None
            if not piece:
                return
            yield piece
    finally:
        if coming is not None:
            await _cancel(coming)
        await events.aclose()


async def _next(events: Events) -> bytes:
    return await anext(events, b"")


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; None when the client left first, and then `work` is cancelled and has ended."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await _cancel(working)
        await _cancel(leaving)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end, whatever that is."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # read, so that nobody complains that it was not


async def answered(request: Request, work: Coroutine[Any, Any, T]) -> T | Response:
    """`work` for a route that does not stream: cancelled when its client leaves, and then nobody reads the response."""
    result = await unless_gone(request.receive, work)
    return Response(status_code=499) if result is None else result


async def coalesced(
    items: AsyncGenerator[T, None], seconds: float, ends: Callable[[T], bool]
) -> AsyncGenerator[list[T], None]:
    """Items in lists: the first at once, each later one at most `seconds` after it came, and at once where it `ends`
    something. An error of `items` comes behind what came before it.
    """
    loop = asyncio.get_running_loop()
    bag: list[T] = []
    came, due = asyncio.Event(), asyncio.Event()
    due.set()

    async def gather() -> None:
        try:
            async with aclosing(items) as stream:
                async for item in stream:
                    bag.append(item)
                    came.set()
                    if ends(item):
                        due.set()
        finally:
            came.set()
            due.set()

    gathering = asyncio.ensure_future(gather())
    try:
        while True:
            await came.wait()
            if not due.is_set():
                timer = loop.call_later(seconds, due.set)
                await due.wait()
                timer.cancel()
            came.clear()
            due.clear()
            if bag:
                out, bag[:] = bag[:], []
                yield out
            if gathering.done() and not bag:
                gathering.result()  # raises what it raised
                return
            if gathering.done():
                came.set()
                due.set()
    finally:
        await _cancel(gathering)
