"""What the endpoints convert alike: sampling parameters, tools and tenants in; bills and log-probabilities out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ponder.dialogue import Message, Role, ToolCall, ToolResult
from ponder.dialogue.format import Format
from ponder.dialogue.messages import Conversation
from ponder.dialogue.tools import Tool, check_tools, tools_from_dicts
from ponder.sampler.protocol import Completion, NamedTool, ParallelCalls, SampledToken, ToolChoice
from ponder.sampler.visible import AnswerTokens
from ponder.serve.common.wire import CompletionUsage, FinishReason, OtherTool, Sampled, TokenLogprob, TopLogprob
from ponder.serve.errors import BadRequest, Unsupported
from ponder.serve.models import Served
from ponder.serve.settings import Settings
from ponder.think.ask import Ask
from ponder.tokenizer import Tokenizer
from ponder.types import Effort, FormatError, Segment, StopReason, ThinkingLimits, Usage

ANY_OBJECT = '{"type": "object"}'  # a JSON schema
FINISH_REASONS: dict[StopReason, FinishReason] = {
    StopReason.END: "stop",
    StopReason.STOP: "stop",
    StopReason.LENGTH: "length",
    StopReason.REPEATED: "length",
    StopReason.DEADLINE: "length",
    StopReason.ABORTED: "stop",
    StopReason.FILTERED: "content_filter",
    StopReason.OTHER: "stop",
}

# In -------------------------------------------------------------------------------------------------------------------


def check_sampled(body: Sampled, settings: Settings) -> None:
    """Raises BadRequest for what no request that samples may ask."""
    if body.n > settings.samples:
        raise BadRequest(f"n must be at most {settings.samples} on this server (got {body.n})", param="n")
    if body.stream_options is not None and not body.stream:
        raise BadRequest("stream_options is given without stream: set stream to true", param="stream_options")


def read_sampled(body: Sampled, prompt: Conversation | tuple[int, ...], served: Served, settings: Settings) -> Ask:
    """What every request that samples may ask, as an ask."""
    return Ask(
        prompt=prompt,
        n=body.n,
        temperature=read_temperature(body.temperature, served),
        top_p=body.top_p,
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
        seed=read_seed(body.seed),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        logit_bias=tuple((int(id), bias) for id, bias in (body.logit_bias or {}).items()),
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        deadline=read_deadline(body.deadline, settings),
    )


def read_temperature(given: float | None, served: Served) -> float | None:
    """Where nothing is said: 1, as in the API; None, its own default, for a model on another server."""
    return 1.0 if given is None and served.tokenizer is not None else given


def read_seed(given: int | None) -> int | None:
    return None if given is None else given % 2**63


def read_deadline(seconds: float | None, settings: Settings) -> float | None:
    """On the clock of `time.monotonic`, from now."""
    seconds = seconds or settings.deadline
    return time.monotonic() + seconds if seconds else None


def read_thinking(effort: str | None, budget: int | None, *, named: str) -> tuple[Effort | None, ThinkingLimits | None]:
    """How long to think: as a word, or in tokens.

    named: the field of the effort.
    Raises BadRequest for both.
    """
    if budget is None:
        return None if effort is None else Effort(effort), None
    if effort is not None:
        raise BadRequest(
            f"{named} and thinking_token_budget both set how long to think: give one of them",
            param="thinking_token_budget",
        )
    return None, ThinkingLimits(cap=budget)


def read_answer_room(given: int | None, limit: int | None) -> int | None:
    """Tokens kept for the answer: those asked for. Without a limit on the whole, as many as the effort keeps, so that a
    long thought does not use up the answer's part of the window. Else none."""
    return given if given is not None or limit is None else 0


def instructing_role(role: Role, format: Format | None) -> Role:
    """The role in which instructions are given to the model: a developer's are the system's where its format has no
    developer role. None: the format is not known."""
    return Role.SYSTEM if role is Role.DEVELOPER and format is not None and not format.has_developer else role


def check_late_instructions(format: Format | None, where: str, param: str) -> None:
    """Raises BadRequest for instructions after the first message where the model's format has no place for them."""
    if format is not None and not format.instructs_anywhere:
        raise BadRequest(
            f"{where}: this model's format takes instructions at the beginning only: put them there, or into a message "
            "of the user",
            param=param,
            code="invalid_value",
        )


def results_in_order(messages: Iterable[Message]) -> Iterator[Message]:
    """Results in the order of their calls, as the formats have them, whatever order they came in. Messages without any
    part are left out."""
    order: list[str | None] = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            order = [part.id for part in message.parts if isinstance(part, ToolCall)]
        if message.role is Role.TOOL:
            results = [part for part in message.parts if isinstance(part, ToolResult)]
            results.sort(key=lambda result: order.index(result.id) if result.id in order else len(order))
            message = replace(message, parts=tuple(results))
        if message.parts:
            yield message


def offered(tools: Sequence[Any] | None) -> list[Any]:
    """The functions among the tools. Raises Unsupported where there are only others."""
    functions = [tool for tool in tools or () if not isinstance(tool, OtherTool)]
    if tools and not functions:
        raise Unsupported("tools[0].type", f"{tools[0].type} is not supported: declare functions only")
    return functions


def read_tools(declared: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Tools as chat completions declare them. Raises BadRequest."""
    try:
        tools = tools_from_dicts(list(declared))
        check_tools(tools)
    except FormatError as error:
        raise BadRequest(str(error), param="tools") from None
    return tools


def read_tool_choice(word: str | None, named: str | None, tools: Sequence[Tool]) -> ToolChoice | NamedTool:
    """Without tools, none is called.

    named: the tool that must be called.
    Raises BadRequest.
    """
    if named is None:
        return ToolChoice(word or ("auto" if tools else "none"))
    if named not in (tool.name for tool in tools):
        raise BadRequest(
            f"tool_choice names {named[:100]!r}, which is not among the tools: declare it, or choose another",
            param="tool_choice",
        )
    return NamedTool(named)


def read_parallel_calls(allowed: bool | None) -> ParallelCalls:
    return ParallelCalls.ONE if allowed is False else ParallelCalls.MANY


def tenant(owner: str, key: str | None, served: Served) -> str:
    """The name under which cached prefixes are shared: the owner's, apart by `prompt_cache_key` where one is given. A
    model on another server has its own cache."""
    if served.tokenizer is None:
        return ""
    return owner if key is None else f"{owner}/{key}"


# Out ------------------------------------------------------------------------------------------------------------------


def total_usage(completions: Iterable[Completion]) -> Usage | None:
    """The bill of them all; None: nothing of it was counted (a server that sends no usage)."""
    made = list(completions)
    bill = sum((each.usage for each in made), Usage())
    return None if bill == Usage() and any(each.usage_estimated for each in made) else bill


def completion_usage(completions: Iterable[Completion]) -> CompletionUsage | None:
    """The bill; None where nothing was counted. A state that was computed again after a fold stands apart."""
    bill = total_usage(completions)
    if bill is None:
        return None
    usage: CompletionUsage = {
        "prompt_tokens": bill.prompt_tokens,
        "completion_tokens": bill.completion_tokens,
        "total_tokens": bill.prompt_tokens + bill.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": bill.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
    }
    if bill.refilled_tokens:
        usage["refilled_tokens"] = bill.refilled_tokens
    if bill.parallel_tokens:
        usage["steps"] = bill.steps
    return usage


def finish_reason(completion: Completion) -> FinishReason:
    calls = any(isinstance(part, ToolCall) for part in completion.message.parts)
    if completion.server_reason:
        return completion.server_reason
    reason = FINISH_REASONS[completion.stop_reason]
    return "tool_calls" if calls and reason == "stop" else reason


def answer_logprobs(segment: Segment, text: str, tokenizer: Tokenizer) -> list[TokenLogprob]:
    """The log-probabilities of the answer's tokens, up to where a stop string cut the text."""
    tokens = AnswerTokens(tokenizer)
    tops = segment.top_logprobs or ((),) * len(segment.ids)
    for id, logprob, phase, top in zip(segment.ids, segment.logprobs, segment.phases, tops, strict=True):
        tokens.feed(SampledToken(id, logprob, top), phase)
    return [token_logprob(token, tokenizer) for token in tokens.begun(text)]


def token_logprob(token: SampledToken, tokenizer: Tokenizer) -> TokenLogprob:
    spelled = _spelled(tokenizer.token_bytes(token.id), token.logprob)
    return {**spelled, "top_logprobs": [_spelled(_bytes_of(other, tokenizer), likely) for other, likely in token.top]}


def _bytes_of(id: int, tokenizer: Tokenizer) -> bytes:
    """A control token spells nothing: the token that ended the answer is not shown."""
    return b"" if tokenizer.is_control(id) else tokenizer.token_bytes(id)


def _spelled(token: bytes, logprob: float) -> TopLogprob:
    return {"token": token.decode(errors="replace"), "logprob": max(logprob, -9999.0), "bytes": list(token)}
