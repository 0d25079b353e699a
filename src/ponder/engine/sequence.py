"""One request on its way through the engine, and the context that its tokens stand in."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field

from ponder.engine.blocks import CacheKey, Node
from ponder.engine.constraint import Constraint
from ponder.engine.events import FinishEvent, TokenEvent
from ponder.kernels.sampling import Pick
from ponder.types import Origin, Phase, PonderError, SamplingParams, Segment, StopReason, TopLogprobs, Usage


@dataclass(slots=True, eq=False, kw_only=True)
class Context:
    """Tokens, and the pages that hold the keys and values of the first `computed` of them.

    pages: in the order of their tokens. nodes: the leading pages that are in the tree.
    """

    key: CacheKey
    tokens: list[int]
    pages: array[int] = field(default_factory=lambda: array("i"))
    nodes: list[Node] = field(default_factory=list)
    computed: int = 0

    @property
    def num_pending(self) -> int:
        """Tokens whose keys and values are not computed yet."""
        return len(self.tokens) - self.computed


@dataclass(slots=True, eq=False, kw_only=True)
class Shadow(Context):
    """What a later prompt will begin with: computed beside other work, never sampled.

    closed: nothing more will be appended. started: looked up in the tree. gave_way: lost its pages to others; it starts
    anew when it is closed.
    """

    number: int
    closed: bool = False
    started: bool = False
    gave_way: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence(Context):
    """tokens: of the present context, prompt and generated. num_prompt: how many of them are its prompt.

    limit: generate at most this many in all. pick: of the next token. phase: of that token. pending: ids still to be
    put in. error: why the sequence cannot go on. deadline: on the monotonic clock. num_generated, num_think: over all
    contexts. think_at: where in `tokens` the present thinking begins, behind its open token. state_at: where an open
    state does. logprobs, phases, …: of the present context's generated tokens. unbilled: tokens (and THINK tokens) that
    were generated before this sequence was forked off.
    """

    request: int
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    pick: Pick
    limit: int
    phase: Phase
    constraint: Constraint | None = None
    error: PonderError | None = None
    deadline: float | None = None
    num_prompt: int = 0
    num_cached: int | None = None
    num_refilled: int = 0
    num_generated: int = 0
    num_think: int = 0
    unbilled: tuple[int, int] | None = None
    think_at: int = 0
    state_at: int | None = None
    pending: deque[int] = field(default_factory=deque)
    confidences: deque[float] = field(default_factory=deque)
    segments: list[Segment] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    def append(self, phase: Phase) -> TokenEvent:
        """What was picked is the next token, of this phase."""
        pick, index = self.pick, self.num_generated
        id, logprob, origin = pick.id, pick.logprob, Origin.FORCED if pick.put_in else Origin.SAMPLED
        top: TopLogprobs = ()
        self.tokens.append(id)
        self.logprobs.append(logprob)
        self.phases.append(phase)
        self.origins.append(origin)
        if self.params.top_logprobs:
            top = pick.likeliest()
            self.top_logprobs.append(top)
        self.num_generated += 1
        if phase is Phase.THINK:
            self.num_think += 1
        return TokenEvent(self.request, index, id, phase, origin, logprob, top)

    def end_segment(self) -> None:
        """The present context is over: what was generated in it becomes a segment."""
        segment = Segment(
            prompt_ids=tuple(self.tokens[: self.num_prompt]),
            ids=tuple(self.tokens[self.num_prompt :]),
            logprobs=tuple(self.logprobs),
            phases=tuple(self.phases),
            origins=tuple(self.origins),
            weights_version=self.key.version,
            top_logprobs=tuple(self.top_logprobs),
        )
        self.segments.append(segment)
        self.logprobs, self.top_logprobs, self.phases, self.origins = [], [], [], []

    def finish(self, reason: StopReason) -> FinishEvent:
        self.end_segment()
        generated, thought = self.unbilled or (0, 0)
        usage = Usage(
            prompt_tokens=0 if self.unbilled else len(self.prompt_ids),
            completion_tokens=self.num_generated - generated,
            reasoning_tokens=self.num_think - thought,
            cached_tokens=0 if self.unbilled else self.num_cached or 0,
            refilled_tokens=self.num_refilled,
        )
        return FinishEvent(self.request, tuple(self.segments), reason, usage)

    def fork(self, request: int, seed: int) -> Sequence:
        """A copy that goes on by itself; it holds no pages yet."""
        return Sequence(
            key=self.key,
            tokens=list(self.tokens),
            request=request,
            prompt_ids=self.prompt_ids,
            params=self.params,
            pick=Pick(self.params, seed),
            limit=self.limit,
            phase=self.phase,
            constraint=None if self.constraint is None else self.constraint.fork(),
            deadline=self.deadline,
            num_prompt=self.num_prompt,
            num_generated=self.num_generated,
            num_think=self.num_think,
            unbilled=(self.num_generated, self.num_think),
            think_at=self.think_at,
            state_at=self.state_at,
            pending=deque(self.pending),
            confidences=deque(self.confidences),
            segments=list(self.segments),
            logprobs=list(self.logprobs),
            top_logprobs=list(self.top_logprobs),
            phases=list(self.phases),
            origins=list(self.origins),
        )
