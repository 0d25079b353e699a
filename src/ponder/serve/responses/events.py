"""The events of one response, in the documented order and numbered, from the pieces of a sampler's stream.

    created, [queued,] in_progress
    for each item: output_item.added, its own events, output_item.done
    completed | incomplete | failed

Items come one after the other: each is done before the next is added. Thinking is done when the answer, or a call,
begins; the answer when a call begins; a call when its arguments are whole and the next item begins. What comes earlier
of the next item waits for that. https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ponder.dialogue.messages import Reasoning
from ponder.sampler.protocol import CallDelta, Delta
from ponder.serve.common.convert import token_logprob
from ponder.serve.common.order import TextOrCall, WholeCalls, key_of
from ponder.serve.common.wire import TokenLogprob
from ponder.serve.responses.convert import item_id, output_text, refusal_part
from ponder.serve.responses.items import (
    CallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    RefusalPart,
)
from ponder.serve.responses.objects import View, call_id, reasoning_text, write_parts
from ponder.serve.store import StoredEvent, StoredItem
from ponder.types import Phase


@dataclass(slots=True)
class _Sent:
    """An item that was added. call: the id and the name of a call.

    What was sent of it so far: the arguments of a call (`text`), the text and the refusal of a message (`text`,
    `logprobs`, `refusal`), the thoughts and states of reasoning.
    parts: the kinds of the parts of a message that were added, in their order.
    """

    kind: str
    id: str
    index: int
    call: tuple[str, str] | None = None
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    refusal: str = ""
    thoughts: list[Reasoning] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    done: OutputItem | None = None


@dataclass(slots=True)
class EventWriter:
    """Follows one response.

    number: of the next event; a response that is run again goes on where it was.
    """

    response_id: str
    view: View
    number: int = 0
    _sent: dict[str, _Sent] = field(default_factory=dict)
    _order: WholeCalls = field(default_factory=WholeCalls)

    @classmethod
    def at(cls, number: int) -> EventWriter:
        """A writer for states of the whole response alone."""
        return cls("", View("", ""), number)

    def state(self, name: str, response: Mapping[str, Any]) -> StoredEvent:
        """`response.created`, `.in_progress`, `.completed` and the like, with the whole response."""
        return self._event(f"response.{name}", response=response)

    def piece(self, piece: TextOrCall) -> Iterator[StoredEvent]:
        """The events of a piece of the stream, and of those that waited for it."""
        for each in self._order.feed(piece):
            yield from self._write(each)

    def _write(self, piece: TextOrCall) -> Iterator[StoredEvent]:
        sent = self._sent.get(key_of(piece))
        if sent is not None and sent.done is not None:
            return  # white space at the edge of what is done
        match piece:
            case CallDelta():
                yield from self._call(piece)
            case Delta(phase=Phase.THINK):
                yield from self._think(piece)
            case Delta(phase=Phase.ANSWER):
                yield from self._say(piece)

    def placed(self, items: Sequence[StoredItem]) -> list[StoredItem]:
        """The finished items under the ids and in the order in which they were added, or will be."""
        keys = list(_keys(items))
        order = [key for key in self._sent if key in keys] + [key for key in keys if key not in self._sent]
        found = dict(zip(keys, items, strict=True))
        return [_renamed(found[key], self.response_id, place) for place, key in enumerate(order)]

    def items(self, bodies: Sequence[OutputItem]) -> Iterator[StoredEvent]:
        """The end of the output, given its items as they are shown: what was not sent yet, then every item done.
        Reasoning that is done is put back to what was sent of it."""
        for key, body in zip(_keys(bodies), bodies, strict=True):
            sent = self._sent.get(key)
            if sent is None:
                call = (body["call_id"], body["name"]) if body["type"] == "function_call" else None
                sent = yield from self._add(key, body["type"], call)
            if sent.done is None:
                yield from self._end(sent, body)
            elif body["type"] == "reasoning":  # seals differ each time, and white space may have come late
                cast(dict[str, Any], body).update(sent.done)

    def _think(self, piece: Delta) -> Iterator[StoredEvent]:
        sent = self._sent.get("reasoning")
        if sent is None:
            if not piece.text.strip():
                return  # white space alone is not a thought
            sent = yield from self._add("reasoning", "reasoning")
        sent.text += piece.text
        last = sent.thoughts[-1] if sent.thoughts else None
        if last is None or last.state or piece.state:
            sent.thoughts.append(Reasoning(piece.text, state=piece.state))
        else:
            sent.thoughts[-1] = replace(last, text=last.text + piece.text)
        if self.view.shows_reasoning and piece.text:
            yield self._of("response.reasoning_text.delta", sent, content_index=0, delta=piece.text)

    def _say(self, piece: Delta) -> Iterator[StoredEvent]:
        sent = self._sent.get("message")
        if sent is None:
            sent = yield from self._add("message", "message")
        at = yield from self._part(sent, "refusal" if piece.refusal else "output_text")
        if piece.refusal:
            sent.refusal += piece.text
            yield self._of("response.refusal.delta", sent, content_index=at, delta=piece.text)
            return
        sent.text += piece.text
        tokenizer = self.view.tokenizer
        logprobs = [] if tokenizer is None else [token_logprob(token, tokenizer) for token in piece.tokens]
        sent.logprobs += logprobs
        yield self._of("response.output_text.delta", sent, content_index=at, delta=piece.text, logprobs=logprobs)

    def _part(self, sent: _Sent, kind: str) -> Generator[StoredEvent, None, int]:
        """A generator whose value is the index of the part of this kind of a message, which it adds if need be."""
        if kind not in sent.parts:
            sent.parts.append(kind)
            empty: OutputText | RefusalPart = refusal_part("") if kind == "refusal" else output_text("")
            yield self._of("response.content_part.added", sent, content_index=len(sent.parts) - 1, part=empty)
        return sent.parts.index(kind)

    def _call(self, piece: CallDelta) -> Iterator[StoredEvent]:
        sent = self._sent.get(f"call {piece.call}")
        if sent is None:
            call = (piece.id or call_id(self.response_id, piece.call), piece.name or "")
            sent = yield from self._add(f"call {piece.call}", "function_call", call)
        if piece.arguments:
            sent.text += piece.arguments
            yield self._of("response.function_call_arguments.delta", sent, delta=piece.arguments)

    def _end_last(self) -> Iterator[StoredEvent]:
        """End the item that is open, as far as it came."""
        sent = next(reversed(self._sent.values()), None)
        if sent is not None and sent.done is None:
            yield from self._end(sent, self._body(sent))

    def _body(self, sent: _Sent) -> OutputItem:
        """An item that ends because the next one begins."""
        if sent.kind == "reasoning":
            thought: ReasoningItem = {"id": sent.id, "type": "reasoning", "summary": [], "status": "completed"}
            return self.view.item(StoredItem(sent.id, thought, {"parts": write_parts(sent.thoughts)}))
        if sent.call is None:
            said: dict[str, OutputText | RefusalPart] = {
                "output_text": output_text(sent.text, sent.logprobs),
                "refusal": refusal_part(sent.refusal),
            }
            content = [said[kind] for kind in sent.parts]
            return {"id": sent.id, "type": "message", "role": "assistant", "status": "completed", "content": [*content]}
        named, name = sent.call
        call: CallItem = {
            "id": sent.id,
            "type": "function_call",
            "call_id": named,
            "name": name,
            "arguments": sent.text,
            "status": "completed",
        }
        return call

    def _end(self, sent: _Sent, body: OutputItem) -> Iterator[StoredEvent]:
        if body["type"] == "reasoning":
            yield from self._end_reasoning(sent, body)
        elif body["type"] == "message":
            yield from self._end_message(sent, body)
        else:
            yield from self._end_call(sent, body)
        yield self._done(sent, body)

    def _end_reasoning(self, sent: _Sent, body: ReasoningItem) -> Iterator[StoredEvent]:
        for part in body.get("content", ()):
            if owed := part["text"][len(sent.text) :]:
                yield self._of("response.reasoning_text.delta", sent, content_index=0, delta=owed)
            yield self._of("response.reasoning_text.done", sent, content_index=0, text=part["text"])
            yield self._of("response.content_part.done", sent, content_index=0, part=part)

    def _end_message(self, sent: _Sent, body: MessageItem) -> Iterator[StoredEvent]:
        """The parts of the body stand in the order in which they were added."""
        body["content"].sort(key=lambda part: [*sent.parts, part["type"]].index(part["type"]))
        for part in body["content"]:
            at = yield from self._part(sent, part["type"])
            if part["type"] == "refusal":
                if owed := part["refusal"][len(sent.refusal) :]:
                    yield self._of("response.refusal.delta", sent, content_index=at, delta=owed)
                yield self._of("response.refusal.done", sent, content_index=at, refusal=part["refusal"])
            elif part["type"] == "output_text":
                if owed := part["text"][len(sent.text) :]:
                    yield self._of("response.output_text.delta", sent, content_index=at, delta=owed, logprobs=[])
                said = {"text": part["text"], "logprobs": part["logprobs"]}
                yield self._of("response.output_text.done", sent, content_index=at, **said)
            yield self._of("response.content_part.done", sent, content_index=at, part=part)

    def _end_call(self, sent: _Sent, body: CallItem) -> Iterator[StoredEvent]:
        if owed := body["arguments"][len(sent.text) :]:
            yield self._of("response.function_call_arguments.delta", sent, delta=owed)
        yield self._of("response.function_call_arguments.done", sent, arguments=body["arguments"])

    # ----------------------------------------------------------------------------------------------------------------

    def _add(self, key: str, kind: str, call: tuple[str, str] | None = None) -> Generator[StoredEvent, None, _Sent]:
        """A generator whose value is the item that it adds. call: the id and the name of a call."""
        yield from self._end_last()
        index = len(self._sent)
        sent = self._sent[key] = _Sent(kind, item_id(kind, self.response_id, index), index, call)
        begun: dict[str, Any] = {"id": sent.id, "type": kind, "status": "in_progress"}
        if call is not None:
            begun |= {"call_id": call[0], "name": call[1], "arguments": ""}
        elif kind == "message":
            begun |= {"role": "assistant", "content": []}
        else:
            begun |= {"summary": []}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        if kind == "reasoning" and self.view.shows_reasoning:
            yield self._of("response.content_part.added", sent, content_index=0, part=reasoning_text(""))
        return sent

    def _done(self, sent: _Sent, body: OutputItem) -> StoredEvent:
        sent.done = body
        return self._event("response.output_item.done", output_index=sent.index, item=body)

    def _of(self, type: str, sent: _Sent, **more: Any) -> StoredEvent:
        return self._event(type, item_id=sent.id, output_index=sent.index, **more)

    def _event(self, type: str, **more: Any) -> StoredEvent:
        number, self.number = self.number, self.number + 1
        data = {"type": type, "sequence_number": number, **more}
        return StoredEvent(number, type, json.dumps(data, separators=(",", ":")))


def _keys(items: Sequence[StoredItem] | Sequence[OutputItem]) -> Iterator[str]:
    """Keys of the items of one response: there is at most one of a kind, except for calls."""
    calls = 0
    for item in items:
        kind = item.body["type"] if isinstance(item, StoredItem) else item["type"]
        calls += kind == "function_call"
        yield kind if kind != "function_call" else f"call {calls - 1}"


def _renamed(item: StoredItem, response_id: str, place: int) -> StoredItem:
    id = item_id(item.body["type"], response_id, place)
    return StoredItem(id, {**item.body, "id": id}, item.hidden)


def frame(event: StoredEvent) -> bytes:
    """The event on the wire: the same bytes each time it is sent."""
    return f"event: {event.type}\ndata: {event.data}\n\n".encode()
