"""What `Engine.step()` emits: ids and tags, never text."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.types import Origin, Phase, PonderError, Segment, StopReason, TopLogprobs, Usage


@dataclass(slots=True)  # not frozen: that would make it three times as slow to make
class TokenEvent:
    """Token number `index` (from 0) of a request, as it was produced. `logprob` and `top_logprobs` as in `Segment`."""

    request: int
    index: int
    id: int
    phase: Phase
    origin: Origin
    logprob: float
    top_logprobs: TopLogprobs = ()


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The end of a request: every token it emitted, why it ended and the bill. More than one segment: thoughts were
    folded."""

    request: int
    segments: tuple[Segment, ...]
    stop_reason: StopReason
    usage: Usage

    @property
    def segment(self) -> Segment:
        """The last segment; the only one unless thoughts were folded."""
        return self.segments[-1]

    @property
    def ids(self) -> tuple[int, ...]:
        """Every token, of all segments."""
        return tuple(id for segment in self.segments for id in segment.ids)


@dataclass(frozen=True, slots=True)
class FailEvent:
    """The end of a request that cannot go on (its grammar became too costly): what it has is in `so_far`."""

    error: PonderError
    so_far: FinishEvent

    @property
    def request(self) -> int:
        return self.so_far.request


Event = TokenEvent | FinishEvent | FailEvent
