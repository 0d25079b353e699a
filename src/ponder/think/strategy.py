"""What a strategy is: a stream of events that ends in an `Answer`. Strategies are interchangeable, so they nest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ponder.dialogue.messages import Message
from ponder.sampler.protocol import AT_ONCE, CallDelta, Completion, Delivery, Delta, Done, Sampler, Streamed
from ponder.think.ask import Ask, AskSettings
from ponder.think.events import Answer, Answered, Asked, Cut, Event, Started, Stopped, Vote, bill
from ponder.types import Budget, InvalidRequest, Phase, SamplerError, StopReason, Usage


@dataclass(frozen=True, slots=True)
class Demand:
    """How many sequences a strategy may run at once, and in all."""

    at_once: int
    in_all: int


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


@runtime_checkable
class Strategy(Protocol):
    """Answers an ask within a budget.

    Answers are anytime: out of time or cancelled, a strategy gives the best so far, and `Answer.cut` says why. Where
    there is nothing yet, a cancellation stays a cancellation.
    """

    @property
    def name(self) -> str: ...

    def demand(self, ask: Ask) -> Demand:
        """Asked before it runs. Raises InvalidRequest for an ask that this strategy does not take."""
        ...

    def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        """The events of one run, `Answered` the last. Samples are drawn by `Samples`, which keeps to the ledger."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """What samples were promised.

    tokens: for each of them; None: no limit of the budget's.
    """

    samples: int
    tokens: int | None


class Ledger:
    """What one run may spend: reserved before a call, settled after it.

    budget: `tokens` bounds all generated tokens (thinking and answers, every sample), `samples` the completions,
        `seconds` the wall time from now on.
    delivery: how the pieces of samples reach the strategy.
    Raises InvalidRequest for a budget that allows nothing.
    """

    def __init__(self, budget: Budget | None = None, *, delivery: Delivery = AT_ONCE) -> None:
        self.budget = budget or Budget()
        self.delivery = delivery
        for field in ("tokens", "samples", "seconds"):
            value = getattr(self.budget, field)
            if value is not None and value <= 0:
                raise InvalidRequest(
                    f"{field} of a budget must be above 0 (got {value}): give more, or None for no limit"
                )
        seconds = self.budget.seconds
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self._tokens, self._samples = self.budget.tokens, self.budget.samples
        self._numbered = 0
        self._streams: list[AsyncGenerator[Streamed, None]] = []

    def reserve(self, samples: int) -> Share:
        """At most `samples`, and as many as the budget has left, each with an equal part of its tokens. Raises
        InvalidRequest where nothing is left."""
        samples = min(each for each in (samples, self._samples, self._tokens) if each is not None)
        if samples < 1:
            raise InvalidRequest(
                f"the budget is used up ({self.budget.tokens} tokens, {self.budget.samples} samples): give more"
            )
        tokens = None if self._tokens is None else self._tokens // samples
        if self._tokens is not None and tokens is not None:
            self._tokens -= tokens * samples
        if self._samples is not None:
            self._samples -= samples
        return Share(samples, tokens)

    def settle(self, share: Share, completion: Completion) -> None:
        """One sample of the share is over: what it left of its tokens is free again. A sample without a bill took all
        that it was promised."""
        spent = completion.usage.completion_tokens
        if self._tokens is not None and share.tokens is not None and (spent or not completion.usage_estimated):
            self._tokens += share.tokens - spent

    def number(self, samples: int) -> int:
        """The number of the first of `samples` new samples of this run."""
        self._numbered += samples
        return self._numbered - samples

    def opened(self, stream: AsyncGenerator[Streamed, None]) -> AsyncGenerator[Streamed, None]:
        """A sampler's stream that is closed with the run, if it has not ended by then."""
        self._streams.append(stream)
        return stream

    async def close(self) -> None:
        """Abort what still runs."""
        while self._streams:
            await self._streams.pop().aclose()


class Samples:
    """Some samples of an ask: iterate over their events, then read what came of them.

    n: how many; fewer where the budget holds fewer.
    temperature: where the ask leaves it open, see `Ask.request`.
    are_choices: they are the answer's choices, in their order.
    finished: completions by sample number. cut: why they were ended early. Each may be drawn once.
    """

    def __init__(
        self,
        ask: Ask,
        sampler: Sampler,
        ledger: Ledger,
        n: int,
        *,
        temperature: float | None = None,
        are_choices: bool = False,
    ) -> None:
        self.finished: dict[int, Completion] = {}
        self.cut: Cut | None = None
        self._share = share = ledger.reserve(n)
        deadlines = [each for each in (ask.deadline, ledger.deadline) if each is not None]
        self._request = ask.request(
            sampler.capabilities,
            n=share.samples,
            temperature=temperature,
            max_tokens=share.tokens,
            deadline=min(deadlines, default=None),
        )
        self._sampler, self._ledger, self._are_choices = sampler, ledger, are_choices
        self.first = ledger.number(share.samples)
        self._said: dict[int, dict[Phase, list[str]]] = {}  # by samples that are not finished

    @property
    def n(self) -> int:
        """How many there are."""
        return self._share.samples

    @property
    def completions(self) -> tuple[Completion, ...]:
        """The finished ones, in the order of their numbers."""
        return tuple(self.finished[sample] for sample in sorted(self.finished))

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """A cancellation before anything was said is passed on."""
        first = self.first
        for index in range(self.n):
            yield Started(first + index, index if self._are_choices else None)
        stream = self._ledger.opened(self._sampler.stream(self._request, self._ledger.delivery))
        try:
            async for event in stream:
                self._follow(event)
                yield replace(event, index=first + event.index) if first else event
        except asyncio.CancelledError:
            if not self.finished and not self._said:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            self.cut = Cut.CANCELLED
        if self.cut is not None:
            yield Stopped(self.cut)

    def _follow(self, event: Streamed) -> None:
        if type(event) is Delta:
            self._said.setdefault(event.index, {}).setdefault(event.phase, []).append(event.text)
        elif type(event) is Done:
            self.finished[self.first + event.index] = event.completion
            self._said.pop(event.index, None)
            self._ledger.settle(self._share, event.completion)
            if event.completion.stop_reason is StopReason.DEADLINE:
                self.cut = Cut.SECONDS
        elif type(event) is CallDelta:  # half of a call is of no use, but something was said
            self._said.setdefault(event.index, {})

    def answer(
        self, chosen: Completion | None = None, *, votes: tuple[Vote, ...] = (), margin: float | None = None
    ) -> Answered:
        """The end of a strategy whose answer is one of these samples. None: what the first of them had said when it was
        cut off; its tokens were not reported."""
        chosen = chosen or self._unfinished()
        completions = self.completions or (chosen,)
        return Answered(
            Answer(
                message=chosen.message,
                stop_reason=chosen.stop_reason,
                completions=completions,
                votes=votes,
                margin=margin,
                cut=self.cut,
                dropped_turns=chosen.dropped_turns,
                usage_estimated=any(each.usage_estimated for each in completions),
            )
        )

    def _unfinished(self) -> Completion:
        said = self._said.get(0, {})
        text, reasoning = ("".join(said.get(phase, ())) for phase in (Phase.ANSWER, Phase.THINK))
        return Completion(
            message=Message.assistant(text, reasoning),
            stop_reason=StopReason.ABORTED,
            usage=Usage(),
            usage_estimated=True,
        )


class RunSettings(AskSettings, total=False):
    """How a question is answered: the settings of an `Ask`, and what answers it.

    strategy: a `Strategy`, or its text: "direct" (the default), "consensus(samples=8)", "file.py:make". What it says of
        its samples itself holds before the settings of the ask.
    budget: what it may spend in all.
    """

    strategy: Strategy | str
    budget: Budget | None


async def events_of(
    strategy: Strategy, ask: Ask, sampler: Sampler, ledger: Ledger | None = None
) -> AsyncGenerator[Event, None]:
    """Run a strategy: its events, `Asked` the first, `Answered` the last. The answer has its bill and its trace."""
    ledger = ledger or Ledger()
    strategy.demand(ask)
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
                yield Answered(replace(event.answer, usage=bill(trace), events=tuple(trace)))
                return
            trace.append(event)
            yield event
        raise SamplerError(f"the strategy {strategy.name!r} ended without an answer: make Answered its last event")
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
