"""A chat completion request as what a sampler takes: messages, parameters, limits on thinking."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ponder.dialogue import Message, Reasoning, Role, Text, ToolCall, ToolResult
from ponder.dialogue.messages import Part
from ponder.dialogue.tools import Tool, check_tools, tools_from_dicts
from ponder.sampler.protocol import (
    Grammar,
    JsonSchema,
    NamedTool,
    NextTurn,
    ParallelCalls,
    Regex,
    Request,
    ToolChoice,
    Truncation,
)
from ponder.serve.chat.schema import AssistantMessage, ChatRequest, FunctionTool, Sampled, TextPart, ToolMessage
from ponder.serve.errors import ApiError, unsupported
from ponder.serve.models import Served
from ponder.serve.settings import Settings
from ponder.think import ask as efforts
from ponder.types import Effort, FormatError, SamplingParams, ThinkingLimits

ANY_OBJECT = '{"type": "object"}'


def read_request(body: ChatRequest, served: Served, settings: Settings, owner: str) -> Request:
    """Raises ApiError naming the field that cannot be served as asked."""
    _refuse(body, served, settings)
    params = _params(body, served)
    return Request(
        prompt=read_messages(body.messages),
        params=params,
        n=body.n,
        stop=stops(body.stop),
        truncation=Truncation(body.truncation),
        effort=Effort(body.reasoning_effort) if body.reasoning_effort and served.local is None else None,
        grammar=_grammar(body),
        tools=tools(body.tools or ()),
        tool_choice=_tool_choice(body),
        parallel_calls=ParallelCalls.ONE if body.parallel_tool_calls is False else ParallelCalls.MANY,
        logprobs=bool(body.logprobs),
        seconds=body.deadline or settings.deadline or None,
        next_turn=NextTurn.TEXT if body.n == 1 and served.local else NextTurn.NONE,
        tenant=tenant(owner, body.prompt_cache_key) if served.local else "",
    )


def check_sampled(body: Sampled, settings: Settings) -> None:
    """What every request that samples is held to. Raises ApiError."""
    if body.n > settings.samples:
        raise ApiError(400, f"n is {body.n}: allowed are {settings.samples} on this server", param="n")
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(body, name):
            raise unsupported(name, "penalties are not supported: leave it out, or 0")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream: true", param="stream_options")


def _refuse(body: ChatRequest, served: Served, settings: Settings) -> None:
    check_sampled(body, settings)
    for name in ("tool_choice", "parallel_tool_calls"):
        if getattr(body, name) is not None and not body.tools:
            raise ApiError(400, f"{name} needs tools", param=name)
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise ApiError(400, "max_tokens is the old name of max_completion_tokens: give one", param="max_tokens")
    if served.local is None:
        for name in ("logprobs", "answer_room"):
            if getattr(body, name):
                raise unsupported(name, f"the model {served.name!r} is behind another server")


def _params(body: ChatRequest, served: Served) -> SamplingParams:
    params = replace(
        sampling(body),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop_ids=tuple(body.stop_token_ids or ()),
        top_logprobs=body.top_logprobs or 0,
        thinking=_thinking(body, served),
        answer_room=body.answer_room or 0,
    )
    cap, local = params.thinking.cap, served.local
    if local is None or not cap or params.max_tokens is not None:
        return params
    # Nothing bounds the whole: then a long thought must not eat the answer's part of the window.
    window = local.engine.window
    room = efforts.answer_room(window) if body.answer_room is None else body.answer_room
    return replace(params, answer_room=room, max_tokens=max(cap + room, window))


def sampling(body: Sampled) -> SamplingParams:
    """How every request that samples says to."""
    return SamplingParams(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
        seed=None if body.seed is None else body.seed % 2**63,
        logit_bias=tuple((int(id), bias) for id, bias in (body.logit_bias or {}).items()),
    )


def _thinking(body: ChatRequest, served: Served) -> ThinkingLimits:
    """In tokens, where the model keeps exact limits; a model behind another server is told the effort's word."""
    if body.thinking_token_budget is not None:
        if body.reasoning_effort is not None:
            raise ApiError(
                400,
                "reasoning_effort and thinking_token_budget both say how long to think: give one",
                param="thinking_token_budget",
            )
        return ThinkingLimits(cap=body.thinking_token_budget)
    local = served.local
    if local is None:
        return ThinkingLimits()
    longest = local.capabilities.thinking_tokens
    return efforts.limits(body.reasoning_effort or Effort.MEDIUM, local.engine.window, longest)


def _grammar(body: ChatRequest) -> Grammar | None:
    wanted = body.response_format
    if body.regex is not None:
        if wanted is not None and wanted.type != "text":
            raise ApiError(400, "regex and response_format both say how the answer looks: give one", param="regex")
        return Regex(body.regex)
    if wanted is None or wanted.type == "text":
        return None
    return JsonSchema(ANY_OBJECT if wanted.type == "json_object" else json.dumps(wanted.json_schema.schema_))


def tools(declared: Sequence[FunctionTool]) -> tuple[Tool, ...]:
    """Raises ApiError."""
    try:
        read = tools_from_dicts([tool.model_dump(mode="json") for tool in declared])
        check_tools(read)
    except FormatError as error:
        raise ApiError(400, str(error), param="tools") from None
    return read


def _tool_choice(body: ChatRequest) -> ToolChoice | NamedTool:
    """Without tools, none is called."""
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return ToolChoice(choice or ("auto" if body.tools else "none"))
    name = choice.function.name
    if name not in (tool.function.name for tool in body.tools or ()):
        raise ApiError(400, f"tool_choice names {name[:100]!r}, which is not among the tools", param="tool_choice")
    return NamedTool(name)


def stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def tenant(owner: str, key: str | None) -> str:
    """Whose cached prefixes may be shared: an owner's own, apart by `prompt_cache_key` where one is given."""
    return owner if key is None else f"{owner}/{key}"


def read_messages(messages: Sequence[object]) -> tuple[Message, ...]:
    """Instructions that stand together at the beginning become one message, joined by a blank line. Raises ApiError."""
    calls: dict[str, str] = {}
    out: list[Message] = []
    instructions: list[str] = []  # behind the first message, which they belong to
    for index, message in enumerate(messages):
        read = _message(index, message, calls)
        instructs = read.role in (Role.SYSTEM, Role.DEVELOPER)
        if instructs and len(out) == 1 and out[0].role in (Role.SYSTEM, Role.DEVELOPER):
            if read.name != out[0].name:
                raise ApiError(
                    400,
                    f"messages[{index}]: instructions that stand together become one message, of one name",
                    param=f"messages[{index}].name",
                )
            instructions.append(read.text)
        elif instructs and out:
            raise ApiError(
                400,
                f"messages[{index}]: instructions stand at the beginning, not behind other messages",
                param=f"messages[{index}].role",
            )
        elif read.role is Role.TOOL and out and out[-1].role is Role.TOOL:
            out[-1] = replace(out[-1], parts=(*out[-1].parts, *read.parts))
        else:
            out.append(read)
    if instructions:
        out[0] = replace(out[0], parts=(Text("\n\n".join((out[0].text, *instructions))),))
    return tuple(out)


def _message(index: int, message: object, calls: dict[str, str]) -> Message:
    text = _text(message.content)  # type: ignore[attr-defined]
    if isinstance(message, ToolMessage):
        if message.tool_call_id not in calls:
            raise ApiError(
                400,
                f"messages[{index}] answers the call {message.tool_call_id[:100]!r}, which nobody made before",
                param=f"messages[{index}].tool_call_id",
            )
        return Message(Role.TOOL, (ToolResult(calls[message.tool_call_id], text, message.tool_call_id),))
    parts: tuple[Part, ...] = (Text(text),)
    if isinstance(message, AssistantMessage):
        made = tuple(_calls(message))
        calls |= {call.id: call.name for call in made if call.id}
        if message.reasoning and message.reasoning_content not in (None, message.reasoning):
            raise ApiError(
                400,
                f"messages[{index}]: reasoning and reasoning_content are two names of one thing: give one",
                param=f"messages[{index}].reasoning_content",
            )
        thought = message.reasoning or message.reasoning_content
        parts = (*((Reasoning(thought),) if thought else ()), *((Text(text),) if text or not made else ()), *made)
    return Message(Role(message.role), parts, message.name)  # type: ignore[attr-defined]


def _calls(message: AssistantMessage) -> Iterator[ToolCall]:
    for call in message.tool_calls or ():
        yield ToolCall(call.function.name, call.function.arguments, call.id)


def _text(content: str | list[TextPart] | None) -> str:
    return "".join(part.text for part in content) if isinstance(content, list) else content or ""
