"""One request on its way through the engine: its constraint, its context, and the events it emits."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ponder.engine.blocks import CacheKey, Node
from ponder.kernels.sampling import Pick
from ponder.types import Origin, Phase, PonderError, SamplingParams, Segment, StopReason, TopLogprobs, Usage
from ponder.voices import Floor


class Constraint(Protocol):
    """The state of one sequence's answer under a grammar: which ids it accepts next. `sampler` makes them.

    The engine uses it in the ANSWER and TOOL phases. Thinking, the token that closes it and whatever is forced before
    the answer never reach a constraint. A token that opens thinking or a call does, if it is accepted. While a sequence
    with a constraint thinks, its turn cannot end. A method that raises a PonderError ends its own request, with a
    FailEvent.
    """

    def allowed(self) -> Tensor:
        """allowed_V: True for each id that may come next, on the CPU. The format's end ids are among them where the
        text may end here; at least one id always is."""
        ...

    def advance(self, id: int) -> None:
        """Token `id`, one of the accepted ids, was produced. End ids included."""
        ...

    def fork(self) -> Constraint:
        """An independent copy at the same place."""
        ...


@dataclass(slots=True)  # not frozen: that would make it three times as slow to make
class TokenEvent:
    """Token number `index` (from 0) of a request, as it was produced. `logprob` and `top_logprobs` as in `Segment`.

    voice: of a council, from 0; None outside of councils.
    """

    request: int
    index: int
    id: int
    phase: Phase
    origin: Origin
    logprob: float
    top_logprobs: TopLogprobs = ()
    voice: int | None = None


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The end of a request: every token it emitted, why it ended and the bill. It has more than one segment where
    thoughts were folded."""

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


@dataclass(slots=True, eq=False, kw_only=True)
class Context:
    """Tokens, and the pages that hold the keys and values of the first `computed` of them.

    pages: in the order of their tokens.
    nodes: the leading pages that are in the tree.
    width: how many tokens at the end run in one pass, because what comes next is picked from several of them: those of
        the last step of a council.
    """

    key: CacheKey
    tokens: list[int]
    pages: array[int] = field(default_factory=lambda: array("i"))
    nodes: list[Node] = field(default_factory=list)
    computed: int = 0
    width: int = 1

    @property
    def num_pending(self) -> int:
        """Tokens whose keys and values are not computed yet."""
        return len(self.tokens) - self.computed


@dataclass(slots=True, eq=False, kw_only=True)
class NextTurnPrefix(Context):
    """What the next turn's prompt will begin with: computed beside other work, never sampled.

    closed: nothing more will be appended.
    started: it was looked up in the tree.
    evicted: it lost its pages to others and starts again when it is closed.
    """

    number: int
    closed: bool = False
    started: bool = False
    evicted: bool = False


@dataclass(slots=True)
class OpenCouncil:
    """A council that a sequence is in. floor: who speaks next; None: the number of voices is still to come."""

    floor: Floor | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence(Context):
    """One request's tokens, and what decides the next one.

    tokens: of the present context, prompt and generated.
    pick: of the next token.
    others: picks beside it, one for each further voice of the council.
    sources: for each pick of the next step, how far before the last token the one stands whose logits it is made from.
        Several only where several voices speak; then the picks are `pick` and the first of `others`.
    council: what the sequence is in.
    voices: that a council may have; 1: there are none.
    limit: generate at most this many tokens in all.
    phase: of the next token.
    error: why the sequence cannot go on.
    deadline: on the monotonic clock.
    num_prompt: how many of `tokens` are the prompt.
    num_generated, num_think: over all contexts.
    num_parallel: tokens that a voice said in a step beside a voice before it.
    unbilled: tokens (THINK tokens, parallel tokens) that were generated before this sequence was forked off.
    think_at: where in `tokens` the present thinking begins, after its open token.
    state_at: where an open state begins.
    states: how often each state came at which the thinking was folded; only where repeats are looked for.
    pending: ids still to be forced.
    logprobs, top_logprobs, phases, origins: of the present context's generated tokens.
    """

    request: int
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    pick: Pick
    limit: int
    phase: Phase
    constraint: Constraint | None = None
    others: list[Pick] = field(default_factory=list)
    sources: list[int] = field(default_factory=lambda: [0])
    council: OpenCouncil | None = None
    voices: int = 1
    error: PonderError | None = None
    deadline: float | None = None
    num_prompt: int = 0
    num_cached: int | None = None
    num_refilled: int = 0
    num_generated: int = 0
    num_think: int = 0
    num_parallel: int = 0
    unbilled: tuple[int, int, int] | None = None
    think_at: int = 0
    state_at: int | None = None
    states: Counter[tuple[int, ...]] = field(default_factory=Counter)
    pending: deque[int] = field(default_factory=deque)
    confidences: deque[float] = field(default_factory=deque)
    segments: list[Segment] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    @property
    def picks(self) -> list[Pick]:
        """Those of the next step."""
        return [self.pick, *self.others[: len(self.sources) - 1]]

    def append(self, phase: Phase, pick: Pick, voice: int | None) -> TokenEvent:
        """Append what was picked as the next token, of this phase."""
        index = self.num_generated
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
        return TokenEvent(self.request, index, id, phase, origin, logprob, top, voice)

    def end_segment(self) -> None:
        """End the present context: what was generated in it becomes a segment."""
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
        generated, thought, parallel = self.unbilled or (0, 0, 0)
        usage = Usage(
            prompt_tokens=0 if self.unbilled else len(self.prompt_ids),
            completion_tokens=self.num_generated - generated,
            reasoning_tokens=self.num_think - thought,
            cached_tokens=0 if self.unbilled else self.num_cached or 0,
            refilled_tokens=self.num_refilled,
            parallel_tokens=self.num_parallel - parallel,
        )
        return FinishEvent(self.request, tuple(self.segments), reason, usage)

    def fork(self, request: int, seed: int) -> Sequence:
        """A copy that continues independently; it holds no pages yet."""
        pick = another_pick(self, seed)
        return Sequence(
            key=self.key,
            tokens=list(self.tokens),
            request=request,
            prompt_ids=self.prompt_ids,
            params=self.params,
            pick=pick,
            others=[another_pick(self, seed) for _ in self.others],
            sources=list(self.sources),
            width=self.width,
            voices=self.voices,
            council=None if self.council is None else OpenCouncil(self.council.floor and self.council.floor.copy()),
            limit=self.limit,
            phase=self.phase,
            constraint=None if self.constraint is None else self.constraint.fork(),
            deadline=self.deadline,
            num_prompt=self.num_prompt,
            num_generated=self.num_generated,
            num_think=self.num_think,
            num_parallel=self.num_parallel,
            unbilled=(self.num_generated, self.num_think, self.num_parallel),
            think_at=self.think_at,
            state_at=self.state_at,
            states=self.states.copy(),
            pending=deque(self.pending),
            confidences=deque(self.confidences),
            segments=list(self.segments),
            logprobs=list(self.logprobs),
            top_logprobs=list(self.top_logprobs),
            phases=list(self.phases),
            origins=list(self.origins),
        )


def another_pick(sequence: Sequence, seed: int) -> Pick:
    """A pick of this seed for tokens that follow what `sequence` has read and said."""
    pick = Pick(sequence.params, seed)
    if pick.penalises:
        pick.inherit(sequence.pick)
    return pick
