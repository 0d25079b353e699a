"""The events of a response, from the pieces of a stream, without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from ponder.dialogue import Message, Reasoning, Role, Text, ToolCall
from ponder.sampler.protocol import CallDelta, Completion, Delta
from ponder.serve import Served
from ponder.serve.responses.convert import read_parts
from ponder.serve.responses.events import EventWriter, frame
from ponder.serve.responses.objects import View, output_items
from ponder.serve.responses.seal import Sealer
from ponder.serve.store import StoredItem
from ponder.testing.scripted import ScriptedSampler
from ponder.types import Phase, StopReason, Usage

ID = "resp_0123456789abcdef"
SERVED = Served(name="said", sampler=ScriptedSampler([]))
KNOWN = TypeAdapter(ResponseStreamEvent)
CANARY = "canary-7731"
THOUGHT, ANSWER = f"I think {CANARY} of it.", "It is four."
HIDDEN = View("anna", "said")
SHOWN = View("anna", "said", shows_reasoning=True)
SEALED = View("anna", "said", sealer=Sealer(bytes(32)))
CALLS = (ToolCall("add", '{"a":1}'), ToolCall("sub", "{}", "call_given"))


def completion(thought=THOUGHT, answer=ANSWER, calls=(), stop_reason=StopReason.END) -> Completion:
    parts = (*((Reasoning(thought),) if thought else ()), *((Text(answer),) if answer else ()), *calls)
    return Completion(message=Message(Role.ASSISTANT, parts), stop_reason=stop_reason, usage=Usage())


def told(deltas: Sequence[Delta], done: Completion, view: View = HIDDEN) -> tuple[list[dict], list[dict], bytes]:
    """The events, the output items as shown, and all bytes, of a stream whose pieces come one by one."""
    writer = EventWriter(ID, view)
    events = [event for delta in deltas for event in writer.piece(delta)]
    items: list[StoredItem] = writer.placed(output_items(done, ID, SERVED))
    shown = [view.item(item) for item in items]
    events += writer.items(shown)
    return [json.loads(event.data) for event in events], shown, b"".join(map(frame, events))


def pieces(thought: str, answer: str, size: int) -> list[Delta]:
    return [
        Delta(0, phase, text[at : at + size])
        for phase, text in ((Phase.THINK, thought), (Phase.ANSWER, answer))
        for at in range(0, len(text), size)
    ]


def types(events: Sequence[dict]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_hidden_thinking_is_an_item_without_content() -> None:
    events, shown, _ = told(pieces(THOUGHT, ANSWER, 100), completion())
    assert types(events) == [
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert [item["type"] for item in shown] == ["reasoning", "message"]
    assert (
        events[1]["item"]
        == shown[0]
        == {
            "id": "rs_0123456789abcdef_0",
            "type": "reasoning",
            "summary": [],
            "status": "completed",
        }
    )


def test_shown_thinking_has_events_of_its_own_and_is_done_before_the_message() -> None:
    events, shown, _ = told(pieces(THOUGHT, ANSWER, 100), completion(), SHOWN)
    assert types(events) == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert shown[0]["content"] == [{"type": "reasoning_text", "text": THOUGHT}]


def test_calls_come_with_their_arguments() -> None:
    events, shown, _ = told([], completion(thought="", answer="", calls=CALLS))
    assert types(events) == 2 * [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert [(item["name"], item["call_id"]) for item in shown] == [
        ("add", "call_0123456789abcdef_0"),
        ("sub", "call_given"),
    ]


@pytest.mark.parametrize("view", [HIDDEN, SHOWN, SEALED], ids=["hidden", "shown", "sealed"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("calls", [(), CALLS])
def test_every_event_is_the_sdks_and_the_pieces_add_up(view: View, size: int, calls: tuple) -> None:
    events, shown, _ = told(pieces(THOUGHT, ANSWER, size), completion(calls=calls), view)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    open_items, texts = {}, {}
    for event in events:
        known = KNOWN.validate_python(event)
        assert not known.model_extra
        index = event["output_index"]
        if event["type"] == "response.output_item.added":
            assert not open_items, "an item is done before the next is added"
            assert index == len(texts), "items are added in the order of the output"
            open_items[index], texts[index] = event["item"]["id"], ""
        assert event.get("item_id", open_items[index]) == open_items[index]
        if event["type"].endswith(".delta"):
            texts[index] += event["delta"]
        if event["type"] == "response.output_item.done":
            assert event["item"] == shown[index]
            del open_items[index]
    assert not open_items
    assert texts[1] == ANSWER
    assert texts[0] == (THOUGHT if view is SHOWN else "")


@pytest.mark.parametrize("view", [HIDDEN, SEALED], ids=["hidden", "sealed"])
def test_no_byte_of_hidden_thinking_leaves_whatever_the_split(view: View) -> None:
    for size in range(1, len(THOUGHT) + 1):
        for stop_reason in (StopReason.END, StopReason.LENGTH):
            for answer in (ANSWER, ""):
                done = completion(answer=answer, stop_reason=stop_reason)
                _, shown, sent = told(pieces(THOUGHT, answer, size), done, view)
                assert CANARY.encode() not in sent
                assert CANARY not in json.dumps(shown)
                assert not any(piece in sent for piece in (b"reasoning_text", b"I think", b"of it"))


def test_thinking_that_was_cut_off_leaves_no_message() -> None:
    _, shown, _ = told(pieces(THOUGHT, "", 5), completion(answer="", stop_reason=StopReason.LENGTH))
    assert [(item["type"], item["status"]) for item in shown] == [("reasoning", "incomplete")]


def test_an_answer_that_was_cut_off_is_incomplete() -> None:
    _, shown, _ = told(pieces(THOUGHT, "It is", 5), completion(answer="It is", stop_reason=StopReason.LENGTH))
    assert [(item["type"], item["status"]) for item in shown] == [("reasoning", "completed"), ("message", "incomplete")]


def test_nothing_said_is_an_empty_message() -> None:
    events, shown, _ = told([], completion(thought="", answer=""))
    assert shown[0]["content"][0]["text"] == ""
    assert "output_text.delta" not in types(events)


@pytest.mark.parametrize("view", [HIDDEN, SHOWN, SEALED], ids=["hidden", "shown", "sealed"])
def test_a_piece_of_thinking_that_comes_after_it_was_done_is_left_out(view: View) -> None:
    deltas = [Delta(0, Phase.THINK, "Hm."), Delta(0, Phase.ANSWER, "Four"), Delta(0, Phase.THINK, "\n")]
    events, shown, _ = told([*deltas, Delta(0, Phase.ANSWER, ".")], completion("Hm.\n", "Four."), view)
    assert [item["type"] for item in shown] == ["reasoning", "message"]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == shown
    thought = "".join(event["delta"] for event in events if event["type"] == "response.reasoning_text.delta")
    assert thought == ("Hm." if view is SHOWN else "")


def test_a_state_is_sealed_as_one_although_the_stream_goes_on() -> None:
    parts = (Reasoning("a "), Reasoning("so far", state=True), Reasoning("then b"), Reasoning("", state=True))
    deltas = [Delta(0, Phase.THINK, text) for text in ("a", " ")] + [Delta(0, Phase.THINK, "so far", state=True)]
    deltas += [Delta(0, Phase.THINK, "then"), Delta(0, Phase.THINK, " b"), Delta(0, Phase.THINK, "", state=True)]
    done = Completion(
        message=Message(Role.ASSISTANT, (*parts, Text(ANSWER))), stop_reason=StopReason.END, usage=Usage()
    )
    events, shown, _ = told([*deltas, Delta(0, Phase.ANSWER, ANSWER)], done, SEALED)
    assert events[1]["type"] == "response.output_item.done"
    assert events[1]["item"] == shown[0]
    assert SEALED.sealer is not None
    carried = SEALED.sealer.open("anna", "said", shown[0]["id"], shown[0]["encrypted_content"])
    assert read_parts(carried, keep_ids=False) == parts


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_refusal_is_a_part_of_its_own(size: int) -> None:
    refused = "I will not."
    for said in ("", "Hm. "):
        deltas = pieces("", said, size)
        deltas += [Delta(0, Phase.ANSWER, refused[at : at + size], refusal=True) for at in range(0, len(refused), size)]
        parts = (*((Text(said),) if said else ()), Text(refused, refusal=True))
        done = Completion(message=Message(Role.ASSISTANT, parts), stop_reason=StopReason.END, usage=Usage())
        events, shown, _ = told(deltas, done)
        assert [part["type"] for part in shown[0]["content"]] == [*(["output_text"] if said else []), "refusal"]
        assert shown[0]["content"][-1] == {"type": "refusal", "refusal": refused}
        assert "".join(e["delta"] for e in events if e["type"] == "response.refusal.delta") == refused
        assert [e["refusal"] for e in events if e["type"] == "response.refusal.done"] == [refused]
        assert all(KNOWN.validate_python(event) for event in events)
        assert told([], done)[1] == shown


def test_arguments_that_come_in_turns_are_sent_one_call_after_the_other() -> None:
    halves = [(0, "add", '{"a"'), (1, "sub", "{"), (0, None, ":1}"), (1, None, "}")]
    deltas: list = [
        CallDelta(0, call, name, text, "call_given" if call and name else None) for call, name, text in halves
    ]
    events, shown, _ = told(deltas, completion(thought="", answer="", calls=CALLS))
    assert [event["output_index"] for event in events] == sorted(event["output_index"] for event in events)
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == shown


def test_thinking_that_is_known_at_the_end_only_stands_where_it_was_added() -> None:
    events, shown, _ = told([Delta(0, Phase.ANSWER, "Four.")], completion("Late.", "Four."), SHOWN)
    assert [item["type"] for item in shown] == ["message", "reasoning"]
    assert [item["id"][-1] for item in shown] == ["0", "1"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("view", [HIDDEN, SHOWN], ids=["hidden", "shown"])
def test_calls_that_are_streamed_are_the_same_items(size: int, view: View) -> None:
    deltas: list = pieces(THOUGHT, "", 9)
    for number, call in enumerate(CALLS):
        for at in range(0, len(call.arguments), size):
            name = call.name if at == 0 else None
            deltas.append(CallDelta(0, number, name, call.arguments[at : at + size], call.id if at == 0 else None))
    events, shown, _ = told(deltas, completion(answer="", calls=CALLS), view)
    _, whole, _ = told([], completion(answer="", calls=CALLS), view)
    assert shown == whole
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == shown
    for index, call in enumerate(CALLS, 1):
        of_it = [event for event in events if event["output_index"] == index and event["type"].endswith(".delta")]
        assert "".join(event["delta"] for event in of_it) == call.arguments
        assert len(of_it) == -(-len(call.arguments) // size)
    assert all(KNOWN.validate_python(event) for event in events)


def test_a_call_that_was_cut_off_is_incomplete() -> None:
    _, shown, _ = told([], completion(answer="", calls=CALLS, stop_reason=StopReason.LENGTH))
    assert [item["status"] for item in shown] == ["completed", "completed", "incomplete"]


def test_a_response_taken_up_again_goes_on_where_it_was() -> None:
    writer = EventWriter(ID, HIDDEN, 2)
    assert writer.state("in_progress", {"id": ID}).number == 2
    assert [event.number for event in writer.piece(Delta(0, Phase.ANSWER, "x"))] == [3, 4, 5]
