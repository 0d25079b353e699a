"""Messages as the dictionaries that chat templates and OpenAI-style APIs and data sets use, both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ponder.dialogue.messages import (
    Conversation,
    LaneEnd,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Voice,
    is_structured,
    think_blocks,
)
from ponder.types import FormatError

_WRITTEN_THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
_WRITTEN_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")
_WRITTEN_CALL = "<tool_call>"
_KNOWN = {"role", "content", "name", "reasoning_content", "reasoning", "tool_calls", "tool_call_id"}


def to_dicts(messages: Conversation) -> list[dict[str, Any]]:
    """One dictionary per message, and one per tool result: `role`, `content`, and where present `name`,
    `reasoning_content`, `tool_calls`, `tool_call_id`. A call's arguments stay JSON text.

    Thinking with states or councils is a list of thoughts (strings), `{"state": text}` and `{"voices": [{"text": text,
    "end": "left"}, …]}`. Raises FormatError where it is not one block before everything else."""
    return [entry for index, message in enumerate(messages) for entry in _entries(index, message)]


def from_dicts(entries: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The inverse of `to_dicts`. Raises FormatError naming the message and the key; unknown keys are refused."""
    calls: dict[str, str] = {}
    return tuple(_message(index, entry, calls) for index, entry in enumerate(entries))


def read_written_thinking(index: int, message: Message) -> Message:
    """The assistant's message `index` with thinking that stands in its text, between tags, as a Reasoning part.

    The tags are those that data sets use (`_WRITTEN_THINKING`). The first may be missing, as in what a model wrote
    after a prompt that opens its thinking. White space around the thought is layout, and is left out.
    Raises FormatError for thinking that is not closed, not at the beginning, or there twice, and for tool calls that
    are written as text.
    """
    where = f"message {index} ({message.role.value})"
    if _WRITTEN_CALL in message.text:
        raise FormatError(f"{where}: a tool call stands in the content ({_WRITTEN_CALL}): write it as tool_calls")
    for opening, closing in _WRITTEN_THINKING:
        text = message.text.strip()
        opened, closed = text.count(opening), text.count(closing)
        if not closed and not text.startswith(opening):
            continue
        before, thought, answer = "", *text.partition(closing)[::2]
        if opened:
            before, _, thought = thought.partition(opening)
        if closed != 1 or opened > 1 or before or opening in answer:
            raise FormatError(
                f"{where}: thinking in the content must be one block at its beginning (got {opened} times "
                f"{opening}, {closed} times {closing}): write it as reasoning_content"
            )
        if message.reasoning:
            raise FormatError(
                f"{where}: thinking stands in the content and in reasoning_content: leave one of them out"
            )
        reasoning = (Reasoning(thought.strip()),) if thought.strip() else ()
        visible = (Text(visible),) if (visible := _without_solution_tags(answer.strip())) else ()
        others = tuple(part for part in message.parts if not isinstance(part, Text))
        return replace(message, parts=(*reasoning, *visible, *others))
    return message


def _without_solution_tags(answer: str) -> str:
    opening, closing = _WRITTEN_SOLUTION
    if answer.startswith(opening) and answer.endswith(closing):
        return answer[len(opening) : -len(closing)].strip()
    return answer


def _entries(index: int, message: Message) -> list[dict[str, Any]]:
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    if message.role is Role.TOOL:
        return [_result_entry(result) for result in results]
    entry: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.name is not None:
        entry["name"] = message.name
    if any(isinstance(part, Reasoning) for part in message.parts):
        entry["reasoning_content"] = _written_reasoning(index, message)
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    if calls:
        entry["tool_calls"] = [_call_entry(call) for call in calls]
    return [entry]


def _written_reasoning(index: int, message: Message) -> str | list[Any]:
    if not any(map(is_structured, message.parts)):
        return message.reasoning
    if (blocks := think_blocks(message.parts))[1:] or blocks[0].start:
        raise FormatError(
            f"message {index} ({message.role.value}): its thinking in parts cannot be written as a "
            "dictionary, because it is not one block before everything else: keep the Message"
        )
    thoughts = [part for part in message.parts if isinstance(part, Reasoning)]
    return [_thought_entry(part) for part in thoughts]


def _thought_entry(part: Reasoning) -> Any:
    if part.voices:
        return {"voices": [{"text": voice.text, "end": voice.end.value} for voice in part.voices]}
    return {"state": part.text} if part.state else part.text


def _result_entry(result: ToolResult) -> dict[str, Any]:
    entry = {"role": "tool", "name": result.name, "content": result.content}
    return entry if result.id is None else {**entry, "tool_call_id": result.id}


def _call_entry(call: ToolCall) -> dict[str, Any]:
    entry = {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return entry if call.id is None else {**entry, "id": call.id}


def _message(index: int, entry: Mapping[str, Any], calls: dict[str, str]) -> Message:
    if not isinstance(entry, Mapping):
        raise FormatError(f"message {index}: must be an object with 'role' and 'content' (got {type(entry).__name__})")
    unknown = sorted(set(entry) - _KNOWN)
    if unknown:
        raise FormatError(f"message {index}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KNOWN))}")
    try:
        role = Role(str(entry.get("role")))
    except ValueError as error:
        raise FormatError(f"message {index}: unknown role {entry.get('role')!r}; known: {', '.join(Role)}") from error
    name = _optional_string(index, entry, "name")
    content = _content(index, entry.get("content"))
    if role is Role.TOOL:
        handle = _optional_string(index, entry, "tool_call_id")
        tool = name or calls.get(handle or "")
        if tool is None:
            raise FormatError(f"message {index}: a tool message needs a 'name', or a 'tool_call_id' of an earlier call")
        return Message(role, (ToolResult(tool, content, handle),))
    parts: list[Part] = []
    keys = [key for key in ("reasoning_content", "reasoning") if entry.get(key) is not None]
    if keys:
        parts += _reasoning(index, entry[keys[0]], keys[0])
    if content:
        parts.append(Text(content))
    written_calls = entry.get("tool_calls") or ()
    if not isinstance(written_calls, Sequence) or isinstance(written_calls, str):
        raise FormatError(f"message {index}: 'tool_calls' must be a list (got {type(written_calls).__name__})")
    for written in written_calls:
        call = _call(index, written)
        parts.append(call)
        if call.id is not None:
            calls[call.id] = call.name
    return Message(role, tuple(parts), name)


def _reasoning(index: int, written: Any, key: str) -> list[Reasoning]:
    """A string, or thoughts, states and councils as `to_dicts` writes them."""
    where = f"message {index}: {key!r}"
    if isinstance(written, str):
        return [Reasoning(written)]
    if not isinstance(written, list):
        raise FormatError(f"{where} must be a string, or a list of thoughts and states (got {type(written).__name__})")
    parts: list[Reasoning] = []
    for number, part in enumerate(written):
        match part:
            case str():
                parts.append(Reasoning(part))
            case {"state": str(text), **others} if not others:
                parts.append(Reasoning(text, state=True))
            case {"voices": [*voices], **others} if voices and not others:
                each = (_voice(f"{where}, part {number}, voice {at}", voice) for at, voice in enumerate(voices))
                parts.append(Reasoning.council(tuple(each)))
            case _:
                raise FormatError(
                    f'{where}, part {number}: must be a string (a thought), {{"state": a string}} or '
                    '{"voices": a list}'
                )
    if len(think_blocks(parts)) > 1:
        raise FormatError(f"{where}: two thoughts follow each other: join them, or put a state between them")
    return parts


def _voice(where: str, written: Any) -> Voice:
    match written:
        case {"text": str(text), "end": str(end), **others} if not others and end in set(LaneEnd):
            return Voice(text, LaneEnd(end))
    ends = ", ".join(LaneEnd)
    raise FormatError(f'{where}: must be an object with the strings "text" and "end" (one of {ends})')


def _call(index: int, call: Any) -> ToolCall:
    try:
        name, arguments, handle = call["function"]["name"], call["function"]["arguments"], call.get("id")
    except (TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"message {index}: a tool call needs 'function' with 'name' and 'arguments'") from error
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(name, str) or not isinstance(handle, str | None):
        raise FormatError(f"message {index}: the name and the id of a tool call must be strings")
    return ToolCall(name, arguments, handle)


def _content(index: int, content: Any) -> str:
    """A string, None, or a list of `{"type": "text", "text": …}`."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    try:
        texts = [part["text"] for part in content if part["type"] == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(texts)
    except (TypeError, KeyError):
        pass
    raise FormatError(f"message {index}: 'content' must be a string or a list of text parts")


def _optional_string(index: int, entry: Mapping[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"message {index}: {key!r} must be a string (got {type(value).__name__})")
    return value
