"""Items of requests and answers, and the conversation that they are: parsed from clients, made from what a model said,
shown to clients, and read as the messages that the next model call is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

from ponder.dialogue.messages import Message, Part, Reasoning, ReasoningPolicy, Role, Text, ToolCall, ToolResult
from ponder.sampler.protocol import Completion
from ponder.serve.common.wire import TokenLogprob
from ponder.serve.errors import BadRequest
from ponder.serve.models import Served
from ponder.serve.responses.seal import Foreign, Sealer
from ponder.serve.responses.wire import (
    AnyItem,
    CallItem,
    CallOutputItem,
    GivenItem,
    InputText,
    ItemStatus,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    RemovedReasoning,
    ResponseRequest,
)
from ponder.serve.store import StoredItem
from ponder.tokenizer import Tokenizer
from ponder.types import StopReason

ENDED_EARLY = (StopReason.LENGTH, StopReason.DEADLINE, StopReason.ABORTED, StopReason.FILTERED)
INSTRUCTING = (Role.SYSTEM, Role.DEVELOPER)
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}

_VOCABULARIES: WeakKeyDictionary[Tokenizer, str] = WeakKeyDictionary()


def item_id(kind: str, response_id: str, place: int, *, given: bool = False) -> str:
    """The id of item `place` of a response's output, or (given) of its input. It names its response."""
    number = response_id.partition("_")[2]
    return f"{PREFIXES[kind]}_{number}_{'in' if given else ''}{place}"


def response_of(id: str) -> str | None:
    """The response whose output holds the item `id`; None: the item is not from this server."""
    number, mark, place = id.partition("_")[2].rpartition("_")
    return f"resp_{number}" if mark and place.isdigit() else None


def call_id(response_id: str, number: int) -> str:
    """The handle of call `number` of a response, where the sampler gave none."""
    return f"call_{response_id.partition('_')[2]}_{number}"


# What a client sent ---------------------------------------------------------------------------------------------------


def input_items(request: ResponseRequest, response_id: str) -> list[StoredItem]:
    """The items of a request, with ids. They are kept and listed so."""
    if request.input is None:
        return []
    if isinstance(request.input, str):
        return [given_item({"role": "user", "content": request.input}, response_id, 0)]
    return [given_item(item, response_id, place) for place, item in enumerate(request.input)]


def given_item(item: GivenItem, owner_id: str, place: int) -> StoredItem:
    """An item that a client sent, with its id, or one made from that of the object it is sent to."""
    kind = item.get("type", "message")
    id, status = item.get("id") or item_id(kind, owner_id, place, given=True), item.get("status") or "completed"
    fields = cast(Mapping[str, Any], item)  # those of its kind, which the request's model has checked
    body: AnyItem
    match kind:
        case "message":
            body = {"id": id, "type": "message", "role": fields["role"], "content": _content(fields), "status": status}
        case "reasoning":
            shown = {name: fields[name] for name in ("content", "encrypted_content") if fields.get(name) is not None}
            summary = fields.get("summary", [])
            body = cast(ReasoningItem, {"id": id, "type": kind, "summary": summary, **shown, "status": status})
        case "function_call":
            said = {name: fields[name] for name in ("call_id", "name", "arguments")}
            body = cast(CallItem, {"id": id, "type": kind, **said, "status": status})
        case _:
            said = {name: fields[name] for name in ("call_id", "output")}
            body = cast(CallOutputItem, {"id": id, "type": kind, **said, "status": status})
    return StoredItem(id, body)


def _content(message: Mapping[str, Any]) -> list[InputText | OutputText]:
    texts = _texts(message["content"])
    if message["role"] == "assistant":
        return [output_text(text) for text in texts]
    return [{"type": "input_text", "text": text} for text in texts]


def _texts(content: str | Sequence[Mapping[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]


# What a model said ----------------------------------------------------------------------------------------------------


def output_items(
    completion: Completion, response_id: str, served: Served, logprobs: Sequence[TokenLogprob] = ()
) -> list[StoredItem]:
    """A reasoning item if anything was thought, a message if anything was said, and the calls, in this order.

    Hidden are the parts themselves, with their ids, the model and its vocabulary: the next turn is rendered from them.
    """
    parts = _with_call_ids(completion.message, response_id).parts
    early = completion.stop_reason in ENDED_EARLY
    calls = [part for part in parts if isinstance(part, ToolCall)]
    texts = [part for part in parts if isinstance(part, Text)]
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    spoken = completion.text or not (calls or early)
    items: list[StoredItem] = []

    def id_of(kind: str) -> str:
        return item_id(kind, response_id, len(items))

    def add(body: OutputItem, hidden: Sequence[Part]) -> None:
        kept = {"model": served.name, "vocabulary": _vocabulary(served), "parts": write_parts(hidden)}
        items.append(StoredItem(body["id"], body, kept))

    if completion.reasoning.strip():
        cut = _status(early and not spoken and not calls)
        add({"id": id_of("reasoning"), "type": "reasoning", "summary": [], "status": cut}, thoughts)
    if spoken:
        add(
            {
                "id": id_of("message"),
                "type": "message",
                "role": "assistant",
                "status": _status(early),
                "content": [output_text(completion.text, logprobs)],
            },
            texts,
        )
    for call in calls:
        add(
            {
                "id": id_of("function_call"),
                "type": "function_call",
                "call_id": call.id or "",
                "name": call.name,
                "arguments": call.arguments,
                "status": _status(early and call is parts[-1]),
            },
            [call],
        )
    return items


def output_text(text: str, logprobs: Sequence[TokenLogprob] = ()) -> OutputText:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def reasoning_text(text: str) -> ReasoningText:
    return {"type": "reasoning_text", "text": text}


def _with_call_ids(message: Message, response_id: str) -> Message:
    """Every call with a handle by which its result can name it."""
    calls = 0
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            part = part if part.id else replace(part, id=call_id(response_id, calls))
            calls += 1
        parts.append(part)
    return replace(message, parts=tuple(parts))


def _status(incomplete: bool) -> ItemStatus:
    return "incomplete" if incomplete else "completed"


# What a client is shown -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """How items are shown to a client: with what it asked to be included, and nothing else.

    sealer: seals the reasoning; None: it is not sent sealed.
    tokenizer: spells the tokens of streamed pieces, if log-probabilities were asked for.
    """

    owner: str
    model: str
    shows_reasoning: bool = False
    sealer: Sealer | None = None
    tokenizer: Tokenizer | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing of the reasoning is shown, not even sealed."""
        return not self.shows_reasoning and self.sealer is None

    def item(self, item: StoredItem) -> OutputItem:
        body = cast(OutputItem, dict(item.body))
        if body["type"] != "reasoning" or item.hidden is None:
            return body
        parts = item.hidden["parts"]
        if self.shows_reasoning:
            body["content"] = [reasoning_text("".join(part["text"] for part in parts))]
        if self.sealer is not None:
            carried = [{key: value for key, value in part.items() if key != "ids"} for part in parts]
            body["encrypted_content"] = self.sealer.seal(self.owner, self.model, item.id, carried)
        return body


# What the model is given ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PastTurns:
    """messages: what the model is given. removed: reasoning items that it is not given, and why."""

    messages: tuple[Message, ...]
    removed: tuple[RemovedReasoning, ...]


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Reads items as messages, for one request. owner, served: whose and which model's reasoning may be used.
    sealer: opens sealed reasoning; None: there is none."""

    owner: str
    served: Served
    policy: ReasoningPolicy
    sealer: Sealer | None

    def read(self, instructions: str | None, items: Sequence[StoredItem]) -> PastTurns:
        """Raises BadRequest naming the item that cannot stand where it does."""
        last_user = max((place for place, item in enumerate(items) if item.body.get("role") == "user"), default=-1)
        builder = _Builder()
        if instructions is not None:
            builder.instruct(Role.SYSTEM, instructions, "instructions")
        removed: list[RemovedReasoning] = []
        for place, item in enumerate(items):
            if item.body["type"] != "reasoning":
                self._add(builder, item)
                continue
            past = self.policy is ReasoningPolicy.CURRENT_TURN and place < last_user
            parts = Foreign.TURN if past else self._thoughts(item)
            if isinstance(parts, Foreign):
                removed.append({"id": item.id, "type": "reasoning", "action": "removed", "reason": parts.value})
            else:
                builder.say(parts)
        return PastTurns(builder.finish(), tuple(removed))

    def _thoughts(self, item: StoredItem) -> tuple[Part, ...] | Foreign:
        """The thoughts of a reasoning item, or why they are not to be used."""
        if item.hidden is not None:
            if item.hidden["model"] != self.served.name:
                return Foreign.MODEL
            return self._kept(item)
        sealed, content = item.body.get("encrypted_content"), item.body.get("content")
        if sealed is None and content is None:
            raise BadRequest(
                f"the reasoning item '{item.id}' holds nothing, and is not kept here: ask for it with "
                "include: ['reasoning.encrypted_content'] and send it back whole, or leave it out",
                param="input",
                code="invalid_value",
            )
        if sealed is None:
            return tuple(Reasoning(part["text"]) for part in content or () if part["text"])
        if self.sealer is None:
            raise BadRequest("this server does not seal reasoning: leave encrypted_content out", param="input")
        opened = self.sealer.open(self.owner, self.served.name, item.id, sealed)
        return opened if isinstance(opened, Foreign) else read_parts(opened, keep_ids=False)

    def _kept(self, item: StoredItem) -> tuple[Part, ...]:
        assert item.hidden is not None
        same = item.hidden["vocabulary"] is not None and item.hidden["vocabulary"] == _vocabulary(self.served)
        return read_parts(item.hidden["parts"], keep_ids=same)

    def _add(self, builder: _Builder, item: StoredItem) -> None:
        body, where = item.body, f"item '{item.id}'"
        match body["type"]:
            case "message" if body["role"] == "assistant":
                builder.say(self._kept(item) if item.hidden else (Text(_text(body["content"])),))
            case "message" if body["role"] == "user":
                builder.add(Message.user(_text(body["content"])))
            case "message":
                builder.instruct(Role(body["role"]), _text(body["content"]), where)
            case "function_call":
                call = ToolCall(body["name"], body["arguments"], body["call_id"])
                builder.say(self._kept(item) if item.hidden else (call,))
            case _:
                builder.answer(body["call_id"], _text(body["output"]), where)


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    return "".join(_texts(content))


class _Builder:
    """Messages from items: neighbouring items of the assistant are one message, and so are neighbouring results."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._instructions: list[str] = []  # of the first message
        self._calls: dict[str, str] = {}  # names by id

    def instruct(self, role: Role, text: str, where: str) -> None:
        """Instructions that stand together at the beginning become one message, joined by a blank line."""
        if not self._messages:
            self._messages.append(Message(role, (Text(text),)))
        elif len(self._messages) > 1 or self._messages[0].role not in INSTRUCTING:
            raise BadRequest(
                f"{where}: instructions stand at the beginning, not behind other items: give them as `instructions`, "
                "which hold for one request",
                param="input",
                code="invalid_value",
            )
        self._instructions.append(text)

    def add(self, message: Message) -> None:
        self._messages.append(message)

    def say(self, parts: Sequence[Part]) -> None:
        """Add what the assistant thinks, says or calls."""
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role is Role.ASSISTANT:
            self._messages[-1] = replace(last, parts=(*last.parts, *parts))
        else:
            self._messages.append(Message(Role.ASSISTANT, tuple(parts)))
        self._calls |= {part.id: part.name for part in parts if isinstance(part, ToolCall) and part.id}

    def answer(self, call_id: str, output: str, where: str) -> None:
        """Add the result of a call."""
        if call_id not in self._calls:
            raise BadRequest(
                f"{where} answers the call {call_id[:100]!r}, which nobody made before",
                param="input",
                code="invalid_value",
            )
        result = ToolResult(self._calls[call_id], output, call_id)
        last = self._messages[-1]
        if last.role is Role.TOOL:
            self._messages[-1] = replace(last, parts=(*last.parts, result))
        else:
            self._messages.append(Message(Role.TOOL, (result,)))

    def finish(self) -> tuple[Message, ...]:
        if self._instructions:
            self._messages[0] = replace(self._messages[0], parts=(Text("\n\n".join(self._instructions)),))
        return tuple(self._in_order())

    def _in_order(self) -> Iterator[Message]:
        """Results in the order of their calls, as the formats have them, whatever order they came in."""
        order: list[str | None] = []
        for message in self._messages:
            if message.role is Role.ASSISTANT:
                order = [part.id for part in message.parts if isinstance(part, ToolCall)]
            if message.role is Role.TOOL:
                results = [part for part in message.parts if isinstance(part, ToolResult)]
                results.sort(key=lambda result: order.index(result.id) if result.id in order else len(order))
                message = replace(message, parts=tuple(results))
            if message.parts:
                yield message


# What is kept and never sent ------------------------------------------------------------------------------------------


def write_parts(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """The parts of an assistant's message as JSON: text, hidden reasoning, and the ids they were sampled as."""
    return [_written(part) for part in parts]


def read_parts(written: Sequence[Mapping[str, Any]], *, keep_ids: bool) -> tuple[Part, ...]:
    """The inverse. keep_ids: whether they are ids of the tokenizer that will read them."""
    return tuple(_read(each, tuple(each["ids"]) if keep_ids and "ids" in each else None) for each in written)


def _vocabulary(served: Served) -> str | None:
    """What tells one tokenizer's ids from another's; None: the model gives no ids."""
    tokenizer = served.tokenizer
    if tokenizer is not None and tokenizer not in _VOCABULARIES:
        spec = json.dumps(dict(tokenizer.spec), sort_keys=True, default=str)
        _VOCABULARIES[tokenizer] = hashlib.sha256(spec.encode()).hexdigest()[:16]
    return None if tokenizer is None else _VOCABULARIES[tokenizer]


def _written(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            written: dict[str, Any] = {"type": "text", "text": part.text}
        case Reasoning():
            written = {"type": "reasoning", "text": part.text, **({"state": True} if part.state else {})}
        case ToolCall():
            written = {"type": "call", "name": part.name, "arguments": part.arguments, "id": part.id}
        case _:
            raise TypeError(f"not a part of an assistant's message: {type(part).__name__}")
    return written if part.ids is None else {**written, "ids": list(part.ids)}


def _read(written: Mapping[str, Any], ids: tuple[int, ...] | None) -> Part:
    match written["type"]:
        case "text":
            return Text(written["text"], ids)
        case "reasoning":
            return Reasoning(written["text"], ids, bool(written.get("state")))
        case _:
            return ToolCall(written["name"], written["arguments"], written["id"], ids)
