"""Which request begins and which one waits: a bounded queue, fair between owners. What does not fit is refused at
once."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from ponder.serve.errors import DeadlinePassed, QueueFull, ServeError, ShuttingDown

LONGEST_WAIT = 60  # of what Retry-After says, in seconds
MEMORY = 0.1  # weight of the newest request in what a request takes

CountTokens = Callable[[], Awaitable[int]]


class Bound(StrEnum):
    """The bound of the queue that a refused request met."""

    REQUESTS = "queued_requests"
    TOKENS = "queued_tokens"


@dataclass(slots=True, eq=False)
class _Waiter:
    """ready: set when the request has its place; holds an exception when it has lost it."""

    owner: str
    sequences: int
    ready: asyncio.Future[None]
    tokens: int = 0


@dataclass(slots=True, eq=False)
class _Line:
    """One owner's waiting requests, oldest first. tokens: of all of them, as far as they are counted."""

    waiters: OrderedDict[_Waiter, None] = field(default_factory=OrderedDict)
    tokens: int = 0


class Admission:
    """Sequences that run at once, and requests that wait for them.

    Owners take turns, however much each asks. A full queue is shared out too: an owner that has more waiting than the
    newcomer's owner would have loses its newest place. A request begins as soon as any place is free, and then with
    all its sequences: those beyond `running` wait in the engine, so that no place is idle while a large request waits.

    running: sequences at once.
    queued_requests, queued_tokens: most requests that wait, and most tokens of their prompts.
    """

    def __init__(self, *, running: int, queued_requests: int, queued_tokens: int) -> None:
        self._free = self._running = running
        self._bounds = {Bound.REQUESTS: queued_requests, Bound.TOKENS: queued_tokens}
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # the owner whose turn is next stands first
        self._seconds = 1.0  # how long a request has taken lately
        self._closed = False
        self.num_running = self.num_waiting = self.waiting_tokens = 0
        self.refused: Counter[Bound] = Counter()
        self.observe: Callable[[float], object] = lambda seconds: None  # called with the seconds that each waited

    @asynccontextmanager
    async def admit(
        self, owner: str, count: CountTokens, sequences: int = 1, deadline: float | None = None
    ) -> AsyncIterator[None]:
        """`enter`, and leave with the context."""
        place = await self.enter(owner, count, sequences, deadline)
        try:
            yield
        finally:
            place.leave()

    async def enter(self, owner: str, count: CountTokens, sequences: int = 1, deadline: float | None = None) -> Place:
        """Wait for a place.

        count: gives the tokens of the prompt; called only if the request has to wait.
        deadline: on the clock of `time.monotonic`.
        Raises QueueFull, DeadlinePassed, and ShuttingDown after `close`."""
        came = time.monotonic()
        await self._enter(owner, count, sequences, deadline)
        self.observe(time.monotonic() - came)
        return Place(self, sequences)

    def close(self) -> None:
        """Refuse new requests; those that wait still get their places."""
        self._closed = True

    @property
    def idle(self) -> bool:
        """Whether no request runs or waits."""
        return not self.num_running and not self.num_waiting

    @property
    def room(self) -> int:
        """Requests that would begin at once if they came now."""
        return 0 if self.num_waiting else max(0, self._free)

    @property
    def retry_after(self) -> int:
        """Seconds until the queue has likely moved."""
        return min(LONGEST_WAIT, max(1, math.ceil(self._seconds * (self.num_waiting + 1) / self._running)))

    async def _enter(self, owner: str, count: CountTokens, sequences: int, deadline: float | None) -> None:
        if self._closed:
            raise ShuttingDown()
        if not self.num_waiting and self._free > 0:
            self._take(sequences)
            return
        waiter = _Waiter(owner, sequences, asyncio.get_running_loop().create_future())
        self._queue(waiter)
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())) as late:
                tokens = await count()
                if not waiter.ready.done():
                    self._weigh(waiter, tokens)
                await waiter.ready
        except BaseException as error:
            if _has_place(waiter):
                self.leave(sequences)  # the place came after the request had given up
            elif not waiter.ready.done() or waiter.ready.cancelled():
                self._drop(waiter)
            if isinstance(error, TimeoutError) and late.expired():
                raise DeadlinePassed(self.retry_after) from None
            raise

    def refusal(self, owner: str) -> ServeError | None:
        """The refusal that any request of this owner would meet now; None: it would be let in or queued."""
        if self._closed or self.num_waiting < self._bounds[Bound.REQUESTS] or (not self.num_waiting and self._free > 0):
            return None
        return self._refusal(Bound.REQUESTS) if self._victim(owner) is None else None

    def _victim(self, owner: str) -> _Waiter | None:
        """The request that loses its place in a full queue: the newest of the owner with most, if that is more than
        `owner` would have."""
        longest = max(self._lines.values(), key=lambda line: len(line.waiters), default=_Line())
        if len(longest.waiters) <= len(self._line(owner).waiters) + 1:
            return None
        return next(reversed(longest.waiters))

    def _queue(self, waiter: _Waiter) -> None:
        """Let it wait at the end of its owner's line. Raises QueueFull, unless another owner has more in the queue."""
        if self.num_waiting >= self._bounds[Bound.REQUESTS]:
            victim = self._victim(waiter.owner)
            if victim is None:
                raise self._refusal(Bound.REQUESTS)
            self._push_out(victim, Bound.REQUESTS)
        self._lines.setdefault(waiter.owner, _Line()).waiters[waiter] = None
        self.num_waiting += 1

    def _weigh(self, waiter: _Waiter, tokens: int) -> None:
        """Count its tokens, which are known now. Raises QueueFull where they are too many, unless another owner has
        more."""
        over = self.waiting_tokens + tokens - self._bounds[Bound.TOKENS]
        if over > 0:
            longest = max(self._lines.values(), key=lambda line: line.tokens)
            spare = longest.tokens - self._line(waiter.owner).tokens - tokens
            victims: list[_Waiter] = []
            freed = 0
            for other in reversed(longest.waiters):
                if other.tokens and freed < over:
                    victims.append(other)
                    freed += other.tokens
            if not over <= freed <= spare:
                raise self._refusal(Bound.TOKENS)
            for other in victims:
                self._push_out(other, Bound.TOKENS)
        waiter.tokens = tokens
        self._line(waiter.owner).tokens += tokens
        self.waiting_tokens += tokens

    def _line(self, owner: str) -> _Line:
        return self._lines.get(owner) or _Line()

    def _push_out(self, waiter: _Waiter, bound: Bound) -> None:
        self._drop(waiter)
        if not waiter.ready.done():
            waiter.ready.set_exception(self._refusal(bound))

    def _refusal(self, bound: Bound) -> QueueFull:
        self.refused[bound] += 1
        return QueueFull(self.retry_after)

    def _take(self, sequences: int) -> None:
        self._free -= sequences
        self.num_running += 1

    def took(self, seconds: float) -> None:
        """Note how long a request held its place."""
        self._seconds += MEMORY * (seconds - self._seconds)

    def leave(self, sequences: int) -> None:
        """Give a place back."""
        self._free += sequences
        self.num_running -= 1
        self._next()

    def _next(self) -> None:
        """Let waiting requests in, owner by owner, as long as there is room."""
        while self._lines and self._free > 0:
            owner, line = next(iter(self._lines.items()))
            waiter = next(iter(line.waiters))
            self._lines.move_to_end(owner)
            self._drop(waiter)
            if not waiter.ready.done():  # done: it was cancelled, and its task has not run since
                self._take(waiter.sequences)
                waiter.ready.set_result(None)

    def _drop(self, waiter: _Waiter) -> None:
        """Take it out of the queue."""
        line = self._line(waiter.owner)
        if waiter in line.waiters:
            del line.waiters[waiter]
            line.tokens -= waiter.tokens
            self.num_waiting -= 1
            self.waiting_tokens -= waiter.tokens
            if not line.waiters:
                del self._lines[waiter.owner]


def _has_place(waiter: _Waiter) -> bool:
    ready = waiter.ready
    return ready.done() and not ready.cancelled() and ready.exception() is None


class Place:
    """A request's place among those that run, until it is left."""

    def __init__(self, admission: Admission, sequences: int) -> None:
        self._admission = admission
        self._sequences = sequences
        self._began = time.monotonic()
        self._left = False

    def leave(self) -> None:
        """Give it back; a second call does nothing."""
        if not self._left:
            self._left = True
            self._admission.took(time.monotonic() - self._began)
            self._admission.leave(self._sequences)
