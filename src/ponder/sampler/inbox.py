"""What the coroutine of one request receives from the engine thread, gathered over a short time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Items of one request, in its event loop. Waking a coroutine costs more than an item does, so several are taken at
    once: the first as soon as it comes, each later one at most `seconds` after it came, an urgent one at once."""

    def __init__(self, urgent: Callable[[T], bool], seconds: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._urgent = urgent
        self._seconds = seconds
        self._items: list[T] = []
        self._began = self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._taker: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Called in the loop that the inbox was made in."""
        self._items.append(item)
        if self._due:
            return
        if not self._began or not self._seconds or self._urgent(item):
            self._began = True
            self._wake()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._wake)

    async def take(self) -> list[T]:
        """Everything that is there, once some of it is due."""
        while not self._due:
            self._taker = self._loop.create_future()
            await self._taker
        self._due = False
        items, self._items = self._items, []
        return items

    def close(self) -> None:
        """Nobody takes any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = True
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)
