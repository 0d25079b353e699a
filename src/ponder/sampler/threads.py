"""Between threads and event loops: items from the engine thread to coroutines, and synchronous calls of coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class Mailbox(Generic[T]):
    """The items of one request, in its event loop.

    Waking a coroutine costs more than an item does, so several are taken at once: the first as soon as it comes, each
    later one at most `seconds` after it came, an end at once.

    ends: how many ends are among the items taken last.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.ends = 0
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._items: list[T] = []
        self._new_ends = 0
        self._began = self._due = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Add an item. Called in the loop that the mailbox was made in, as `end` is."""
        self._items.append(item)
        if self._due:
            return
        if not self._began or not self._seconds:
            self._began = True
            self.wake()
        elif len(self._items) == 1:
            _wake_later(self._loop, self._seconds, self)

    def end(self, item: T) -> None:
        """Add an item that is due at once."""
        self._items.append(item)
        self._new_ends += 1
        self.wake()

    async def take(self) -> list[T]:
        """Take every item, once some are due."""
        while not self._due:
            self._waiter = self._loop.create_future()
            await self._waiter
        self._due = False
        self.ends, self._new_ends = self._new_ends, 0
        items, self._items = self._items, []
        return items

    def left(self) -> list[T]:
        """Take what is there, due or not."""
        items, self._items = self._items, []
        return items

    def wake(self) -> None:
        """Make the present items due."""
        if self._items:
            self._due = True
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)


# One timer for all inboxes of a loop that wait equally long: 64 streams would set one each, 50 times a second.
_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, list[Mailbox[Any]]]] = WeakKeyDictionary()


def _wake_later(loop: asyncio.AbstractEventLoop, seconds: float, mailbox: Mailbox[Any]) -> None:
    waiting = _waiting.setdefault(loop, defaultdict(list))[seconds]
    waiting.append(mailbox)
    if len(waiting) == 1:
        loop.call_later(seconds, _wake_all, loop, seconds)


def _wake_all(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    for mailbox in _waiting[loop].pop(seconds):
        mailbox.wake()


@dataclass(frozen=True, slots=True, eq=False)
class Sink(Generic[T]):
    """Where the items of one request go: `put`, called in its event loop."""

    loop: asyncio.AbstractEventLoop
    put: Callable[[T], None]


class DeliveryQueue(Generic[T]):
    """Items on their way from the engine thread to event loops. Each loop is woken once for all of its items."""

    def __init__(self) -> None:
        self._batches: dict[asyncio.AbstractEventLoop, list[tuple[Sink[T], T]]] = {}

    def add(self, sink: Sink[T], item: T) -> None:
        self._batches.setdefault(sink.loop, []).append((sink, item))

    def deliver(self) -> set[asyncio.AbstractEventLoop]:
        """Send everything. Returns the loops that were closed meanwhile, whose items are lost."""
        batches, self._batches = self._batches, {}
        closed = set()
        for loop, batch in batches.items():
            try:
                loop.call_soon_threadsafe(_put_all, batch)
            except RuntimeError:
                closed.add(loop)
        return closed


def _put_all(batch: list[tuple[Sink[T], T]]) -> None:
    for sink, item in batch:
        sink.put(item)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result. Inside a running loop it runs in a separate thread, while
    the caller's loop waits. An interrupt cancels it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return _run_in_thread(work)


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def main() -> T:
        task = asyncio.ensure_future(work)
        running.set_result((asyncio.get_running_loop(), task))
        return await task

    result: Future[T] = Future()
    context = contextvars.copy_context()

    def target() -> None:
        try:
            result.set_result(context.run(asyncio.run, main()))
        except BaseException as error:  # handed over whole to the thread that waits
            result.set_exception(error)

    thread = threading.Thread(target=target, name="ponder-run-sync")
    thread.start()
    try:
        return result.result()
    except KeyboardInterrupt:
        loop, task = running.result()
        if not result.done():
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()
