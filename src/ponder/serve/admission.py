"""Who may begin, and who has to wait: a bounded queue, fair between owners. What does not fit is refused at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ponder.serve.errors import shutting_down, too_busy

LONGEST_WAIT = 60  # of what Retry-After says, in seconds


@dataclass(slots=True, eq=False)
class _Waiter:
    ready: asyncio.Future[None]
    sequences: int
    tokens: int


class Admission:
    """Sequences that run at once, and requests that wait for them. Owners take turns, whoever asks most.

    running: sequences (n of a request) at once; a request of more than that runs alone. queued_requests,
    queued_tokens: of those that wait.
    """

    def __init__(self, *, running: int, queued_requests: int, queued_tokens: int) -> None:
        self._free = self._running = running
        self._queued_requests, self._queued_tokens = queued_requests, queued_tokens
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._seconds = 1.0  # how long a sequence has taken lately
        self._closed = False
        self.num_running = self.num_waiting = self.waiting_tokens = self.num_refused = 0

    @asynccontextmanager
    async def admit(self, owner: str, count: Callable[[], int], sequences: int = 1) -> AsyncIterator[None]:
        """Wait for a place. count: the prompt's tokens, asked only where it has to wait. Raises ApiError 429 where the
        queue is full, 503 once the server shuts down."""
        sequences = min(sequences, self._running)
        await self._enter(owner, count, sequences)
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds += 0.1 * (time.monotonic() - began - self._seconds)
            self._leave(sequences)

    def close(self) -> None:
        """Nobody new comes in; whoever waits goes on waiting for its place."""
        self._closed = True

    @property
    def retry_after(self) -> int:
        """Seconds until the queue has likely moved."""
        return min(LONGEST_WAIT, max(1, math.ceil(self._seconds * (self.num_waiting + 1) / self._running)))

    async def _enter(self, owner: str, count: Callable[[], int], sequences: int) -> None:
        if self._closed:
            raise shutting_down()
        if not self.num_waiting and sequences <= self._free:
            self._take(sequences)
            return
        tokens = count() if self.num_waiting < self._queued_requests else 0
        if self.num_waiting >= self._queued_requests or self.waiting_tokens + tokens > self._queued_tokens:
            self.num_refused += 1
            raise too_busy(self.retry_after)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), sequences, tokens)
        self._queues.setdefault(owner, deque()).append(waiter)
        self.num_waiting += 1
        self.waiting_tokens += tokens
        try:
            await waiter.ready
        except asyncio.CancelledError:
            if waiter.ready.done() and not waiter.ready.cancelled():
                self._leave(sequences)  # the place came just when nobody wanted it any more
            else:
                self._queues[owner].remove(waiter)
                self._forget(owner, waiter)
                self._next()
            raise

    def _take(self, sequences: int) -> None:
        self._free -= sequences
        self.num_running += 1

    def _leave(self, sequences: int) -> None:
        self._free += sequences
        self.num_running -= 1
        self._next()

    def _next(self) -> None:
        """Let in whoever is next, owner by owner, as long as there is room."""
        while self._queues:
            owner, queue = next(iter(self._queues.items()))
            waiter = queue[0]
            if waiter.sequences > self._free:
                return
            queue.popleft()
            self._queues.move_to_end(owner)
            self._forget(owner, waiter)
            self._take(waiter.sequences)
            waiter.ready.set_result(None)

    def _forget(self, owner: str, waiter: _Waiter) -> None:
        self.num_waiting -= 1
        self.waiting_tokens -= waiter.tokens
        if not self._queues[owner]:
            del self._queues[owner]
