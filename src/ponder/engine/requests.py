"""The checks of what is submitted: each error names the field, its value and the allowed range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ponder.model.config import ModelConfig
from ponder.types import InvalidRequest, Overloaded, Phase, PhaseTokens, SamplingParams, ThinkingLimits, WindowExceeded

MAX_SEED = 2**64 - 1
MAX_TOP_LOGPROBS = 20


def check_prompt(prompt_ids: Sequence[int], vocab_size: int, window: int) -> None:
    """Raises InvalidRequest for a prompt that is empty or holds a foreign id, WindowExceeded when it leaves no room."""
    if not prompt_ids:
        raise InvalidRequest("the prompt is empty: give at least one id")
    check_ids(prompt_ids, vocab_size, "prompt_ids")
    if len(prompt_ids) >= window:
        raise WindowExceeded(
            f"the prompt has {len(prompt_ids)} tokens, but the window of {window} keeps at least 1 to generate: "
            "shorten the prompt",
            prompt_tokens=len(prompt_ids),
            window=window,
        )


def check_ids(ids: Sequence[int], vocab_size: int, field: str = "ids") -> None:
    """Raises InvalidRequest for an id that the model does not have."""
    for position, id in enumerate(ids):
        if type(id) is not int or not 0 <= id < vocab_size:
            raise InvalidRequest(f"{field}[{position}] must be an integer from 0 to {vocab_size - 1} (got {id!r})")


def check_seed(seed: int) -> None:
    """Raises InvalidRequest."""
    _integer("seed", seed, 0, MAX_SEED)


def check_deadline(deadline: float) -> None:
    """Raises InvalidRequest."""
    _number("deadline", deadline, "a finite time of time.monotonic()", lambda value: True)


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Each field on its own. Raises InvalidRequest."""
    for field, kind in (("thinking", ThinkingLimits), ("stop_ids", tuple), ("logit_bias", tuple)):
        value = getattr(params, field)
        if not isinstance(value, kind):
            raise InvalidRequest(f"{field} must be a {kind.__name__} (got {value!r})")
    if params.max_tokens is not None:
        _integer("max_tokens", params.max_tokens, 1)
    _number("temperature", params.temperature, "a finite number of at least 0", lambda value: value >= 0)
    _integer("top_k", params.top_k, 0)
    _number("top_p", params.top_p, "a number above 0 and at most 1", lambda value: 0 < value <= 1)
    _number("min_p", params.min_p, "a number from 0 to 1", lambda value: 0 <= value <= 1)
    if params.seed is not None:
        check_seed(params.seed)
    for id in params.stop_ids:
        _integer("stop_ids", id, 0, vocab_size - 1)
    if params.thinking.cap is not None:
        _integer("thinking.cap", params.thinking.cap, 0)
    _integer("thinking.floor", params.thinking.floor, 0)
    if params.thinking.voices is not None:
        _integer("thinking.voices", params.thinking.voices, 1)
    _integer("answer_room", params.answer_room, 0)
    _integer("repeats", params.repeats, 0)
    _integer("top_logprobs", params.top_logprobs, 0, min(MAX_TOP_LOGPROBS, vocab_size))
    for pair in params.logit_bias:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InvalidRequest(f"each entry of logit_bias must be a pair (id, bias) (got {pair!r})")
        id, bias = pair
        _integer("logit_bias", id, 0, vocab_size - 1)
        _number(f"logit_bias of {id}", bias, "a finite number", lambda value: True)
    for field in ("frequency_penalty", "presence_penalty"):
        _number(field, getattr(params, field), "a finite number", lambda value: True)
    _number("repetition_penalty", params.repetition_penalty, "a number above 0", lambda value: value > 0)
    confidence = params.thinking.confidence
    if confidence is not None:
        _number("thinking.confidence.threshold", confidence.threshold, "a number above 0", lambda value: value > 0)
        _integer("thinking.confidence.window", confidence.window, 1)
        _integer("thinking.confidence.top", confidence.top, 1)


def check_num_waiting(waiting: int, most: int | None) -> None:
    """Raises Overloaded.

    most: None where the number of waiting requests is not limited.
    """
    if most is not None and waiting >= most:
        raise Overloaded(f"{waiting} requests are waiting, which is the limit (max_waiting): try again later")


def check_waiting_tokens(waiting: int, num_tokens: int, most: int) -> None:
    """Raises Overloaded.

    waiting: tokens of all requests that wait.
    num_tokens: of the one to be added.
    """
    if waiting + num_tokens > most:
        raise Overloaded(
            f"requests of {waiting} tokens are waiting, and this one has {num_tokens}, which exceeds the "
            f"limit of {most} (max_waiting_tokens): try again later"
        )


def check_sizes(
    config: ModelConfig,
    tokens: PhaseTokens,
    window: int | None,
    required: Mapping[str, int],
    optional: Mapping[str, int | None],
) -> None:
    """An engine's own sizes. Raises InvalidRequest."""
    longest, vocab_size = config.max_positions, config.vocab_size
    if window is not None and not 2 <= window <= longest:
        raise InvalidRequest(
            f"window must be from 2 to {longest}, the longest that the model was made for (got {window})"
        )
    for name, value in (*required.items(), *optional.items()):
        if value is not None:
            _integer(name, value, 1)
    single = (
        tokens.think_open,
        tokens.think_close,
        tokens.state_open,
        tokens.fold,
        tokens.call_open,
        tokens.call_close,
    )
    for id in (*single, *tokens.continuation, *tokens.lead, *tokens.end):
        if id is not None and not 0 <= id < vocab_size:
            raise InvalidRequest(f"the format's token id {id} is outside the model's vocabulary of {vocab_size}")


def check_speculation(speculate: str, model: ModelConfig, draft: ModelConfig | None) -> None:
    """Raises InvalidRequest.

    draft: of the model that guesses.
    """
    if speculate not in ("auto", "on", "off"):
        raise InvalidRequest(f"speculate must be 'auto', 'on' or 'off' (got {speculate!r})")
    if draft is not None and speculate == "off":
        raise InvalidRequest("a draft model guesses only where speculate is 'auto' or 'on' (got 'off'): leave it out")
    if draft is not None and draft.vocab_size != model.vocab_size:
        raise InvalidRequest(
            f"the draft model has {draft.vocab_size} ids and the model {model.vocab_size}: take one of the same "
            "vocabulary"
        )


def check_thinking(params: SamplingParams, start: Phase, tokens: PhaseTokens, limit: int) -> None:
    """The limits on thinking against the format and against each other.

    limit: tokens that may be generated.

    Raises InvalidRequest where a limit could not be kept.
    """
    if start not in (Phase.THINK, Phase.ANSWER, Phase.TOOL):
        raise InvalidRequest(f"start must be 'think' or 'answer' (got {start!r})")
    if start is Phase.TOOL:
        raise InvalidRequest(
            "start must be 'think' or 'answer' (got 'tool'): a prompt ends inside thinking or before the answer"
        )
    if tokens.think_close is None:
        if start is Phase.THINK:
            raise InvalidRequest("start is 'think', but the format has no token that closes thinking: use 'answer'")
        if params.thinking.floor:
            raise InvalidRequest(
                f"thinking.floor must be 0, because the format has no thinking (got {params.thinking.floor})"
            )
    most = 1 if tokens.council is None else len(tokens.council.numbers)
    if params.thinking.voices is not None and params.thinking.voices > most:
        raise InvalidRequest(
            f"thinking.voices must be from 1 to {most}, which the format can express (got {params.thinking.voices})"
        )
    if start is Phase.THINK and params.thinking.cap == 0:
        raise InvalidRequest(
            "thinking.cap is 0, but the prompt ends inside thinking: render a direct prompt (start='answer') or "
            "allow at least 1 token, the one that closes thinking"
        )
    if start is Phase.THINK and params.answer_room >= limit:
        raise InvalidRequest(
            f"answer_room must be from 0 to {limit - 1} (got {params.answer_room}), because {limit} "
            "tokens may be generated and thinking needs 1 to close: raise max_tokens or shorten the "
            "prompt"
        )


def _integer(field: str, value: object, low: int, high: int | None = None) -> None:
    if type(value) is not int or value < low or (high is not None and value > high):
        allowed = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise InvalidRequest(f"{field} must be {allowed} (got {value!r})")


def _number(field: str, value: object, allowed: str, holds: Callable[[float], bool]) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or not holds(value):
        raise InvalidRequest(f"{field} must be {allowed} (got {value!r})")
