"""From an ask to its answer: a strategy, a place among what runs, the pieces as they come, and what they cost.

Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ponder.sampler.protocol import Completion, Delivery, Done, Sampler, Streamed
from ponder.serve.admission import CountTokens
from ponder.serve.errors import BadRequest
from ponder.serve.metrics import ServerMetrics
from ponder.serve.models import Models, Served
from ponder.serve.settings import Settings
from ponder.think.ask import Ask
from ponder.think.events import Answered, Cut, Event, Stopped, pieces
from ponder.think.ledger import Ledger
from ponder.think.memory.layer import remembering
from ponder.think.memory.memory import Memory
from ponder.think.registry import parse_strategy
from ponder.think.strategies.direct import direct
from ponder.think.strategy import Demand, NotTaken, Strategy, events_of
from ponder.types import Budget, InvalidRequest, Usage

Pieces = AsyncGenerator[Streamed, None]
Begin = Callable[[], Awaitable[None]]
Ended = Callable[[], None]
DIRECT = direct()


class Watch(Protocol):
    """Follows a run from outside.

    budget: what the run may spend.
    gather: seconds over which pieces of text are gathered.
    keeps: whether a run that is ended early gives the best it has.
    """

    budget: Budget | None
    gather: float
    keeps: bool

    def begin(self, demand: Demand, finish: Callable[[], object]) -> None:
        """The run begins. `finish` ends it early."""

    def see(self, event: Event) -> None:
        """Called with each event, those included that come while a cancelled run ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAsk:
    """An ask, with the model and the strategy that answer it, and its owner.

    demand: how many sequences that takes.
    """

    owner: str
    served: Served
    ask: Ask
    strategy: Strategy
    demand: Demand


def served_ask(
    ask: Ask, served: Served, owner: str, settings: Settings, strategy: str | None = None, models: Models | None = None
) -> ServedAsk:
    """An ask with its strategy: the one that the request names, the model's own, or else one direct answer.

    strategy: as the request spells it; only those of the package can be named.
    models: those that it may name, by their served names; None: none.
    Raises BadRequest for a strategy that is unknown, needs more samples than this server allows, or does not take what
    is asked beside it, and for any where the model has its own.
    """
    if strategy is not None and served.strategy is not None:
        raise BadRequest(
            f"strategy: the model {served.name!r} has its own strategy, {served.strategy.name}: leave it out",
            param="strategy",
        )
    greedy = ask.temperature == 0

    def named(name: str) -> Sampler:
        if models is None or (found := models.get(name)).strategy is not None:
            raise InvalidRequest(f"{name[:100]!r} is not a model that a strategy can use here: name another one")
        return found.sampler

    try:
        chosen = served.strategy or (
            DIRECT if strategy is None else parse_strategy(strategy, files=False, models=named)
        )
        demand = chosen.demand(replace(ask, temperature=None) if greedy else ask)
    except NotTaken as error:
        raise BadRequest(str(error), param=error.field, code="unsupported_parameter") from None
    except InvalidRequest as error:
        raise BadRequest(str(error), param="strategy", code="invalid_value") from None
    if strategy is not None and demand.in_all > settings.samples:
        raise BadRequest(
            f"strategy draws too many samples ({demand.in_all}): this server allows {settings.samples}",
            param="strategy",
        )
    if greedy and demand.in_all > ask.n:  # greedy samples are all the same: then it keeps its own temperature
        ask = replace(ask, temperature=None)
    return ServedAsk(owner=owner, served=served, ask=ask, strategy=chosen, demand=demand)


def with_memory(task: ServedAsk, memory: Memory | None) -> ServedAsk:
    """The task, with the owner's notes recalled before its strategy and the turn noted after it. Raises BadRequest
    where the server keeps no memory, or the conversation has no question."""
    if memory is None:
        raise BadRequest("memory: this server keeps none: start it with `ponder serve --memory FILE`", param="memory")
    around = remembering(task.strategy, memory=memory, user=task.owner, source="chat completions")
    try:
        around.demand(task.ask)
    except InvalidRequest as error:
        raise BadRequest(str(error), param="messages") from None
    return replace(task, strategy=around)


@asynccontextmanager
async def admitted(
    models: Models, served: Served, owner: str, demand: Demand, count: CountTokens, deadline: float | None
) -> AsyncIterator[Ended]:
    """A place among what runs. The value is to be called each time a completion is over in the sampler: the place is
    left with the last of them, however slowly the answer is read, or else with the context."""
    place = await models.admission(served).enter(owner, count, demand.at_once, deadline)
    left = demand.in_all

    def ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            place.leave()

    try:
        yield ended
    finally:
        place.leave()


@asynccontextmanager
async def running(task: ServedAsk, delivery: Delivery, watch: Watch | None = None) -> AsyncIterator[Pieces]:
    """The pieces of the answer's choices as they come, each choice ending in its `Done`. The task has a place."""
    run = events_of(
        task.strategy, task.ask, task.served.sampler, Ledger(watch.budget if watch else None, delivery=delivery)
    )
    async with (
        aclosing(run if watch is None else _watched(run, task.demand, watch)) as events,
        aclosing(_while_wanted(events, watch)) as wanted,
        aclosing(pieces(wanted)) as items,
    ):
        yield items


async def _watched(events: AsyncGenerator[Event, None], demand: Demand, watch: Watch) -> AsyncGenerator[Event, None]:
    """A run in its own task, so that ending it meets the strategy and not what is done with its pieces. When this is
    closed, the run is ended, and all that it still says is seen."""
    came: asyncio.Queue[Event | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    watch.see(event)
                    came.put_nowait(event)
        finally:
            came.put_nowait(None)

    reading = asyncio.create_task(read())
    watch.begin(demand, reading.cancel)
    try:
        while (event := await came.get()) is not None:
            yield event
        await asyncio.wait([reading])
        if not (reading.cancelled() and watch.keeps):  # ended early, before there was anything to keep
            await reading
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()  # retrieved, so that asyncio does not report it


async def _while_wanted(events: AsyncGenerator[Event, None], watch: Watch | None) -> AsyncGenerator[Event, None]:
    """A strategy that is cancelled gives the best answer so far. Here no client waits for it: it stays cancelled,
    unless the watch keeps what there is.

    After a failure of the sampler the ends of samples wait until there is an answer in spite of it: without one the
    failure is all that the client is told.
    """
    failed, ends = False, list[Event]()
    async for event in events:
        if type(event) is Stopped and event.cut is Cut.CANCELLED and not (watch and watch.keeps):
            raise asyncio.CancelledError
        failed = failed or (type(event) is Stopped and event.cut is Cut.FAILED)
        if failed and type(event) is Done:
            ends.append(event)
            continue
        if type(event) is Answered:
            for end in ends:
                yield end
        yield event


async def _at_once() -> None:
    pass


async def answer_pieces(
    models: Models,
    task: ServedAsk,
    *,
    deltas: bool = True,
    gather: float = 0.0,
    begin: Begin = _at_once,
    watch: Watch | None = None,
) -> Pieces:
    """The pieces of the answer's choices as they come, when there is a place for it.

    deltas: False: the ends alone.
    gather: seconds over which pieces are gathered.
    begin: called when there is a place.
    watch: follows the run.
    """
    ask = task.ask

    async def count() -> int:
        return await task.served.sampler.count(ask.prompt)

    async with admitted(models, task.served, task.owner, task.demand, count, ask.deadline) as ended:
        await begin()
        async with running(task, Delivery(deltas=deltas, gather=gather, ended=ended), watch) as items:
            async for item in items:
                yield item


async def completions_of(items: Pieces) -> list[Completion]:
    """The answer's choices, when all of them are there."""
    done: dict[int, Completion] = {}
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Done):
                done[item.index] = item.completion
    return [done[index] for index in sorted(done)]


async def whole_answer(models: Models, task: ServedAsk) -> list[Completion]:
    return await completions_of(answer_pieces(models, task, deltas=False))


class Tally:
    """What one request costs, for the metrics and the log. Begins when it is made.

    log: where the line of the access log that belongs to the request is gathered; None: it has no line.
    """

    def __init__(self, metrics: ServerMetrics, model: str, log: dict[str, Any] | None = None) -> None:
        self._metrics = metrics
        self._model = model
        self._log = log
        self._began = time.monotonic()
        self._first: float | None = None

    def first_token(self) -> None:
        """A piece of the answer came: the first one counts."""
        if self._first is None:
            self._first = time.monotonic() - self._began

    def end(self, completions: Sequence[Completion]) -> None:
        bill = sum((each.usage for each in completions), Usage())
        reasons = [each.stop_reason.value for each in completions]
        self._metrics.finished(self._model, bill, reasons, time.monotonic() - self._began, self._first)
        if self._log is not None:
            self._log |= {
                "model": self._model,
                "first_token": None if self._first is None else round(self._first, 4),
                "prompt_tokens": bill.prompt_tokens,
                "cached_tokens": bill.cached_tokens,
                "completion_tokens": bill.completion_tokens,
                "reasoning_tokens": bill.reasoning_tokens,
                "ended": reasons,
            }
