"""What `Engine.step()` emits: ids and tags, never text."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.types import Origin, Phase, Segment, StopReason, Usage


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """Token number `index` (from 0) of a request, as it was produced. `logprob` as in `Segment`."""

    request: int
    index: int
    id: int
    phase: Phase
    origin: Origin
    logprob: float


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The end of a request: every token it emitted, why it ended and the bill."""

    request: int
    segment: Segment
    stop_reason: StopReason
    usage: Usage


Event = TokenEvent | FinishEvent
