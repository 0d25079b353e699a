"""Samples of one ask, drawn by one request within the ledger: the call that every strategy is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from ponder.dialogue.messages import Message
from ponder.sampler.protocol import Completion, Done, Sampler
from ponder.think.ask import Ask
from ponder.think.events import Answer, Answered, Cut, Event, Started, Stopped, Vote
from ponder.think.ledger import Ledger
from ponder.types import SamplerError, StopReason, Usage

NOTHING_SAID = Completion(message=Message.assistant(""), stop_reason=StopReason.ABORTED, usage=Usage())


class Samples:
    """Some samples of an ask: iterate over their events, then read what came of them. Each may be drawn once.

    n: how many; fewer where the budget holds fewer. Raises Spent where it holds none, or the run was stopped.
    temperature: where the ask leaves it open, see `Ask.request`.
    are_choices: they are the answer's choices, in their order.
    role: what the samples are for, as the bill names it.
    finished: completions by sample number, those included that were cut off.
    cut: why they were ended early.
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
        role: str = "sample",
    ) -> None:
        self.finished: dict[int, Completion] = {}
        self.cut: Cut | None = None
        self._share = share = ledger.reserve(n)
        if share.samples < n:
            self.cut = Cut.TOKENS if share.tokens == 1 else Cut.SAMPLES
        capabilities = sampler.capabilities
        self._parameters = capabilities.parameters
        self._request = ask.request(
            capabilities,
            n=share.samples,
            temperature=temperature,
            max_tokens=share.tokens,
            deadline=ledger.deadline,
        )
        self._sampler, self._ledger, self._are_choices, self._role = sampler, ledger, are_choices, role
        self.first = ledger.number(share.samples)
        self._unread: list[Done] = []

    @property
    def n(self) -> int:
        """How many there are."""
        return self._share.samples

    @property
    def completions(self) -> tuple[Completion, ...]:
        """The finished ones, in the order of their numbers."""
        return tuple(self.finished[sample] for sample in sorted(self.finished))

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Raises SamplerError where the sampler failed before a sample came to an answer. What it had sent by then is
        billed either way."""
        first = self.first
        for index in range(self.n):
            choice = index if self._are_choices else None
            yield Started(first + index, choice, self._ledger.path, self._role, self._sampler.name, self._parameters)
        delivery = replace(self._ledger.delivery, unread=self._unread.append)
        stream = self._sampler.stream(self._request, delivery)
        self._ledger.opened(stream)
        failure: SamplerError | None = None
        try:
            await meet_cancel(self._ledger)
            async for event in stream:
                if type(event) is Done:
                    self._end(event)
                yield replace(event, index=first + event.index) if first else event
        except asyncio.CancelledError:
            self.cut = self._ledger.take_cancel()
        except SamplerError as error:
            failure, self.cut = error, Cut.FAILED
        finally:
            self._ledger.ended(stream)
        if self.cut is not None:
            yield Stopped(self.cut, self._ledger.path, str(failure or ""))
        for done in self._rest():
            self._end(done)
            yield replace(done, index=first + done.index)
        if failure is not None and not any(each.answers for each in self.completions):
            raise failure

    def _rest(self) -> list[Done]:
        """The ends that the stream did not give. What never began has cost nothing."""
        ended = {sample - self.first for sample in self.finished} | {done.index for done in self._unread}
        return [*self._unread, *(Done(index, NOTHING_SAID) for index in range(self.n) if index not in ended)]

    def _end(self, done: Done) -> None:
        self.finished[self.first + done.index] = done.completion
        self._ledger.settle(self._share, done.completion)
        if done.completion.stop_reason is StopReason.DEADLINE:
            self.cut = self._ledger.stop(Cut.SECONDS)

    def answer(
        self, chosen: Completion | None = None, *, votes: tuple[Vote, ...] = (), margin: float | None = None
    ) -> Answered:
        """The end of a strategy whose answer is one of these samples. None: the first of them, however far it came."""
        return answer_from(self.completions, chosen, votes=votes, margin=margin, cut=self.cut or self._ledger.stopped)


HOPS = 100  # of the event loop, within which a cancellation reaches the calls of a run


async def meet_cancel(ledger: Ledger) -> None:
    """Let a cancellation of the run arrive that was asked for already: no call begins after it."""
    for _ in range(HOPS):
        if ledger.stopped is not None:
            raise asyncio.CancelledError
        if not ledger.is_cancelling:
            return
        await asyncio.sleep(0)


def answer_from(
    completions: Sequence[Completion],
    chosen: Completion | None = None,
    *,
    votes: tuple[Vote, ...] = (),
    margin: float | None = None,
    cut: Cut | None = None,
) -> Answered:
    """The end of a strategy whose answer is one of several completions.

    chosen: None: the first of them, however far it came.
    """
    chosen = chosen or (completions[0] if completions else NOTHING_SAID)
    return Answered(
        Answer(
            message=chosen.message,
            stop_reason=chosen.stop_reason,
            completions=tuple(completions) or (chosen,),
            votes=votes,
            margin=margin,
            cut=cut,
            dropped_turns=chosen.dropped_turns,
            usage_estimated=any(each.usage_estimated for each in completions),
        )
    )
