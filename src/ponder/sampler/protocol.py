"""Where conversations meet tokens: one protocol for the local engine, a remote endpoint and the scripted fake."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from ponder.dialogue.messages import Conversation, Message, ReasoningPolicy
from ponder.dialogue.tools import Tool
from ponder.types import Effort, InvalidRequest, Phase, SamplingParams, Segment, StopReason, TopLogprobs, Usage

if TYPE_CHECKING:
    from ponder.dialogue.format import Format
    from ponder.engine.scheduler import EngineStats
    from ponder.tokenizer import Tokenizer


class Truncation(StrEnum):
    """What to do when a conversation does not fit: refuse with the counts, or drop the oldest turns and say so."""

    DISABLED = "disabled"
    AUTO = "auto"


class NextTurn(StrEnum):
    """What is known of the prompt after this one: how a local engine makes it warm while the answer streams.

    NONE: there is none. VERBATIM: the conversation continues with the message that is given back, its ids included.
    TEXT: the caller sends the visible text back, and it is encoded again.
    """

    NONE = "none"
    VERBATIM = "verbatim"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The visible answer is one JSON value that the schema accepts.

    schema: JSON text.
    """

    schema: str


@dataclass(frozen=True, slots=True)
class Regex:
    """The visible answer matches the whole of a regular expression (Rust's syntax, no look-around)."""

    pattern: str


Grammar = JsonSchema | Regex


class ToolChoice(StrEnum):
    """Whether the answer calls tools.

    AUTO: as the model will. NONE: no call begins. REQUIRED: the answer is calls of declared tools, their arguments kept
    to their schemas.
    """

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The answer is one call of the declared tool `name`, its arguments kept to its schema."""

    name: str


class ParallelCalls(StrEnum):
    """How many calls one answer may make. ONE: the turn ends after the first."""

    MANY = "many"
    ONE = "one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how to sample it.

    prompt: a conversation, or ids that are rendered already (then `start` says which phase they end in).
    n: how many completions; sample i uses seed + i.
    stop: stop strings, matched in the visible answer only.
    effort: a word for samplers that take no exact limits (a remote endpoint). Where `params.thinking` is kept exactly
        (the local engine), an effort is refused.
    grammar: what the visible answer must match; thinking is free. Beside `tools` the answer is that, or calls.
    tools: declared in the prompt (one of ids declares them itself), so that a call of theirs is streamed from its name
        on and kept also where it is cut off.
    tool_choice, parallel_calls: which calls the answer makes, and how many; thinking is free.
    logprobs: a stream's pieces of the answer come with their tokens.
    seconds: wall time from submission; what is there when it is up is given back, with StopReason.DEADLINE.
    tenant: whose prefixes may be shared: cached keys and values of one tenant are never served to another.
    adapter: one that the local engine has, by name; "" for the model as it is.
    unsaid: fields of `params` that hold a default of ours: an endpoint is not sent them, so that its own defaults hold,
        and a default `answer_room` shrinks for a long prompt.
    """

    prompt: Conversation | tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    stop: tuple[str, ...] = ()
    policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN
    truncation: Truncation = Truncation.DISABLED
    start: Phase = Phase.THINK
    effort: Effort | None = None
    grammar: Grammar | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | NamedTool = ToolChoice.AUTO
    parallel_calls: ParallelCalls = ParallelCalls.MANY
    logprobs: bool = False
    seconds: float | None = None
    next_turn: NextTurn = NextTurn.NONE
    tenant: str = ""
    adapter: str = ""
    unsaid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled answer. `segments` is empty where the sampler has no ids to give (a remote endpoint), and more than
    one where thoughts were folded.

    dropped_turns: how many messages `Truncation.AUTO` left out of the prompt.
    usage_estimated: some of the usage is not as a server counted it, but shared out (a remote endpoint).
    server_reason: why it ended in a server's own word, where the stop reason is OTHER.
    """

    message: Message
    stop_reason: StopReason
    usage: Usage
    segments: tuple[Segment, ...] = ()
    dropped_turns: int = 0
    usage_estimated: bool = False
    server_reason: str = ""

    @property
    def answers(self) -> bool:
        """Whether it came to an answer: it is not empty, and nothing cut it off."""
        return self.stop_reason in (StopReason.END, StopReason.STOP) and bool(self.text.strip())

    @property
    def segment(self) -> Segment | None:
        """The last segment, which holds the answer; the only one unless thoughts were folded. None: there is none."""
        return self.segments[-1] if self.segments else None

    @property
    def text(self) -> str:
        return self.message.text

    @property
    def reasoning(self) -> str:
        return self.message.reasoning


@dataclass(frozen=True, slots=True)
class SampledToken:
    """`logprob` and `top` as in `Segment`: its log-probability, and the likeliest ids in its place with theirs."""

    id: int
    logprob: float
    top: TopLogprobs = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of streamed text of one phase. Joined by phase, the deltas equal the completion's texts. A piece that had
    to wait (white space at an edge, a state until it is folded) may come after pieces of a later phase.

    tokens: those that begin in a piece of the answer, where the request asks for `logprobs` and the sampler has them.
    voice: whose it is, in a council (from 0). Joined by voice, such pieces equal what each said; the others, the rest.
    state: the piece is one whole state of folded thinking. refusal: it belongs to a text that is marked as a refusal.
    pieces: how many pieces were joined in this one: about as many tokens.
    """

    index: int
    phase: Phase
    text: str
    tokens: tuple[SampledToken, ...] = ()
    state: bool = False
    refusal: bool = False
    pieces: int = field(default=1, compare=False)
    voice: int | None = None


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of tool call number `call` (from 0) of completion `index`. `name` comes with the first piece, and so does
    `id`, where the sampler has one. Joined, the arguments equal those of the completion's call."""

    index: int
    call: int
    name: str | None
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The end of completion `index` of a stream."""

    index: int
    completion: Completion


Streamed = Delta | CallDelta | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a sampler can do, and within which limits.

    window: the tokens that prompt and completion share. None: not known, and thinking is asked for by `effort`.
    thinking_tokens: how long the model was made to think about one answer, if it folds its thoughts; None: a window.
    parameters: of the model. None: not known.
    repeats: what the model's own files say for `SamplingParams.repeats`.
    voices: the most voices of a council that the model was taught to think in together; 0: none.
    max_sequences: how many completions it computes at once; more wait. None: not known.
    tokenizer, format: by which conversations become ids; None where that happens elsewhere.
    weights: the folder or file that holds the weights as they are now. None: elsewhere, or nowhere.
    scores: whether `score` and `certainty` work.
    gathers: whether `gather` holds requests back.
    computation: what the answers are computed with, as (name, value) pairs; changes when the answers may.
    computes: the same in words, and why nothing faster; "" where that is not known.
    """

    window: int | None = None
    thinking_tokens: int | None = None
    parameters: int | None = None
    repeats: int = 0
    voices: int = 0
    max_sequences: int | None = None
    tokenizer: Tokenizer | None = None
    format: Format | None = None
    weights: str | None = None
    scores: bool = False
    gathers: bool = False
    computation: tuple[tuple[str, object], ...] = ()
    computes: str = ""

    @property
    def exact(self) -> bool:
        """Whether limits on thinking are kept to the token."""
        return self.window is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How the pieces of a stream reach the caller.

    deltas: whether text comes piece by piece; False: only the `Done` of each completion.
    gather: seconds for which a piece may be held back. Pieces of one phase that were held back come joined.
    ended: called in the caller's event loop each time the sampler is done with a completion, taken or not.
    unread: called with the end of each completion that the stream will not give: it was closed, cancelled or broke off.
        Its stop reason is ABORTED unless it was over already; its usage is what it cost. All have been called when the
        stream has ended, and then nothing of the request runs any more.
    """

    deltas: bool = True
    gather: float = 0.0
    ended: Callable[[], object] | None = None
    unread: Callable[[Done], object] | None = None

    def end(self, completions: int = 1) -> None:
        """Call `ended` once for each completion."""
        if self.ended is not None:
            for _ in range(completions):
                self.ended()


AT_ONCE = Delivery()


@runtime_checkable
class Sampler(Protocol):
    """Conversation or ids in, completions with phases, usage and (where known) log-probabilities out.

    Cancelling the awaiting task, or closing the stream, aborts the work. The prompt is counted once: completion 0
    carries its prompt and cached tokens, the others carry 0.
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def sample(self, request: Request) -> list[Completion]: ...

    def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]: ...

    async def score(self, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
        """The log-probability of each id but the first after those before it, and the `top` likeliest there. Raises
        InvalidRequest where `capabilities.scores` is False."""
        ...

    async def certainty(self, ids: Sequence[int], first: int) -> float:
        """The mean self-certainty of the model over the ids from number `first` (at least 1) on: how far its
        distributions there were from uniform, in nats (arXiv 2502.18581). Raises as `score`."""
        ...

    def gather(self, requests: int) -> None:
        """Hold back what comes from now on until it is the given number of requests; then they begin together. 0: hold
        back nothing any more. Does nothing where `capabilities.gathers` is False."""
        ...

    async def count(self, prompt: Conversation | tuple[int, ...]) -> int:
        """The tokens of a prompt, control tokens left out; an estimate where the tokenizer is not here."""
        ...

    async def stats(self) -> EngineStats | None:
        """The counters of the engine; None where there is no engine in this process."""
        ...

    async def close(self) -> None: ...


def check_request(request: Request) -> None:
    """What every sampler refuses. Raises InvalidRequest naming field, value and allowed range."""
    if type(request.n) is not int or request.n < 1:
        raise InvalidRequest(f"n must be an integer of at least 1 (got {request.n!r})")
    for stop in request.stop:
        if not isinstance(stop, str) or not stop:
            raise InvalidRequest(f"each stop must be a string of at least one character (got {stop!r})")
    seconds = request.seconds
    if seconds is not None and not (type(seconds) in (int, float) and math.isfinite(seconds) and seconds > 0):
        raise InvalidRequest(f"seconds must be a finite number above 0 (got {seconds!r})")
    _check_tool_choice(request)
    if not request.prompt:
        raise InvalidRequest("prompt is empty: give at least one message or one id")


def _check_tool_choice(request: Request) -> None:
    """Raises InvalidRequest for choices among tools that are not declared."""
    names = [tool.name for tool in request.tools]
    choice = request.tool_choice
    if isinstance(choice, NamedTool):
        if choice.name not in names:
            raise InvalidRequest(
                f"tool_choice names a tool that is not declared ({choice.name!r}); declared: "
                f"{', '.join(names) or 'none'}"
            )
    elif choice is ToolChoice.REQUIRED and not names:
        raise InvalidRequest("tool_choice is 'required', but no tools are declared: declare one")
    if request.parallel_calls is ParallelCalls.ONE and not names:
        raise InvalidRequest("parallel_calls is 'one', but no tools are declared: leave it at 'many'")


BYTES_PER_TOKEN = 4  # of text whose tokenizer is not here


def texts_of(prompt: Conversation | tuple[int, ...]) -> list[str]:
    """What is encoded to render a prompt. Empty for ids."""
    if prompt and isinstance(prompt[0], int):
        return []
    fields = ("text", "arguments", "content")
    parts = (part for message in cast(Conversation, prompt) for part in message.parts)
    return [text for part in parts for field in fields if (text := getattr(part, field, ""))]


def estimated_tokens(prompt: Conversation | tuple[int, ...]) -> int:
    """How long a prompt is, by the bytes of its text."""
    if prompt and isinstance(prompt[0], int):
        return len(prompt)
    return sum(len(text.encode()) for text in texts_of(prompt)) // BYTES_PER_TOKEN
