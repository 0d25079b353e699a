"""Strategies inside a strategy: runs under way at once, whose events come as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from ponder.sampler.protocol import Sampler
from ponder.think.ask import Ask
from ponder.think.events import Answer, Answered, Cut, Event, Started
from ponder.think.ledger import Ledger, Spent
from ponder.think.strategy import Strategy
from ponder.types import SamplerError


class Runs:
    """Runs inside a strategy's own: start some, and iterate over their events while any are under way.

    More may be started during the iteration. A run that fails leaves the others alone.
    on_end: called with the number of each run when it has ended; it may start others.
    answers: of the runs that have ended, by the numbers that `start` gave. A run that failed or never began has none.
    error: of the first run that failed.
    """

    def __init__(self, sampler: Sampler, ledger: Ledger, on_end: Callable[[int], object] | None = None) -> None:
        self.answers: dict[int, Answer] = {}
        self.error: SamplerError | None = None
        self._sampler, self._ledger = sampler, ledger
        self._events: asyncio.Queue[Event | int] = asyncio.Queue()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ledgers: dict[int, Ledger] = {}
        self._started = 0
        self._on_end = on_end
        ledger.opened(self)

    @property
    def under_way(self) -> int:
        """How many runs have not ended."""
        return len(self._tasks)

    def start(self, strategy: Strategy, ask: Ask, *, parts: int = 1, nested: bool = True) -> int:
        """Begin a run with one of `parts` equal slices of what the ledger has left. Returns its number.

        nested: whether it counts as a strategy inside this one; one sample of a strategy's own does not.
        Raises Spent where nothing more may begin, TooDeep, and what `Strategy.demand` raises.
        """
        depth = strategy.demand(ask).depth
        ledger = self._ledger.child(parts) if nested else self._ledger.slice(parts)
        if nested:
            ledger.enter(strategy.name, depth)
        number, self._started = self._started, self._started + 1
        self._ledgers[number] = ledger
        self._tasks[number] = task = asyncio.ensure_future(self._run(number, strategy, ask, ledger))
        task.add_done_callback(lambda _: self._events.put_nowait(number))
        return number

    def stop(self, number: int) -> None:
        """End a run whose result is not needed. It still gives its bill, and the best that it has."""
        if number in self._tasks:
            self._ledgers[number].stop(Cut.DECIDED)
            self._tasks[number].cancel()

    def stop_all(self) -> None:
        """`stop` every run that is under way."""
        for number in list(self._tasks):
            self.stop(number)

    async def _run(self, number: int, strategy: Strategy, ask: Ask, ledger: Ledger) -> None:
        async with aclosing(strategy.stream(ask, self._sampler, ledger)) as events:
            async for event in events:
                if type(event) is Answered:
                    self.answers[number] = event.answer
                elif type(event) is Started:  # a choice of the inner answer is a candidate of the outer one
                    self._events.put_nowait(replace(event, choice=None))
                else:
                    self._events.put_nowait(event)

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Ends when no run is under way. A cancellation stops all of them, and ends the iteration with them."""
        while self._tasks:
            try:
                event = await self._events.get()
            except asyncio.CancelledError:
                self._ledger.take_cancel()
                for each in self._tasks.values():
                    each.cancel()
                continue
            if isinstance(event, int):
                self._end(event)
                if self._on_end is not None:
                    self._on_end(event)
            else:
                yield event

    def _end(self, number: int) -> None:
        """A run is over. Raises what it raised, unless that was the sampler's failure or a spent budget."""
        task, ledger = self._tasks.pop(number), self._ledgers.pop(number)
        ledger.refund()
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, Spent):
            return
        if not isinstance(error, SamplerError):
            raise error
        self.error = self.error or error

    async def aclose(self) -> None:
        """Abort what is under way."""
        tasks = list(self._tasks.values())
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
