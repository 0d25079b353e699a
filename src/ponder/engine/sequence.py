"""One request on its way through the engine."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ponder.engine.events import FinishEvent, TokenEvent
from ponder.types import Origin, Phase, SamplingParams, Segment, StopReason, Usage


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """The tokens of one request and how far their keys and values are computed.

    tokens: prompt and generated ids. computed: of so many leading tokens the cache holds keys and values.
    limit: generate at most this many (max_tokens, or what the window leaves). seed: of 64 bits.
    phase: of the next token. num_think: THINK tokens so far. pending: continuation ids still to be put in.
    """

    request: int
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    limit: int
    phase: Phase
    weights_version: int
    tokens: list[int]
    computed: int = 0
    num_cached: int = 0
    num_think: int = 0
    pending: deque[int] = field(default_factory=deque)
    logprobs: list[float] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    @property
    def num_generated(self) -> int:
        return len(self.phases)

    def append(self, id: int, logprob: float, phase: Phase, origin: Origin) -> TokenEvent:
        index = len(self.phases)
        self.tokens.append(id)
        self.logprobs.append(logprob)
        self.phases.append(phase)
        self.origins.append(origin)
        if phase is Phase.THINK:
            self.num_think += 1
        return TokenEvent(self.request, index, id, phase, origin, logprob)

    def finish(self, reason: StopReason) -> FinishEvent:
        segment = Segment(
            prompt_ids=self.prompt_ids,
            ids=tuple(self.tokens[len(self.prompt_ids) :]),
            logprobs=tuple(self.logprobs),
            phases=tuple(self.phases),
            origins=tuple(self.origins),
            weights_version=self.weights_version,
        )
        usage = Usage(
            prompt_tokens=len(self.prompt_ids),
            completion_tokens=self.num_generated,
            reasoning_tokens=self.num_think,
            cached_tokens=self.num_cached,
        )
        return FinishEvent(self.request, (segment,), reason, usage)
