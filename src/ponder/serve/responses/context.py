"""Items as the conversation that a model is given: which reasoning is kept, and what is told of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ponder.dialogue.messages import Message, Part, Reasoning, ReasoningPolicy, Role, Text, ToolCall, ToolResult
from ponder.serve.errors import ApiError
from ponder.serve.models import Served
from ponder.serve.responses.parts import read_parts, vocabulary
from ponder.serve.responses.seal import Foreign, Sealer
from ponder.serve.store import Item

INSTRUCTING = (Role.SYSTEM, Role.DEVELOPER)


@dataclass(frozen=True, slots=True)
class Context:
    """messages: what the model is given. removed: reasoning items that it is not given, as `input_transformations`."""

    messages: tuple[Message, ...]
    removed: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads items for one request. owner, served: whose and which model's reasoning may be used; sealer: opens it."""

    owner: str
    served: Served
    policy: ReasoningPolicy
    sealer: Sealer | None

    def read(self, instructions: str | None, items: Sequence[Item]) -> Context:
        """Raises ApiError naming the item that cannot stand where it does."""
        last_user = max((place for place, item in enumerate(items) if item.body.get("role") == "user"), default=-1)
        builder = _Builder()
        if instructions is not None:
            builder.instruct(Role.SYSTEM, instructions, "instructions")
        removed: list[dict[str, str]] = []
        for place, item in enumerate(items):
            if item.body["type"] != "reasoning":
                self._add(builder, item)
                continue
            past = self.policy is ReasoningPolicy.CURRENT_TURN and place < last_user
            parts = "turn_boundary" if past else self._thoughts(item)
            if isinstance(parts, str):
                removed.append({"id": item.id, "type": "reasoning", "action": "removed", "reason": str(parts)})
            else:
                builder.say(parts)
        return Context(builder.finish(), tuple(removed))

    def _thoughts(self, item: Item) -> tuple[Part, ...] | str:
        """The thoughts of a reasoning item, or why they are not to be used."""
        if item.hidden is not None:
            if item.hidden["model"] != self.served.name:
                return Foreign.MODEL
            return self._kept(item)
        sealed, content = item.body.get("encrypted_content"), item.body.get("content")
        if sealed is None and content is None:
            raise ApiError(
                400,
                f"the reasoning item '{item.id}' holds nothing, and is not kept here: ask for it with "
                "include: ['reasoning.encrypted_content'] and send it back whole, or leave it out",
                param="input",
                code="invalid_value",
            )
        if sealed is None:
            return tuple(Reasoning(part["text"]) for part in content or () if part["text"])
        if self.sealer is None:
            raise ApiError(400, "this server does not seal reasoning: leave encrypted_content out", param="input")
        opened = self.sealer.open(self.owner, self.served.name, item.id, sealed)
        return opened if isinstance(opened, Foreign) else read_parts(opened, keep_ids=False)

    def _kept(self, item: Item) -> tuple[Part, ...]:
        assert item.hidden is not None
        same = item.hidden["vocabulary"] is not None and item.hidden["vocabulary"] == vocabulary(self.served)
        return read_parts(item.hidden["parts"], keep_ids=same)

    def _add(self, builder: _Builder, item: Item) -> None:
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
                output = body["output"]
                builder.answer(body["call_id"], output if isinstance(output, str) else _text(output), where)


def _text(content: Sequence[dict[str, Any]]) -> str:
    return "".join(part["text"] for part in content)


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
            raise ApiError(
                400,
                f"{where}: instructions stand at the beginning, not behind other items: give them as `instructions`, "
                "which hold for one request",
                param="input",
                code="invalid_value",
            )
        self._instructions.append(text)

    def add(self, message: Message) -> None:
        self._messages.append(message)

    def say(self, parts: Sequence[Part]) -> None:
        """What the assistant thinks, says or calls."""
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role is Role.ASSISTANT:
            self._messages[-1] = replace(last, parts=(*last.parts, *parts))
        else:
            self._messages.append(Message(Role.ASSISTANT, tuple(parts)))
        self._calls |= {part.id: part.name for part in parts if isinstance(part, ToolCall) and part.id}

    def answer(self, call_id: str, output: str, where: str) -> None:
        if call_id not in self._calls:
            raise ApiError(
                400,
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
