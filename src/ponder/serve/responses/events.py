"""The events of one response, in the documented order and numbered, from the pieces of a sampler's stream.

    created, [queued,] in_progress
    for each item: output_item.added, its own events, output_item.done
    completed | incomplete | failed

A reasoning item that is shown, or sealed, is done when all of it is known: at the end, before the others are. Hidden,
it is done when the answer, or a call, begins. https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ponder.sampler.protocol import CallDelta, Delta
from ponder.serve.chat.write import spelled
from ponder.serve.responses.items import Dress, call_id, item_id, output_text, reasoning_text
from ponder.serve.store import Event, Item
from ponder.types import Phase

Wire = dict[str, Any]
Piece = Delta | CallDelta


@dataclass(slots=True)
class _Sent:
    """An item that was added. text: what was sent of it so far."""

    kind: str
    id: str
    index: int
    text: str = ""
    done: bool = False


@dataclass(slots=True)
class EventWriter:
    """Follows one response. number: of the next event; a response that is taken up again goes on where it was."""

    response_id: str
    dress: Dress
    number: int = 0
    _sent: dict[str, _Sent] = field(default_factory=dict)

    @classmethod
    def at(cls, number: int) -> EventWriter:
        """For states of the whole response alone."""
        return cls("", Dress("", ""), number)

    def state(self, name: str, response: Mapping[str, Any]) -> Event:
        """`response.created`, `.in_progress`, `.completed` and the like, with the whole response."""
        return self._event(f"response.{name}", response=response)

    def pieces(self, pieces: Iterable[Piece]) -> Iterator[Event]:
        """What a batch of pieces lets out, neighbours of one phase, or of one call, joined."""
        for piece in _joined(pieces):
            match piece:
                case CallDelta():
                    yield from self._call(piece)
                case Delta(phase=Phase.THINK):
                    yield from self._think(piece.text)
                case Delta(phase=Phase.ANSWER):
                    yield from self._say(piece)

    def placed(self, items: Sequence[Item]) -> list[Item]:
        """The finished items under the ids and in the order in which they were added, or will be."""
        keys = list(_keys(items))
        order = [key for key in self._sent if key in keys] + [key for key in keys if key not in self._sent]
        found = dict(zip(keys, items, strict=True))
        return [_renamed(found[key], self.response_id, place) for place, key in enumerate(order)]

    def items(self, bodies: Sequence[Wire]) -> Iterator[Event]:
        """The end of the output, given its items as they are shown: what was not sent yet, and every item done."""
        for key, body in zip(_keys(bodies), bodies, strict=True):
            sent = self._sent.get(key)
            if sent is None:
                sent = yield from self._add(key, body)
            if sent.done:
                continue
            match sent.kind:
                case "reasoning":
                    yield from self._end_reasoning(sent, body)
                case "message":
                    yield from self._end_message(sent, body)
                case _:
                    yield from self._end_call(sent, body)
            yield self._done(sent, body)

    def _think(self, text: str) -> Iterator[Event]:
        sent = self._sent.get("reasoning")
        if sent is None:
            if not text.strip():
                return  # white space about nothing
            sent = yield from self._add("reasoning", {"type": "reasoning"})
        if self.dress.shows_reasoning:
            sent.text += text
            yield self._of("response.reasoning_text.delta", sent, content_index=0, delta=text)

    def _say(self, piece: Delta) -> Iterator[Event]:
        sent = self._sent.get("message")
        if sent is None:
            yield from self._end_hidden_thought()
            sent = yield from self._add("message", {"type": "message"})
        sent.text += piece.text
        tokenizer = self.dress.tokenizer
        logprobs = [] if tokenizer is None else [spelled(token, tokenizer) for token in piece.tokens]
        yield self._of("response.output_text.delta", sent, content_index=0, delta=piece.text, logprobs=logprobs)

    def _call(self, piece: CallDelta) -> Iterator[Event]:
        sent = self._sent.get(f"call {piece.call}")
        if sent is None:
            yield from self._end_hidden_thought()
            names = {"name": piece.name or "", "call_id": piece.id or call_id(self.response_id, piece.call)}
            sent = yield from self._add(f"call {piece.call}", {"type": "function_call", **names})
        if piece.arguments:
            sent.text += piece.arguments
            yield self._of("response.function_call_arguments.delta", sent, delta=piece.arguments)

    def _end_hidden_thought(self) -> Iterator[Event]:
        thought = self._sent.get("reasoning")
        if thought is not None and not thought.done and self.dress.plain:
            yield self._done(thought, {"id": thought.id, "type": "reasoning", "summary": [], "status": "completed"})

    def _end_reasoning(self, sent: _Sent, body: Wire) -> Iterator[Event]:
        for part in body.get("content", ()):
            if owed := part["text"][len(sent.text) :]:
                yield self._of("response.reasoning_text.delta", sent, content_index=0, delta=owed)
            yield self._of("response.reasoning_text.done", sent, content_index=0, text=part["text"])
            yield self._of("response.content_part.done", sent, content_index=0, part=part)

    def _end_message(self, sent: _Sent, body: Wire) -> Iterator[Event]:
        part = body["content"][0]
        if owed := part["text"][len(sent.text) :]:
            yield self._of("response.output_text.delta", sent, content_index=0, delta=owed, logprobs=[])
        told = {"text": part["text"], "logprobs": part["logprobs"]}
        yield self._of("response.output_text.done", sent, content_index=0, **told)
        yield self._of("response.content_part.done", sent, content_index=0, part=part)

    def _end_call(self, sent: _Sent, body: Wire) -> Iterator[Event]:
        if owed := body["arguments"][len(sent.text) :]:
            yield self._of("response.function_call_arguments.delta", sent, delta=owed)
        yield self._of("response.function_call_arguments.done", sent, arguments=body["arguments"])

    # ----------------------------------------------------------------------------------------------------------------

    def _add(self, key: str, body: Wire) -> Generator[Event, None, _Sent]:
        """A generator whose value is the item that it adds. body: of what it will be, its type and its names."""
        kind, index = body["type"], len(self._sent)
        sent = self._sent[key] = _Sent(kind, item_id(kind, self.response_id, index), index)
        begun: Wire = {"id": sent.id, "type": kind, "status": "in_progress"}
        match kind:
            case "reasoning":
                begun |= {"summary": []}
            case "message":
                begun |= {"role": "assistant", "content": []}
            case _:
                begun |= {"call_id": body["call_id"], "name": body["name"], "arguments": ""}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        if kind == "message":
            yield self._of("response.content_part.added", sent, content_index=0, part=output_text(""))
        elif kind == "reasoning" and self.dress.shows_reasoning:
            yield self._of("response.content_part.added", sent, content_index=0, part=reasoning_text(""))
        return sent

    def _done(self, sent: _Sent, body: Wire) -> Event:
        sent.done = True
        return self._event("response.output_item.done", output_index=sent.index, item=body)

    def _of(self, type: str, sent: _Sent, **more: Any) -> Event:
        return self._event(type, item_id=sent.id, output_index=sent.index, **more)

    def _event(self, type: str, **more: Any) -> Event:
        number, self.number = self.number, self.number + 1
        told = {"type": type, "sequence_number": number, **more}
        return Event(number, type, json.dumps(told, separators=(",", ":")))


def _keys(items: Sequence[Item] | Sequence[Wire]) -> Iterator[str]:
    """What tells the items of one response apart: there is at most one of a kind, but for calls."""
    calls = 0
    for item in items:
        kind = item.body["type"] if isinstance(item, Item) else item["type"]
        calls += kind == "function_call"
        yield kind if kind != "function_call" else f"call {calls - 1}"


def _renamed(item: Item, response_id: str, place: int) -> Item:
    id = item_id(item.body["type"], response_id, place)
    return Item(id, {**item.body, "id": id}, item.hidden)


def frame(event: Event) -> bytes:
    """The event on the wire: the same bytes each time it is sent."""
    return f"event: {event.type}\ndata: {event.data}\n\n".encode()


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    held: list[Piece] = []
    for piece in pieces:
        if held and _source(held[0]) != _source(piece):
            yield _together(held)
            held = []
        held.append(piece)
    if held:
        yield _together(held)


def _source(piece: Piece) -> Phase | int:
    return piece.call if isinstance(piece, CallDelta) else piece.phase


def _together(pieces: Sequence[Piece]) -> Piece:
    first = pieces[0]
    if isinstance(first, CallDelta):
        return replace(first, arguments="".join(piece.arguments for piece in pieces if isinstance(piece, CallDelta)))
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    tokens = tuple(token for delta in deltas for token in delta.tokens)
    return replace(first, text="".join(delta.text for delta in deltas), tokens=tokens)
