"""What the model said as items of a response, and what clients send as items of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ponder.dialogue.messages import Message, Part, Reasoning, Text, ToolCall
from ponder.sampler.protocol import Completion
from ponder.serve.models import Served
from ponder.serve.responses.parts import vocabulary, write_parts
from ponder.serve.responses.schema import (
    AssistantSaid,
    FunctionCallItem,
    FunctionCallOutput,
    Instruction,
    ReasoningItem,
    ResponseRequest,
)
from ponder.serve.responses.seal import Sealer
from ponder.serve.store import Item
from ponder.tokenizer import Tokenizer
from ponder.types import StopReason

ENDED_EARLY = (StopReason.LENGTH, StopReason.DEADLINE, StopReason.ABORTED)
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}


def item_id(kind: str, response_id: str, place: int, *, given: bool = False) -> str:
    """The id of item `place` of a response's output, or (given) of its input. It names its response."""
    number = response_id.partition("_")[2]
    return f"{PREFIXES[kind]}_{number}_{'in' if given else ''}{place}"


def response_of(id: str) -> str | None:
    """The response in whose output the item `id` came; None: it is none of ours."""
    number, mark, place = id.partition("_")[2].rpartition("_")
    return f"resp_{number}" if mark and place.isdigit() else None


# Out ------------------------------------------------------------------------------------------------------------------


def output_items(completion: Completion, response_id: str, served: Served, logprobs: Sequence[Any] = ()) -> list[Item]:
    """A reasoning item where anything was thought, a message where anything was said, and the calls, in this order.

    Hidden are the parts themselves, with their ids, the model and its vocabulary: what the next turn is rendered from.
    """
    parts = with_call_ids(completion.message, response_id).parts
    early = completion.stop_reason in ENDED_EARLY
    calls = [part for part in parts if isinstance(part, ToolCall)]
    texts = [part for part in parts if isinstance(part, Text)]
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    spoken = completion.text or not (calls or early)
    items: list[Item] = []

    def add(kind: str, body: dict[str, Any], hidden: Sequence[Part]) -> None:
        id = item_id(kind, response_id, len(items))
        told = {"model": served.name, "vocabulary": vocabulary(served), "parts": write_parts(hidden)}
        items.append(Item(id, {"id": id, "type": kind, **body}, told))

    if completion.reasoning.strip():
        add("reasoning", {"summary": [], "status": _status(early and not spoken and not calls)}, thoughts)
    if spoken:
        add(
            "message",
            {"role": "assistant", "status": _status(early), "content": [output_text(completion.text, logprobs)]},
            texts,
        )
    for call in calls:
        cut = early and call is parts[-1]
        add("function_call", {**call_body(call), "status": _status(cut)}, [call])
    return items


def output_text(text: str, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def call_body(call: ToolCall) -> dict[str, Any]:
    return {"call_id": call.id, "name": call.name, "arguments": call.arguments}


def with_call_ids(message: Message, response_id: str) -> Message:
    """Every call with a handle by which its result can name it."""
    calls = 0
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            part = part if part.id else replace(part, id=call_id(response_id, calls))
            calls += 1
        parts.append(part)
    return replace(message, parts=tuple(parts))


def call_id(response_id: str, number: int) -> str:
    """The handle of call `number` of a response, where the sampler gave none."""
    return f"call_{response_id.partition('_')[2]}_{number}"


def _status(incomplete: bool) -> str:
    return "incomplete" if incomplete else "completed"


@dataclass(frozen=True, slots=True)
class Dress:
    """How items are shown to a client: what it asked to be included is put in, and nothing else.

    sealer: None: reasoning is not sealed. tokenizer: spells the tokens of streamed pieces, where log-probabilities were
    asked for.
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

    def item(self, item: Item) -> dict[str, Any]:
        body = dict(item.body)
        if body["type"] != "reasoning" or item.hidden is None:
            return body
        parts = item.hidden["parts"]
        if self.shows_reasoning:
            body["content"] = [reasoning_text("".join(part["text"] for part in parts))]
        if self.sealer is not None:
            carried = [{key: value for key, value in part.items() if key != "ids"} for part in parts]
            body["encrypted_content"] = self.sealer.seal(self.owner, self.model, item.id, carried)
        return body


def reasoning_text(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


# In -------------------------------------------------------------------------------------------------------------------


def input_items(body: ResponseRequest, response_id: str) -> list[Item]:
    """What a request says, as items with ids. They are kept and listed so."""
    if body.input is None:
        return []
    if isinstance(body.input, str):
        return [given_item(Instruction(role="user", content=body.input), response_id, 0)]
    return [given_item(item, response_id, place) for place, item in enumerate(body.input)]


def given_item(
    item: Instruction | AssistantSaid | ReasoningItem | FunctionCallItem | FunctionCallOutput, owner_id: str, place: int
) -> Item:
    """An item that a client sent, with its id, or one made from that of the object it is sent to."""
    id = item.id or item_id(item.type, owner_id, place, given=True)
    body: dict[str, Any] = {"id": id, "type": item.type}
    match item:
        case Instruction():
            texts = [item.content] if isinstance(item.content, str) else [part.text for part in item.content]
            body |= {"role": item.role, "content": [{"type": "input_text", "text": text} for text in texts]}
        case AssistantSaid():
            said = [item.content] if isinstance(item.content, str) else [part.text for part in item.content]
            body |= {"role": item.role, "content": [output_text(text) for text in said]}
        case ReasoningItem():
            body |= item.model_dump(mode="json", exclude_none=True, exclude={"id", "type", "status"})
        case FunctionCallItem():
            body |= {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        case FunctionCallOutput():
            body |= {"call_id": item.call_id, "output": item.model_dump(mode="json")["output"]}
    return Item(id, body | {"status": item.status or "completed"})
