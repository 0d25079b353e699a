"""A request of the messages API as an ask, and completions as its objects and events."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ponder.dialogue import Message, Reasoning, Role, Start, Text, ToolCall, ToolResult
from ponder.dialogue.messages import Part
from ponder.sampler.protocol import (
    BYTES_PER_TOKEN,
    CallDelta,
    Completion,
    Done,
    JsonSchema,
    NextTurn,
    Streamed,
    texts_of,
)
from ponder.serve.common.convert import (
    read_deadline,
    read_parallel_calls,
    read_seed,
    read_temperature,
    read_tool_choice,
    read_tools,
    tenant,
    total_usage,
)
from ponder.serve.common.order import TextOrCall, WholeCalls
from ponder.serve.errors import BadRequest
from ponder.serve.messages.wire import (
    CountRequest,
    InputMessage,
    MessageObject,
    MessagesRequest,
    MessageStop,
    MessageUsage,
    OutputBlock,
    TextBlock,
    ToolResultBlock,
)
from ponder.serve.models import Served
from ponder.serve.settings import Settings
from ponder.think.ask import Ask
from ponder.types import Effort, Phase, StopReason, ThinkingLimits

STOPS: dict[StopReason, MessageStop] = {
    StopReason.END: "end_turn",
    StopReason.STOP: "stop_sequence",
    StopReason.LENGTH: "max_tokens",
    StopReason.REPEATED: "max_tokens",
    StopReason.DEADLINE: "max_tokens",
    StopReason.ABORTED: "end_turn",
    StopReason.FILTERED: "refusal",
    StopReason.OTHER: "end_turn",
}
MessageEvent = dict[str, Any]  # its `type` names it
# Of thinking that is whole. It is checked nowhere, but without one clients take the thinking for broken off, and send
# it back as words of the answer.
SIGNATURE = "cG9uZGVy"
CHOICES = {"auto": "auto", "any": "required", "none": "none"}

# In -------------------------------------------------------------------------------------------------------------------


def read_messages_request(body: MessagesRequest, served: Served, settings: Settings, owner: str) -> Ask:
    """Raises BadRequest naming the field that cannot be served as asked."""
    tools, choice = _tools(body), body.tool_choice
    if choice is not None and not tools:
        raise BadRequest("tool_choice is given without tools: add tools, or leave it out", param="tool_choice")
    if choice is not None and (choice.type == "tool") != (choice.name is not None):
        raise BadRequest(
            "tool_choice: name must be given with the type 'tool', and with no other", param="tool_choice.name"
        )
    word, named = (CHOICES.get(choice.type), choice.name) if choice is not None else (None, None)
    effort, thinking = _thinking(body)
    return Ask(
        prompt=read_conversation(body),
        effort=effort,
        thinking=thinking,
        answer_room=0,
        max_tokens=body.max_tokens,
        temperature=read_temperature(body.temperature, served),
        top_p=body.top_p,
        top_k=body.top_k or 0,
        seed=read_seed(body.seed),
        stop=tuple(body.stop_sequences or ()),
        grammar=_grammar(body),
        tools=tools,
        tool_choice=read_tool_choice(word, named, tools),
        parallel_calls=read_parallel_calls(not (choice and choice.disable_parallel_tool_use)),
        deadline=read_deadline(body.deadline, settings),
        next_turn=NextTurn.TEXT,
        tenant=tenant(owner, None, served),
    )


def shows_thinking(body: MessagesRequest) -> bool:
    wanted = body.thinking
    return wanted is not None and wanted.type != "disabled" and wanted.display != "omitted"


async def count_tokens(body: CountRequest, served: Served) -> int:
    """Of the prompt as the model reads it; an estimate for a model on another server."""
    messages, tools, format = read_conversation(body), _tools(body), served.sampler.capabilities.format
    if format is None:
        return await served.sampler.count(messages)
    thinks = format.phase_tokens.think_close is not None and not (body.thinking and body.thinking.type == "disabled")
    start = Start.THINK if thinks else Start.DIRECT
    return len((await asyncio.to_thread(format.render, messages, start=start, tools=tools)).ids)


def _thinking(body: MessagesRequest) -> tuple[Effort | None, ThinkingLimits | None]:
    wanted, effort = body.thinking, body.output_config.effort if body.output_config else None
    if wanted is not None and wanted.type == "disabled":
        return None, ThinkingLimits(cap=0)
    if wanted is not None and wanted.type == "enabled":
        if wanted.budget_tokens is None:
            raise BadRequest(
                "thinking.budget_tokens is missing: give it, or set thinking.type to 'adaptive'",
                param="thinking.budget_tokens",
            )
        if effort is not None:
            raise BadRequest(
                "output_config.effort and thinking.budget_tokens both set how long to think: give one of them",
                param="output_config.effort",
            )
        return None, ThinkingLimits(cap=wanted.budget_tokens)
    return None if effort is None else Effort(effort), None


def _grammar(body: MessagesRequest) -> JsonSchema | None:
    form = body.output_config.format if body.output_config else None
    if form is not None and body.output_format is not None:
        raise BadRequest("output_format is the old place of output_config.format: give one", param="output_format")
    form = form or body.output_format
    return None if form is None else JsonSchema(json.dumps(form.schema_))


def _tools(body: CountRequest) -> Any:
    return read_tools(
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
                "strict": tool.strict,
            },
        }
        for tool in body.tools or ()
    )


def read_conversation(body: CountRequest) -> tuple[Message, ...]:
    """An assistant's blocks as one thought, then what it says, then its calls, as every format has them.

    Raises BadRequest, naming the place, for a result that no call waits for."""
    out: list[Message] = [Message.system(_text(body.system))] if body.system else []
    calls: list[ToolCall] = []  # of the last message of the assistant
    for index, message in enumerate(body.messages):
        if message.role == "assistant":
            out.append(Message(Role.ASSISTANT, tuple(_said(message, index))))
            calls = [part for part in out[-1].parts if isinstance(part, ToolCall)]
            continue
        results, text = _given(message, index, calls)
        if results:
            out.append(Message(Role.TOOL, tuple(results)))
        if text or not results:
            out.append(Message.user(text))
    return tuple(out)


def _said(message: InputMessage, index: int) -> Iterator[Part]:
    thought, said, calls = "", "", list[ToolCall]()
    if isinstance(message.content, str):
        said = message.content
    else:
        for number, block in enumerate(message.content):
            if isinstance(block, ToolResultBlock):
                raise _misplaced(index, number, "tool_result", "user")
            if block["type"] == "thinking":
                thought += block["thinking"]
            elif block["type"] == "tool_use":
                calls.append(ToolCall(block["name"], json.dumps(block["input"], ensure_ascii=False), block["id"]))
            else:
                said += block["text"]
    if thought:
        yield Reasoning(thought)
    if said or not calls:
        yield Text(said)
    yield from calls


def _given(message: InputMessage, index: int, calls: Sequence[ToolCall]) -> tuple[list[ToolResult], str]:
    """The results of calls, in the order of these, whatever order they came in; and the text."""
    if isinstance(message.content, str):
        return [], message.content
    names = {call.id: call.name for call in calls}
    results: dict[str, ToolResult] = {}
    texts = []
    for number, block in enumerate(message.content):
        if isinstance(block, ToolResultBlock):
            if block.tool_use_id not in names or block.tool_use_id in results:
                raise BadRequest(
                    f"messages[{index}] answers the call {block.tool_use_id[:100]!r}, which the message "
                    "before does not make, or which has a result already",
                    param=f"messages[{index}].content[{number}].tool_use_id",
                )
            content = _text(block.content or "")
            said = f"error: {content}" if block.is_error else content
            results[block.tool_use_id] = ToolResult(names[block.tool_use_id], said, block.tool_use_id)
        elif block["type"] == "text":
            texts.append(block["text"])
        else:
            raise _misplaced(index, number, block["type"], "assistant")
    return [results[call.id] for call in calls if call.id in results], "".join(texts)


def _misplaced(index: int, number: int, kind: str, role: str) -> BadRequest:
    place = f"messages[{index}].content[{number}]"
    return BadRequest(f"{place}: a {kind} block is allowed in messages of the {role} only", param=f"{place}.type")


def _text(content: str | Iterable[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


# Out ------------------------------------------------------------------------------------------------------------------


class MessageWriter:
    """One answer, whole or as events."""

    def __init__(self, body: MessagesRequest, served: Served) -> None:
        self.done: list[Completion] = []
        self._order = WholeCalls()
        self._thinking = shows_thinking(body)
        self._stops = body.stop_sequences or []
        self._number = secrets.token_hex(12)
        self._model = served.name
        self._index = -1  # of the block that is open, or was last
        self._open: tuple[str, int] | None = None  # (its kind, number of the call)
        self._calls = 0  # that have been begun

    def whole(self, completion: Completion, prompt_tokens: int) -> MessageObject:
        """prompt_tokens: how long the prompt is, where the completion's bill does not say."""
        return {
            **self._head(),
            "content": list(self._blocks(completion)),
            "stop_reason": self._stop(completion),
            "stop_sequence": self._stop_sequence(completion),
            "usage": message_usage(completion, prompt_tokens),
        }

    def start(self, prompt_tokens: int) -> MessageEvent:
        """The event that opens a stream. How much of the prompt was found in the cache is known at the end."""
        usage: MessageUsage = {"input_tokens": prompt_tokens, "output_tokens": 0}
        return {"type": "message_start", "message": {**self._head(), "usage": usage}}

    def events(self, piece: Streamed, prompt_tokens: int) -> Iterator[MessageEvent]:
        """The events of one piece: each block is closed before the next one opens."""
        if isinstance(piece, Done):
            yield from self._end(piece, prompt_tokens)
        else:
            for each in self._order.feed(piece):
                yield from self._write(each)

    def _write(self, piece: TextOrCall) -> Iterator[MessageEvent]:
        if isinstance(piece, CallDelta):
            block: dict[str, Any] = {
                "type": "tool_use",
                "id": self._call_id(piece.call, piece.id),
                "name": piece.name,
                "input": {},
            }
            delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            self._calls = max(self._calls, piece.call + 1)
            yield from self._add(("tool_use", piece.call), block, delta)
        elif piece.phase is not Phase.THINK:
            yield from self._add(("text", 0), {"type": "text", "text": ""}, {"type": "text_delta", "text": piece.text})
        elif self._thinking and piece.text and (piece.text.strip() or self._open == ("thinking", 0)):
            # White space at the edge of thinking may come late: it opens no block.
            thinking = {"type": "thinking", "thinking": "", "signature": ""}
            yield from self._add(("thinking", 0), thinking, {"type": "thinking_delta", "thinking": piece.text})

    def _end(self, piece: Done, prompt_tokens: int) -> Iterator[MessageEvent]:
        completion = piece.completion
        self.done.append(completion)
        for each in self._order.rest():
            yield from self._write(each)
        for number, block in enumerate(self._call_blocks(completion)):
            if number >= self._calls:  # a sampler may keep them to the end
                delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
                yield from self._add(("tool_use", number), {**block, "input": {}}, delta)
        yield from self._close()
        ended = {"stop_reason": self._stop(completion), "stop_sequence": self._stop_sequence(completion)}
        yield {"type": "message_delta", "delta": ended, "usage": message_usage(completion, prompt_tokens)}
        yield {"type": "message_stop"}

    def _add(self, kind: tuple[str, int], block: dict[str, Any], delta: dict[str, Any]) -> Iterator[MessageEvent]:
        if self._open != kind:
            yield from self._close()
            self._open, self._index = kind, self._index + 1
            yield {"type": "content_block_start", "index": self._index, "content_block": block}
        yield {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[MessageEvent]:
        if self._open is not None:
            if self._open == ("thinking", 0):
                signed = {"type": "signature_delta", "signature": SIGNATURE}
                yield {"type": "content_block_delta", "index": self._index, "delta": signed}
            self._open = None
            yield {"type": "content_block_stop", "index": self._index}

    def _head(self) -> MessageObject:
        return {
            "id": f"msg_{self._number}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def _blocks(self, completion: Completion) -> Iterator[OutputBlock]:
        if self._thinking and completion.reasoning:
            yield {"type": "thinking", "thinking": completion.reasoning, "signature": SIGNATURE}
        calls = list(self._call_blocks(completion))
        if completion.text or not calls:
            yield {"type": "text", "text": completion.text}
        yield from calls

    def _call_blocks(self, completion: Completion) -> Iterator[Any]:
        made = (part for part in completion.message.parts if isinstance(part, ToolCall))
        for number, call in enumerate(made):
            id = self._call_id(number, call.id)
            yield {"type": "tool_use", "id": id, "name": call.name, "input": _arguments(call.arguments)}

    def _call_id(self, number: int, id: str | None) -> str:
        return id or f"toolu_{self._number}_{number}"

    def _stop(self, completion: Completion) -> MessageStop:
        calls = any(isinstance(part, ToolCall) for part in completion.message.parts)
        reason = "refusal" if completion.message.refusal else STOPS[completion.stop_reason]
        return "tool_use" if calls and reason == "end_turn" else reason

    def _stop_sequence(self, completion: Completion) -> str | None:
        """Which one it was is known where there is one only."""
        return self._stops[0] if completion.stop_reason is StopReason.STOP and len(self._stops) == 1 else None


def _arguments(text: str) -> dict[str, Any]:
    """Arguments of a call as an object; what is none, cut off perhaps, under the key `text`."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"text": text}


def message_usage(completion: Completion, prompt_tokens: int) -> MessageUsage:
    """The bill. This API knows none without numbers: where nothing was counted, they are estimated from the lengths of
    the texts, and marked so."""
    bill = total_usage([completion])
    if bill is None:
        length = sum(len(text.encode()) for text in texts_of((completion.message,)))
        return {
            "input_tokens": prompt_tokens,
            "output_tokens": -(-length // BYTES_PER_TOKEN),
            "estimated": True,
        }
    return {
        "input_tokens": bill.prompt_tokens - bill.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": bill.cached_tokens,
        "output_tokens": bill.completion_tokens,
    }
