"""One resumable stream of what happens to an owner's jobs: changes by number, and the figures of live ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from ponder.serve.jobs.attempt import AttemptWatch
from ponder.serve.jobs.objects import job_object
from ponder.serve.responses.service import ResponseService
from ponder.serve.store.jobs import changes_after, last_change

MOST_AT_ONCE = 200  # changes in one write
PROGRESS = 0.5  # seconds between two looks at the figures of live jobs
SETTLE = 0.02  # seconds that a change waits for others


class JobFeed:
    """The streams of one server.

    live: attempts under way, by the id of their job.
    """

    def __init__(self, responses: ResponseService, live: Mapping[str, AttemptWatch]) -> None:
        self._responses, self._live = responses, live
        self._news: dict[str, asyncio.Event] = {}
        self._closed = False

    def changed(self, owner: str) -> None:
        """Wake the owner's streams."""
        news = self._news.pop(owner, None)
        if news is not None:
            news.set()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for owner in list(self._news):
            self.changed(owner)

    async def follow(self, owner: str, after: int | None) -> AsyncGenerator[bytes, None]:
        """The stream, from number `after` on; None: from now on."""
        store = self._responses.store
        if after is None:
            after = await store.read(lambda c: last_change(c, owner))
        yield sse("open", {"last_event": after}, after)
        shown: dict[str, Any] = {}
        while not self._closed:
            news = self._news.setdefault(owner, asyncio.Event())  # before the look, so that nothing is missed
            changes = await store.read(partial(changes_after, owner=owner, after=after, most=MOST_AT_ONCE))
            if changes.reset:
                after = changes.last
                yield sse("reset", {"last_event": after})
                continue
            told = [(job.changed, sse("job", job_object(job), job.changed)) for job in changes.jobs]
            told += [(number, sse("deleted", {"id": id}, number)) for number, id in changes.deleted]
            if told:
                told.sort()
                after = told[-1][0]
                yield b"".join(each for _, each in told)
                if len(changes.jobs) == MOST_AT_ONCE:
                    continue
            while not news.is_set():
                live = self._moved(owner, shown)
                if live:
                    yield sse("progress", live)
                await _wait(news, PROGRESS if self._has_live(owner) else None)
            await asyncio.sleep(SETTLE)

    def _has_live(self, owner: str) -> bool:
        return any(watch.job.owner == owner for watch in self._live.values())

    def _moved(self, owner: str, shown: dict[str, Any]) -> list[Any]:
        """The figures of the owner's live jobs that are others than this stream has shown."""
        live = {
            id: watch
            for id, watch in self._live.items()
            if watch.job.owner == owner and watch.begun_at and not watch.over
        }
        for id in shown.keys() - live.keys():
            del shown[id]
        moved = []
        for id, watch in live.items():
            figures = watch.progress()
            if shown.get(id) != (figures["used"], figures["phase"], figures["samples"]):
                shown[id] = (figures["used"], figures["phase"], figures["samples"])
                moved.append(figures)
        return moved


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def sse(name: str, data: Any, number: int | None = None) -> bytes:
    """An event of the stream. number: its id; None: it is not kept."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
