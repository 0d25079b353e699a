"""One request, sampled through the stream so that what is finished, or half said, is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ponder.sampler.protocol import CallDelta, Completion, Delta, Done, Request, Sampler, Streamed
from ponder.think import effort as efforts
from ponder.think.protocol import Question
from ponder.types import Budget, Effort, InvalidRequest, Phase, SamplingParams, ThinkingLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a strategy samples: for how long as `effort` says, or in tokens, `thinking`; without either it is medium
    where limits are kept exactly, and an endpoint's own default. answer_room: beside `thinking`, tokens kept for the
    answer; None: as many as an effort keeps."""

    effort: Effort | None = None
    thinking: ThinkingLimits | None = None
    answer_room: int | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None

    @classmethod
    def of(cls, effort: Effort | str | None, thinking: ThinkingLimits | int | None, **settings: Any) -> Sampling:
        """An effort by its name, a cap by its number. Raises InvalidRequest for both at once."""
        if effort is not None and thinking is not None:
            raise InvalidRequest(
                "effort and thinking both say how long to think: give an effort, or thinking in tokens"
            )
        limits = ThinkingLimits(cap=thinking) if isinstance(thinking, int) else thinking
        return cls(effort=None if effort is None else efforts.parse_effort(effort), thinking=limits, **settings)

    def request(self, question: Question, sampler: Sampler, budget: Budget, n: int) -> Request:
        """One request for `n` completions whose tokens stay within the budget, split evenly."""
        share = None if budget.tokens is None else budget.tokens // n
        if share == 0:
            raise InvalidRequest(f"a budget of {budget.tokens} tokens is less than one token for each of {n} samples")
        max_tokens = min((each for each in (self.max_tokens, share) if each is not None), default=None)
        params = SamplingParams(max_tokens=max_tokens, temperature=self.temperature, seed=self.seed)
        request = Request(
            prompt=question.conversation,
            n=n,
            policy=question.policy,
            truncation=question.truncation,
            grammar=question.grammar,
            params=params,
        )
        window = window_of(sampler)
        if window is None and self.thinking is None:
            return replace(request, effort=self.effort)
        longest: int | None = getattr(sampler, "thinking_tokens", None)
        thinking = self.thinking or efforts.limits(self.effort or Effort.MEDIUM, window or 0, longest)
        room = self._answer_room(thinking, window, max_tokens)
        folds = self.thinking is not None or longest is not None  # may: then its thoughts may be more than a window
        if folds and thinking.cap and max_tokens is None and window is not None:
            params = replace(params, max_tokens=max(thinking.cap + room, window))
        return replace(request, params=replace(params, thinking=thinking, answer_room=room))

    def _answer_room(self, thinking: ThinkingLimits, window: int | None, max_tokens: int | None) -> int:
        if self.answer_room is not None:
            return self.answer_room
        return 0 if thinking.cap == 0 or window is None else efforts.answer_room(window, max_tokens)


def window_of(sampler: Sampler) -> int | None:
    """The context window of a sampler that holds exact limits; None for one that takes an effort as a word."""
    return cast("int | None", getattr(sampler, "window", None))


@dataclass(slots=True)
class Collected:
    """What a stream gave before it ended: finished completions by index, and the text of the unfinished ones.

    cut: "seconds" or "cancelled" when it was ended early.
    """

    finished: dict[int, Completion] = field(default_factory=dict)
    partial: dict[int, dict[Phase, str]] = field(default_factory=dict)
    cut: str | None = None

    def take(self, event: Streamed) -> None:
        if isinstance(event, Done):
            self.finished[event.index] = event.completion
            self.partial.pop(event.index, None)
            return
        texts = self.partial.setdefault(event.index, {})
        if not isinstance(event, CallDelta):  # a call is no text, and half of one is of no use
            texts[event.phase] = texts.get(event.phase, "") + event.text


async def collect(
    sampler: Sampler, request: Request, seconds: float | None, listen: Callable[[Delta], None] | None = None
) -> Collected:
    """Sample `request` for at most `seconds`. A cancellation before anything was said is passed on."""
    collected = Collected()
    try:
        async with asyncio.timeout(seconds), aclosing(_closable(sampler.stream(request))) as stream:
            async for event in stream:
                collected.take(event)
                if listen is not None and isinstance(event, Delta):
                    listen(event)
    except TimeoutError:
        collected.cut = "seconds"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        if not collected.finished and not collected.partial:
            raise
        task.uncancel()
        collected.cut = "cancelled"
    return collected


def _closable(stream: AsyncIterator[Streamed]) -> AsyncGenerator[Streamed, None]:
    """The protocol's promise that a stream can be closed, in a type."""
    return cast("AsyncGenerator[Streamed, None]", stream)
