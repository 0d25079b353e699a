"""Requests as OpenAI-compatible servers read them. What a dialect cannot say is refused by name, never left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from ponder.dialogue.messages import Conversation, Message, ReasoningPolicy, Role, Text, ToolCall, ToolResult
from ponder.dialogue.tools import Arguments, Tool, check_tools, tool_dict
from ponder.sampler.protocol import JsonSchema, NamedTool, ParallelCalls, Regex, Request, ToolChoice, Truncation
from ponder.types import Effort, InvalidRequest, SamplingParams


class Dialect(StrEnum):
    """How a server spells what the common core of the API leaves open.

    OPENAI: `reasoning_effort`, `max_completion_tokens`; reasoning stays hidden, its tokens are counted.
    VLLM: `reasoning` out, `top_k`, `min_p`, `stop_token_ids`, `thinking_token_budget`, `chat_template_kwargs`.
    DEEPSEEK: `reasoning_content` out, `thinking` on or off, one completion per request.
    """

    OPENAI = "openai"
    VLLM = "vllm"
    DEEPSEEK = "deepseek"


LARGEST_BIAS = 100.0  # of the API; larger ones are refused by some servers and cut by others
REASONING_FIELD = {Dialect.VLLM: "reasoning", Dialect.DEEPSEEK: "reasoning_content"}


def request_body(request: Request, model: str, dialect: Dialect, *, stream: bool) -> dict[str, Any]:
    """The JSON of a chat completion request. Raises InvalidRequest naming every part the dialect cannot express.

    The ids of `logit_bias` and `stop_ids` are the server's own. `next_turn` is a hint and says nothing on the wire;
    `seconds` is kept on this side of it.
    """
    refused = list(_inexpressible(request, dialect))
    if refused:
        raise InvalidRequest(f"an endpoint of the {dialect} dialect cannot express: {'; '.join(refused)}")
    params = request.params
    body: dict[str, Any] = {
        "model": model,
        "messages": list(_messages(request, dialect)),
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
        if dialect is Dialect.VLLM:  # so that the bill of a stream that is closed early is known
            body["stream_options"]["continuous_usage_stats"] = True
    if request.n > 1:
        body["n"] = request.n
    optional = {
        "temperature": None if "temperature" in request.unsaid else params.temperature,
        "top_p": None if "top_p" in request.unsaid else params.top_p,
        "max_completion_tokens" if dialect is Dialect.OPENAI else "max_tokens": params.max_tokens,
        "seed": params.seed,
        "stop": list(request.stop) or None,
        "top_k": params.top_k or None,
        "min_p": params.min_p or None,
        "stop_token_ids": list(params.stop_ids) or None,
        "logit_bias": {str(id): bias for id, bias in params.logit_bias} or None,
        "frequency_penalty": params.frequency_penalty or None,
        "presence_penalty": params.presence_penalty or None,
        "repetition_penalty": None if params.repetition_penalty == 1 else params.repetition_penalty,
        "response_format": _response_format(request),
        **_tools(request, dialect),
        **_thinking(request, dialect),
    }
    return body | {key: value for key, value in optional.items() if value is not None}


def _inexpressible(request: Request, dialect: Dialect) -> Iterator[str]:
    params, vllm = request.params, dialect is Dialect.VLLM
    if params.top_k and not vllm:
        yield "top_k"
    if params.min_p and not vllm:
        yield "min_p"
    if params.stop_ids and not vllm:
        yield "stop_ids"
    if params.repetition_penalty != 1 and not vllm:
        yield "repetition_penalty"
    if len(request.stop) > 4 and dialect is Dialect.OPENAI:
        yield "more than four stop strings"
    if params.thinking.floor:
        yield "a floor on thinking"
    if params.thinking.cap and not vllm:
        yield f"a cap on thinking of {params.thinking.cap} tokens (set effort instead)"
    if params.thinking.confidence is not None:
        yield "a confidence at which thinking stops"
    if (params.thinking.voices or 1) > 1:
        yield "several voices"
    if params.answer_room:
        yield "answer_room"
    if params.repeats:
        yield "repeats"
    if params.top_logprobs:
        yield "top_logprobs (its tokens come without ids)"
    yield from _inexpressible_bias(params, dialect)
    if isinstance(request.grammar, Regex):
        yield "a regular expression as the grammar"
    if request.grammar is not None and dialect is Dialect.DEEPSEEK:
        yield "a JSON schema as the grammar"
    if dialect is not Dialect.OPENAI and any(tool.arguments is Arguments.STRICT for tool in request.tools):
        yield "tools whose arguments are strict"
    if request.parallel_calls is ParallelCalls.ONE and dialect is Dialect.DEEPSEEK:
        yield "parallel_calls one"
    if request.tenant:
        yield "a tenant (whose prefixes are shared is the server's affair; use one API key for each)"
    if request.effort in (Effort.MINIMAL, Effort.LOW) and dialect is Dialect.DEEPSEEK:
        yield f"effort {request.effort} (it is on or off here)"
    if request.truncation is not Truncation.DISABLED:
        yield f"truncation {request.truncation} (only the server can count its tokens)"
    if request.prompt and isinstance(request.prompt[0], int):
        yield "ids as a prompt"
    elif dialect is Dialect.OPENAI and any(shown and message.reasoning for message, shown in _reasoned(request)):
        yield "reasoning of earlier messages"


def _inexpressible_bias(params: SamplingParams, dialect: Dialect) -> Iterator[str]:
    if params.logit_bias and dialect is Dialect.DEEPSEEK:
        yield "logit_bias"
    ids = [id for id, _ in params.logit_bias]
    if len(set(ids)) < len(ids) or any(type(id) is not int or id < 0 for id in ids):
        yield "a logit_bias whose ids are not integers of 0 or more, each named once"
    if any(not abs(bias) <= LARGEST_BIAS for _, bias in params.logit_bias):  # NaN included
        yield f"a logit_bias outside {-LARGEST_BIAS:g} to {LARGEST_BIAS:g}"


def _response_format(request: Request) -> dict[str, Any] | None:
    if not isinstance(request.grammar, JsonSchema):
        return None
    try:
        schema = json.loads(request.grammar.schema)
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidRequest(f"the JSON schema is not valid JSON: {error}") from error
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _tools(request: Request, dialect: Dialect) -> dict[str, Any]:
    """Raises FormatError for parameters that are not a JSON schema."""
    choice: Any = request.tool_choice
    if isinstance(choice, NamedTool):
        choice = {"type": "function", "function": {"name": choice.name}}
    if not request.tools:  # servers refuse a choice among no tools; without any, none is called
        return {}
    check_tools(request.tools)
    return {
        "tools": [_tool(tool) for tool in request.tools],
        "tool_choice": None if choice is ToolChoice.AUTO else choice,
        "parallel_tool_calls": False if request.parallel_calls is ParallelCalls.ONE else None,
    }


def _tool(tool: Tool) -> dict[str, Any]:
    wire = tool_dict(tool)
    if tool.arguments is Arguments.STRICT:
        wire["function"]["strict"] = True
    return wire


def _thinking(request: Request, dialect: Dialect) -> dict[str, Any]:
    """Effort and cap in the dialect's own words."""
    off = request.params.thinking.cap == 0 or request.effort is Effort.NONE
    if dialect is Dialect.DEEPSEEK:
        wanted = off or request.effort is not None
        return {"thinking": {"type": "disabled" if off else "enabled"}} if wanted else {}
    if dialect is Dialect.OPENAI:
        return {"reasoning_effort": "none" if off else request.effort and request.effort.value}
    if off:
        return {"chat_template_kwargs": {"enable_thinking": False}}
    return {
        "reasoning_effort": request.effort and request.effort.value,
        "thinking_token_budget": request.params.thinking.cap,
    }


def _reasoned(request: Request) -> Iterator[tuple[Message, bool]]:
    """Each message, and whether the policy keeps its reasoning."""
    messages: Conversation = request.prompt  # type: ignore[assignment]
    last = max((place for place, each in enumerate(messages) if each.role is Role.USER), default=-1)
    for place, message in enumerate(messages):
        yield message, request.policy is ReasoningPolicy.ALL_TURNS or place > last


def _messages(request: Request, dialect: Dialect) -> Iterator[dict[str, Any]]:
    for message, shown in _reasoned(request):
        role = message.role
        if role is Role.DEVELOPER and dialect is not Dialect.OPENAI:
            role = Role.SYSTEM
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        for result in results:
            yield {"role": "tool", "tool_call_id": result.id or result.name, "content": result.content}
        if results and not any(isinstance(part, Text) for part in message.parts):
            continue
        wire: dict[str, Any] = {"role": role.value, "content": message.text}
        if message.refusal and dialect is Dialect.OPENAI:
            wire |= {"content": message.answer or None, "refusal": message.refusal}
        if message.name is not None:
            wire["name"] = message.name
        if shown and message.reasoning:
            wire[REASONING_FIELD[dialect]] = message.reasoning
        made = [part for part in message.parts if isinstance(part, ToolCall)]
        if made:
            wire["tool_calls"] = [
                {
                    "id": call.id or call.name,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in made
            ]
        yield wire
