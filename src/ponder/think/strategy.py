"""What a strategy is: a stream of events that ends in an `Answer`. Strategies are interchangeable, so they nest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ponder.dialogue.messages import ToolCall
from ponder.sampler.protocol import CallDelta, Delta, Sampler
from ponder.think.ask import Ask, AskSettings
from ponder.think.events import Answer, Answered, Asked, Cut, Event, bill
from ponder.think.ledger import Ledger, Spent
from ponder.types import Budget, InvalidRequest, SamplerError


@dataclass(frozen=True, slots=True)
class Demand:
    """How many sequences a strategy may run at once, and in all.

    depth: how many strategies are inside each other; 1: none inside.
    """

    at_once: int
    in_all: int
    depth: int = 1


class NotTaken(InvalidRequest):
    """A setting of an ask that a strategy does not take.

    field: its name.
    """

    def __init__(self, field: str, strategy: str) -> None:
        super().__init__(f"{field} cannot be set beside the strategy {strategy}: leave it out")
        self.field = field


def check_one_answer(ask: Ask, strategy: str) -> None:
    """Raises NotTaken for what a strategy cannot give that chooses one answer from several by its text."""
    if ask.n != 1:
        raise NotTaken("n", strategy)
    for field in ("tools", "logprobs", "top_logprobs"):
        if getattr(ask, field):
            raise NotTaken(field, strategy)


def check_inner(inner: Strategy | None) -> None:
    """Raises InvalidRequest for something else than a strategy inside another one."""
    if inner is not None and not isinstance(inner, Strategy):
        raise InvalidRequest(f"{inner!r} is not a strategy that can give each answer: name the other settings")


@runtime_checkable
class Strategy(Protocol):
    """Answers an ask within a budget.

    Answers are anytime: cancelled, out of time or out of budget, a strategy gives the best so far, and `Answer.cut`
    says why. Where there is nothing yet, a cancellation stays a cancellation. `Ledger.cut` says when nothing more may
    begin.
    """

    @property
    def name(self) -> str: ...

    def demand(self, ask: Ask) -> Demand:
        """Asked before it runs. Raises InvalidRequest for an ask that this strategy does not take."""
        ...

    def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        """The events of one run, `Answered` the last. Samples are drawn by `Samples`, which keeps to the ledger."""
        ...


class RunSettings(AskSettings, total=False):
    """How a question is answered: the settings of an `Ask`, and what answers it.

    strategy: a `Strategy`, or its text: "direct" (the default), "consensus(samples=8)", "file.py:make". What it says of
        its samples itself holds before the settings of the ask.
    budget: what it may spend in all.
    """

    strategy: Strategy | str
    budget: Budget | None


def says_anything(answer: Answer) -> bool:
    """Whether there is anything to read in an answer, its thinking and calls included."""
    parts = answer.message.parts
    return bool(answer.text or answer.reasoning or any(isinstance(part, ToolCall) for part in parts))


async def events_of(
    strategy: Strategy, ask: Ask, sampler: Sampler, ledger: Ledger | None = None
) -> AsyncGenerator[Event, None]:
    """Run a strategy: its events, `Asked` the first, `Answered` the last. The answer has its bill and its trace.

    Raises TooDeep before anything runs for a budget whose depth does not hold the strategy.
    """
    ledger = ledger or Ledger()
    ledger.enter(strategy.name, strategy.demand(ask).depth)
    ledger.limit(ask.deadline)
    ledger.owner = asyncio.current_task()
    asked = Asked(ask, strategy.name)
    trace: list[Event] = [asked]
    stream = strategy.stream(ask, sampler, ledger)
    try:
        yield asked
        async for event in stream:
            if type(event) is Delta or type(event) is CallDelta:
                yield event
                continue
            if type(event) is Answered:
                if event.answer.cut is Cut.CANCELLED and not says_anything(event.answer):
                    raise asyncio.CancelledError
                yield Answered(replace(event.answer, usage=bill(trace), events=tuple(trace)))
                return
            trace.append(event)
            yield event
        raise SamplerError(f"the strategy {strategy.name!r} ended without an answer: make Answered its last event")
    except Spent:
        if ledger.stopped is Cut.CANCELLED:
            raise asyncio.CancelledError from None
        raise
    finally:
        await stream.aclose()
        await ledger.close()


async def answer_of(strategy: Strategy, ask: Ask, sampler: Sampler, ledger: Ledger | None = None) -> Answer:
    """Run a strategy to its answer."""
    events = events_of(strategy, ask, sampler, ledger)
    try:
        async for event in events:
            if type(event) is Answered:
                return event.answer
    finally:
        await events.aclose()
    raise AssertionError("events_of ends in Answered")
