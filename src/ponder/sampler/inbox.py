"""What the coroutine of one request receives from the engine thread, gathered over a short time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class Inbox(Generic[T]):
    """Items of one request, in its event loop. Waking a coroutine costs more than an item does, so several are taken at
    once: the first as soon as it comes, each later one at most `seconds` after it came, an end at once.

    ends: how many there are among what was taken last.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.ends = 0
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._items: list[T] = []
        self._new_ends = 0
        self._began = self._due = False
        self._taker: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Called in the loop that the inbox was made in, as `end` is."""
        self._items.append(item)
        if self._due:
            return
        if not self._began or not self._seconds:
            self._began = True
            self.wake()
        elif len(self._items) == 1:
            _wake_later(self._loop, self._seconds, self)

    def end(self, item: T) -> None:
        """An item that nobody shall wait for."""
        self._items.append(item)
        self._new_ends += 1
        self.wake()

    async def take(self) -> list[T]:
        """Everything that is there, once some of it is due."""
        while not self._due:
            self._taker = self._loop.create_future()
            await self._taker
        self._due = False
        self.ends, self._new_ends = self._new_ends, 0
        items, self._items = self._items, []
        return items

    def wake(self) -> None:
        """What is there is due."""
        if self._items:
            self._due = True
            if self._taker is not None and not self._taker.done():
                self._taker.set_result(None)


# One timer for all inboxes of a loop that wait equally long: 64 streams would set one each, 50 times a second.
_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, list[Inbox[Any]]]] = WeakKeyDictionary()


def _wake_later(loop: asyncio.AbstractEventLoop, seconds: float, inbox: Inbox[Any]) -> None:
    waiting = _waiting.setdefault(loop, defaultdict(list))[seconds]
    waiting.append(inbox)
    if len(waiting) == 1:
        loop.call_later(seconds, _wake_all, loop, seconds)


def _wake_all(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    for inbox in _waiting[loop].pop(seconds):
        inbox.wake()
