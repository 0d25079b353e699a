"""The shared nouns. No logic beyond arithmetic on themselves; imports nothing of the package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What a generated token is for. The engine tags every token as it is produced."""

    THINK = "think"
    ANSWER = "answer"
    TOOL = "tool"


class Origin(StrEnum):
    """Where a token of a segment came from. Loss falls on SAMPLED tokens only."""

    SAMPLED = "sampled"
    FORCED = "forced"
    ENV = "env"


class StopReason(StrEnum):
    """Why a generation ended."""

    END = "end"  # the model closed its turn
    STOP = "stop"  # a stop id or stop string of the request
    LENGTH = "length"  # max_tokens or the window ran out
    REPEATED = "repeated"  # the model went round in circles, see `SamplingParams.repeats`
    DEADLINE = "deadline"  # the request's time was up
    ABORTED = "aborted"  # the caller gave up
    FILTERED = "filtered"  # a server withheld the rest
    OTHER = "other"  # a server's own reason, see `Completion.server_reason`


class Effort(StrEnum):
    """How long to think. `think.ask.limits` maps each to `ThinkingLimits`."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Usage:
    """The token bill. Adds. `reasoning_tokens` is a part of `completion_tokens`, `cached_tokens` of `prompt_tokens`.

    refilled_tokens: run through the model once more because a thought was folded (a state after its prompt). They are
        neither prompt nor completion.
    parallel_tokens: completion tokens that a voice of a council said in the same step as a voice before it.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    refilled_tokens: int = 0
    parallel_tokens: int = 0

    @property
    def steps(self) -> int:
        """Passes that had to follow each other to generate the completion tokens: the critical path."""
        return self.completion_tokens - self.parallel_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
            self.refilled_tokens + other.refilled_tokens,
            self.parallel_tokens + other.parallel_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceStop:
    """When thinking is given up as lost (DeepConf, arXiv 2508.15260, section 3.2).

    The confidence of a token is minus the mean log-probability of the `top` likeliest ids at its place: high where the
    distribution is peaked. Once its mean over the last `window` THINK tokens falls below `threshold`, the close is
    forced.
    """

    threshold: float
    window: int = 64
    top: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingLimits:
    """Exact control of thinking, in THINK tokens.

    cap: at most this many THINK tokens, the close token included; None: no cap. 0 is a direct prompt.
    floor: the close is suppressed before this many THINK tokens; each time the model wants to close, the
        continuation is put in instead (s1, arXiv 2501.19393, section 3.1). The cap wins over the floor.
    confidence: close where the model's confidence stays low. The floor wins over it.
    voices: a council may have at most this many. 1: there are no councils, and what spawns one is a token like others.
        None: as many as the model was taught to think in, for most 1.
    """

    cap: int | None = None
    floor: int = 0
    confidence: ConfidenceStop | None = None
    voices: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one sequence is sampled. Bad values are an `InvalidRequest` when submitted.

    max_tokens: every token after the prompt counts, thinking included; None: what the window holds. More than the
        window holds can be reached only by folding.
    temperature: 0 is greedy.
    top_k, top_p, min_p: 0, 1 and 0 are off.
    seed: None: drawn from the operating system.
    answer_room: thinking is closed early enough that this many of `max_tokens`, and of the window, are left for the
        answer.
    logit_bias: (id, bias) pairs, added to the logits in every phase; log-probabilities are reported without it.
    frequency_penalty, presence_penalty: subtracted from the logit of an id for each time that it was generated, and
        once if it was.
    repetition_penalty: logits of ids that the prompt or the answer holds are divided by it where positive, multiplied
        where negative (arXiv 1909.05858, section 4.1); 1 is off. Control ids of the format are left alone, and
        log-probabilities are reported without penalties.
    repeats: end where the model repeats itself: a run of at most this many tokens four times in a row, or a state of
        folded thinking four times. 0: never.
    top_logprobs: report that many likeliest ids at each token, with their log-probabilities.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()
    thinking: ThinkingLimits = ThinkingLimits()
    answer_room: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    repeats: int = 0
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CouncilTokens:
    """The ids by which several voices think in one context (`ponder.voices` says in which order they stand).

    spawn: opens a council; the number of its voices follows.
    numbers: the ids that say 1 voice, 2 voices and so on.
    address: opens each lane.
    leave: ends one lane; the other voices go on.
    join: ends the council with this step.
    closing: ids that end a council wherever they stand: they close the thinking or the turn.
    banned: ids that have no place in a lane, those of `closing` among them.
    """

    spawn: int
    numbers: tuple[int, ...]
    address: int
    leave: int
    join: int
    closing: tuple[int, ...]
    banned: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTokens:
    """The control ids by which an engine follows the phases of one dialogue format. None: the format has no such token.

    state_open, fold: open and close a state while thinking; with the close, the context becomes prompt + state.
    continuation: ids put in when the floor suppresses a close ("Wait"); may be empty.
    lead: ids that the format writes between the close of thinking and the answer (a blank line, in some); put in where
        a grammar governs the answer, which then begins after them.
    council: how several voices think in one context.
    end: ids that close the assistant's turn.
    """

    think_open: int | None = None
    think_close: int | None = None
    state_open: int | None = None
    fold: int | None = None
    call_open: int | None = None
    call_close: int | None = None
    continuation: tuple[int, ...] = ()
    lead: tuple[int, ...] = ()
    council: CouncilTokens | None = None
    end: tuple[int, ...] = ()


TopLogprobs = tuple[tuple[int, float], ...]  # (id, natural log-probability), the likeliest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One context's worth of generation: token in, token out. All per-token tuples have the length of `ids`.

    logprobs: natural log, after temperature and before truncation or masks (at temperature 0: of temperature 1).
        A FORCED token carries its log-probability too.
    ids: the end token, when sampled, is kept; so is the token that folds a thought and ends its segment.
    top_logprobs: the likeliest ids at each token's place with their log-probabilities, the likeliest first; empty
        where none were asked for.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    phases: tuple[Phase, ...]
    origins: tuple[Origin, ...]
    weights_version: int
    top_logprobs: tuple[TopLogprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One or more segments with one reward."""

    segments: tuple[Segment, ...]
    reward: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a strategy may spend. None: not limited. Kept exactly.

    tokens: sampled and forced ones, thinking included, of every sample.
    samples: completions begun.
    depth: strategies inside each other; 1: none inside.
    seconds: wall time.
    """

    tokens: int | None = None
    samples: int | None = None
    depth: int | None = None
    seconds: float | None = None


class PonderError(Exception):
    """Base of every error a user can cause. The text says what was wrong, where, and what to do."""


class InvalidRequest(PonderError, ValueError):
    """A request that cannot be served as asked: a bad parameter, an unsupported combination."""


class RefusedByEndpoint(InvalidRequest):
    """What a remote endpoint says of a request that it refuses. Its words may name the endpoint and its insides.

    code: the error's code as the endpoint gave it; None: it gave none.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class WindowExceeded(InvalidRequest):
    """The prompt does not fit the context window."""

    def __init__(self, message: str, *, prompt_tokens: int, window: int) -> None:
        super().__init__(message)
        self.prompt_tokens = prompt_tokens
        self.window = window


class Overloaded(PonderError):
    """The queue is full: nothing was accepted. Try again later, or allow more waiting."""


class CheckpointError(PonderError):
    """A checkpoint that is corrupt, hostile or of an unknown kind. Names the file and the key."""


class WriteError(PonderError):
    """A file that the system does not take: no room, no permission. Names the path, and what is still whole."""


class FormatError(PonderError, ValueError):
    """Ids or messages that break the grammar of a dialogue format."""


class RecipeError(PonderError, ValueError):
    """A recipe with an unknown key, a wrong type or an impossible value."""


class DataError(PonderError, ValueError):
    """Malformed training or evaluation data. Names file and line."""


class SamplerError(PonderError):
    """A sampler (most often a remote endpoint) failed after its retries."""


class RateLimited(SamplerError):
    """A remote endpoint takes no more for now.

    retry_after: seconds, where it said; None: it did not.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GraderError(PonderError):
    """A grader that could not run at all (not: an answer that is wrong)."""


class TaskError(PonderError):
    """A task that does not keep its promises. Names the call and the question."""


class MissingExtra(PonderError, ImportError):
    """An optional dependency is not installed. The text names the extra."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: run `pip install 'ponder[{extra}]'`")
