"""Dialogues as public data sets write them: messages, ShareGPT, prompt and completion, Alpaca (docs/training.md).

Every error names the file and the line. What would change what is learned, and is not read, is refused.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder.dialogue.interchange import from_dicts, read_written_thinking
from ponder.dialogue.messages import Message, Role
from ponder.dialogue.tools import Tool, tools_from_dicts
from ponder.train.data.records import Record, read_records
from ponder.types import DataError, FormatError

Entry = dict[str, Any]

_KINDS = '"messages", "conversations", "prompt" and "completion", or "instruction" and "output"'
_OTHER_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant"}
_ROLES |= {"observation": "tool", "function_response": "tool", "function": "tool"}
_REASONING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A conversation to learn from.

    tools: declared in it.
    taught: the numbers of the assistant's messages that are learned. The others are context.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    taught: frozenset[int]


def read_dialogues(path: Path) -> Iterator[tuple[str, Dialogue]]:
    """(place, dialogue) for each record of a file, or of a folder of them. Raises DataError, which names the place."""
    for where, record in read_records(path):
        try:
            yield where, dialogue_from(record)
        except FormatError as error:
            raise DataError(f"{where}: {error}") from error


def dialogue_from(record: Record) -> Dialogue:
    """The dialogue of one record. Raises FormatError for what is not one, or holds what is not read.

    Keys that no kind has are the writer's own.
    """
    record = without_nulls(record)
    entries, first = _entries(record)
    messages, weights = read_messages(entries)
    answers = {number for number, message in enumerate(messages) if message.role is Role.ASSISTANT and number >= first}
    if not answers or messages[-1].role is not Role.ASSISTANT:
        raise FormatError(
            "the last message must be the assistant's: remove what follows it, from which nothing is learned"
        )
    taught = frozenset(number for number in answers if _counts(number, weights[number]))
    if not taught:
        raise FormatError("all messages of the assistant have the weight 0: leave the record out")
    return Dialogue(messages=messages, tools=declared_tools(record), taught=taught)


def without_nulls(record: Record) -> Record:
    """The record without its keys that are null. Raises FormatError for keys that would matter and are not read."""
    record = {key: value for key, value in record.items() if value is not None}
    for key in _OTHER_MEDIA:
        if record.get(key):
            raise FormatError(f'"{key}" is not supported, only text is: leave the record out')
    for key in ("chat_template_kwargs", "documents"):
        if record.get(key):
            raise FormatError(f'"{key}" is not supported: leave it out')
    return record


def read_messages(entries: Sequence[object]) -> tuple[tuple[Message, ...], list[object]]:
    """(the messages, each one's `weight`) of entries as data sets spell them, one for each entry."""
    shown = [_shown(number, entry) for number, entry in enumerate(entries)]
    weights = [entry.pop("weight", 1) for entry in shown]
    _name_results(shown)
    messages = tuple(
        read_written_thinking(number, message) if message.role is Role.ASSISTANT else message
        for number, message in enumerate(from_dicts(shown))
    )
    return messages, weights


def _entries(record: Record) -> tuple[list[Entry], int]:
    """The messages as dictionaries, and the first that may be learned."""
    lists = [key for key in ("messages", "conversations", "conversation") if key in record]
    if lists:
        entries = message_list(record[lists[0]], lists[0])
        for other in lists[1:]:
            if _words(entries) != _words(message_list(record[other], other)):
                raise FormatError(f'"{lists[0]}" and "{other}" differ: leave one of them out')
        _refuse_reasoning(record, lists[0])
        return [*_system(record, entries), *entries], 0
    if "chosen" in record or "rejected" in record:
        raise FormatError('"chosen" and "rejected" are preferences, not dialogues: tune on another file')
    if record.get("context"):
        raise FormatError('"context" is not read: write it into the question')
    if "prompt" in record and (key := "completion" if "completion" in record else "response") in record:
        if record.get("label") is False:
            raise FormatError('"label" is false, so the answer is one not to give: leave the record out')
        prompt = prompt_entries(record)
        return [*prompt, *_side(record, key, "assistant")], len(prompt)
    if "instruction" in record and "output" in record:
        return _alpaca(record), 0
    has = ", ".join(map(repr, sorted(record))) or "nothing"
    raw = ": raw text is for [pretrain] text" if "text" in record else f": write {_KINDS}"
    raise FormatError(f"no dialogue that is known (it has {has}){raw}")


def prompt_entries(record: Record) -> list[Entry]:
    """The messages of `prompt`, a string or a list, after the system message of a separate column."""
    asked = _side(record, "prompt", "user")
    return [*_system(record, asked), *asked]


def _words(entries: Sequence[object]) -> list[object]:
    """What a list of messages says, however its keys are named."""
    return [
        next(iter([e[k] for k in ("content", "value") if k in e]), e) if isinstance(e, dict) else e for e in entries
    ]


def _refuse_reasoning(record: Record, key: str) -> None:
    """Thinking beside a list of messages: it does not say which of them it belongs to."""
    for column in _REASONING:
        if _reasoning({column: record.get(column)}):
            raise FormatError(f'"{column}" stands beside "{key}": write it into the message that it belongs to')


def message_list(value: object, key: str) -> list[Entry]:
    """A list of messages that is not empty. A system message without a text says nothing, and is left out."""
    entries = _spelled(value, key)
    if not isinstance(entries, list) or not entries:
        raise FormatError(f'"{key}" must be a list of messages, and not empty')
    return [each for each in entries if not (_is_system(each) and _words([each]) == [""])]


def _spelled(value: object, key: str) -> object:
    """A list that is spelled as a JSON string, as columns of tables often are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise FormatError(f'"{key}" is a string that is not JSON ({error}): write a list') from error


def _side(record: Record, key: str, role: str) -> list[Entry]:
    """A prompt or a completion: a string, or messages."""
    if not isinstance(record[key], str):
        if role == "assistant":
            _refuse_reasoning(record, key)
        return message_list(record[key], key)
    entry = {"role": role, "content": record[key]}
    return [entry | _reasoning(record) if role == "assistant" else entry]


def _alpaca(record: Record) -> list[Entry]:
    """Instruction and input are the user's message, with an empty line between them."""
    instruction, given, output = (_string(record, key) for key in ("instruction", "input", "output"))
    entries: list[Entry] = []
    for turn in record.get("history") or ():
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise FormatError('"history" must be a list of pairs of strings: [question, answer]')
        entries += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    question = "\n\n".join(part for part in (instruction, given) if part.strip())
    answer = {"role": "assistant", "content": output, **_reasoning(record)}
    return [*_system(record, entries), *entries, {"role": "user", "content": question}, answer]


def _system(record: Record, entries: Sequence[object]) -> list[Entry]:
    """The system message of a column beside the messages, unless the messages begin with the very same."""
    columns = {text for key in ("system", "system_prompt") if (text := _string(record, key))}
    if len(columns) > 1:
        raise FormatError('"system" and "system_prompt" differ: leave one of them out')
    found: list[Entry] = [{"role": "system", "content": text} for text in columns]
    said = bool(entries) and _is_system(entries[0]) and _words(entries[:1])[0] in columns
    return [] if said else found


def _is_system(entry: object) -> bool:
    return isinstance(entry, dict) and "system" in (entry.get("role"), entry.get("from"))


def _reasoning(record: Record) -> Entry:
    """Thinking in a separate column. "on" and "off" say whether there is some."""
    found = (record[key] for key in _REASONING if record.get(key) and record[key] not in ("on", "off"))
    return next(({"reasoning_content": text} for text in found), {})


def _string(record: Record, key: str) -> str:
    value = record.get(key, "")
    if not isinstance(value, str):
        raise FormatError(f'"{key}" must be a string (got {type(value).__name__})')
    return value


def _shown(number: int, entry: object) -> Entry:
    """A message in the words of `from_dicts`. Keys without a value are left out."""
    if not isinstance(entry, Mapping):
        raise FormatError(f"message {number}: must be an object with 'role' and 'content' (got {type(entry).__name__})")
    shown = {key: value for key, value in entry.items() if value is not None and value not in ([], {})}
    if "from" in shown and "role" not in shown:
        shown["role"] = shown.pop("from")
    if "value" in shown and "content" not in shown:
        shown["content"] = shown.pop("value")
    if shown.get("role") == "function_call":  # a call as a separate turn
        shown = {"role": "assistant", "tool_calls": _written_calls(number, shown.pop("content", ""))}
    if isinstance(role := shown.get("role"), str):
        shown["role"] = _ROLES.get(role, role)
    if "function_call" in shown and "tool_calls" not in shown:
        shown["tool_calls"] = [{"function": shown.pop("function_call")}]
    if isinstance(calls := shown.get("tool_calls"), list):
        shown["tool_calls"] = [
            {"function": call} if isinstance(call, dict) and "name" in call else call for call in calls
        ]
    if shown.get("name") == "":
        del shown["name"]
    if "thinking" in shown and not any(key in shown for key in ("reasoning_content", "reasoning")):
        shown["reasoning_content"] = shown.pop("thinking")
    return shown


def _written_calls(number: int, content: object) -> list[Entry]:
    """The calls that a message spells as JSON: `{"name", "arguments"}`, or a list of them."""
    calls = _spelled(content, f"message {number}, function_call")
    return [{"function": call} for call in (calls if isinstance(calls, list) else [calls])]


def _name_results(entries: Sequence[Entry]) -> None:
    """Give results that name neither a tool nor a known call the name of the call that they answer, in order."""
    waiting: deque[str] = deque()
    known: set[object] = set()
    for entry in entries:
        if entry.get("role") == "tool":
            name = waiting.popleft() if waiting else None
            if name and not entry.get("name") and entry.get("tool_call_id") not in known:
                entry["name"] = name
            continue
        calls = entry.get("tool_calls")
        calls = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
        known |= {call["id"] for call in calls if isinstance(call.get("id"), str)}
        functions = (call.get("function") for call in calls)
        names = (function.get("name") for function in functions if isinstance(function, Mapping))
        waiting = deque(name for name in names if isinstance(name, str))


def _counts(number: int, weight: object) -> bool:
    if weight not in (0, 1):  # True and False among them
        raise FormatError(f"message {number}: 'weight' must be 0 or 1 (got {weight!r})")
    return weight == 1


def declared_tools(record: Record) -> tuple[Tool, ...]:
    """The declared tools: OpenAI's objects, or the functions alone, as a list or spelled as JSON."""
    written = _spelled(record.get("tools") or record.get("functions") or [], "tools")
    if not isinstance(written, list):
        raise FormatError(f'"tools" must be a list of tools (got {type(written).__name__})')
    return tools_from_dicts([_declared(tool) for tool in written])


def _declared(tool: object) -> Any:
    if not isinstance(tool, Mapping):
        return tool
    function = tool.get("function", tool if "name" in tool else None)
    if isinstance(function, Mapping):  # transformers' get_json_schema adds what the function returns
        function = {key: value for key, value in function.items() if value is not None and key != "return"}
    rest = {key: value for key, value in tool.items() if key not in ("function", "type")} if "function" in tool else {}
    return {**rest, "type": tool.get("type", "function"), "function": function}
