"""The front door's object: a sampler that is asked questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Unpack

from ponder.sampler.protocol import Sampler
from ponder.sampler.threads import run_sync
from ponder.think.ask import Ask, Asked
from ponder.think.conversation import Conversation
from ponder.think.events import Answer, Event
from ponder.think.ledger import Ledger
from ponder.think.memory.memory import Remembers
from ponder.think.registry import parse_strategy
from ponder.think.strategies.direct import direct
from ponder.think.strategy import RunSettings, Strategy, answer_of, events_of
from ponder.think.streaming import AnswerStream, EventStream
from ponder.types import InvalidRequest

DIRECT = direct()


class Reasoner:
    """Asks a sampler, by a strategy. Every method works inside a running event loop too.

    The settings are the same everywhere, see `RunSettings` and `Ask`. Every call raises InvalidRequest for what cannot
    be served as asked, SamplerError when the sampler fails.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    @property
    def name(self) -> str:
        return self.sampler.name

    def ask(self, asked: Asked, **settings: Unpack[RunSettings]) -> Answer:
        """The answer to a text or to a conversation."""
        return run_sync(self.ask_async(asked, **settings))

    async def ask_async(self, asked: Asked, **settings: Unpack[RunSettings]) -> Answer:
        """`ask`, awaited."""
        strategy, ledger, ask = _parts(asked, settings)
        return await answer_of(strategy, ask, self.sampler, ledger)

    def ask_many(
        self, asked: Sequence[Asked], *, concurrency: int = 64, **settings: Unpack[RunSettings]
    ) -> list[Answer]:
        """The answers to many questions, in their order, at most `concurrency` of them under way at once."""
        return run_sync(self.ask_many_async(asked, concurrency=concurrency, **settings))

    async def ask_many_async(
        self, asked: Sequence[Asked], *, concurrency: int = 64, **settings: Unpack[RunSettings]
    ) -> list[Answer]:
        """`ask_many`, awaited."""
        if concurrency < 1:
            raise InvalidRequest(f"concurrency must be at least 1 (got {concurrency})")
        if isinstance(asked, str):
            raise InvalidRequest("ask_many takes a list of questions, not one text: use ask")
        gate = asyncio.Semaphore(concurrency)

        async def one(each: Asked) -> Answer:
            async with gate:
                return await self.ask_async(each, **settings)

        async with _group() as group:
            tasks = [group.create_task(one(each)) for each in asked]
        return [task.result() for task in tasks]

    def stream(
        self, asked: Asked, *, on_answer: Callable[[Answer], None] | None = None, **settings: Unpack[RunSettings]
    ) -> AnswerStream:
        """The text of the answer piece by piece: iterate over the `Delta`s, then read `.answer`.

        on_answer: called with the whole answer.
        """
        return AnswerStream(EventStream(lambda: self.events_async(asked, **settings), on_answer))

    def events(self, asked: Asked, **settings: Unpack[RunSettings]) -> EventStream:
        """Everything that happens while the strategy runs, event by event: iterate, then read `.answer`."""
        return EventStream(lambda: self.events_async(asked, **settings))

    async def events_async(self, asked: Asked, **settings: Unpack[RunSettings]) -> AsyncGenerator[Event, None]:
        """`events`, as an asynchronous generator."""
        strategy, ledger, ask = _parts(asked, settings)
        events = events_of(strategy, ask, self.sampler, ledger)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    def conversation(
        self,
        *,
        system: str | None = None,
        memory: Remembers | None = None,
        user: str | None = None,
        **settings: Unpack[RunSettings],
    ) -> Conversation:
        """A dialogue of several turns; `settings` hold for all of them.

        memory: where every turn is noted for `user`, and what their later questions recall, when the window has dropped
            it or in another conversation. The window then drops the oldest turns when it is full.
        """
        return Conversation(self, system=system, memory=memory, user=user, settings=settings)

    def close(self) -> None:
        """Free what the sampler holds."""
        run_sync(self.sampler.close())

    def __enter__(self) -> Reasoner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _group(asyncio.TaskGroup):
    """A task group that raises the first error itself, not a group of one."""

    async def __aexit__(self, *details: Any) -> None:
        try:
            await super().__aexit__(*details)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _parts(asked: Asked, settings: RunSettings) -> tuple[Strategy, Ledger, Ask]:
    strategy, budget = settings.get("strategy", DIRECT), settings.get("budget")
    how: Any = {name: value for name, value in settings.items() if name not in ("strategy", "budget")}
    ask = Ask.of(asked, **how)
    return parse_strategy(strategy) if isinstance(strategy, str) else strategy, Ledger(budget), ask
