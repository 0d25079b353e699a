"""The Responses API as the official client sees it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import httpx2
import openai
import pytest
from live import Live, serving
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from ponder.dialogue import Role, ToolCall
from ponder.serve import Served, Settings
from ponder.serve.responses.wire import ResponseObject
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler

DOCUMENTED = TypeAdapter(ResponseObject)
KNOWN_EVENT = TypeAdapter(ResponseStreamEvent)
CANARY = "canary-5150"
EXTENSIONS = {"store", "refilled_tokens", "dropped_turns"}  # the first is in the API, and not in the client's type


def script(conversation, index):
    """Says what it was given: the roles, the last text, and how many thoughts."""
    last = conversation[-1]
    asked = last.text or "".join(getattr(part, "content", "") for part in last.parts)
    if asked.startswith("call"):
        return Say("", reasoning=CANARY, calls=(ToolCall("add", '{"a": 1}'), ToolCall("sub", "{}")))
    thoughts = sum(bool(message.reasoning) for message in conversation)
    roles = "".join(message.role.value[0] for message in conversation)
    seconds = float(asked.removeprefix("wait ")) if asked.startswith("wait ") else 0.0
    return Say(f"{roles} {thoughts} {asked}", reasoning=f"{CANARY} about {asked}", seconds=seconds)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    models = [
        Served(name="tiny", sampler=tiny_sampler(max_positions=512)),
        Served(name="said", sampler=ScriptedSampler(script)),
        Served(name="other", sampler=ScriptedSampler(script)),
    ]
    with serving(models) as running:
        yield running


TOOLS: list = [{"type": "function", "name": name, "parameters": {}, "strict": False} for name in ("add", "sub")]


def said(client: openai.OpenAI, input: object, **options: object) -> Response:
    return client.responses.create(model="said", input=input, **options)


def checked(stream: Iterator) -> list[dict]:
    """The events of a stream, each held to the SDK's types, numbered without a gap."""
    events = []
    for event in stream:
        assert not event.model_extra
        events.append(event.to_dict())
        held = json.loads(json.dumps(events[-1]).replace('"context_length_exceeded"', '"invalid_prompt"'))
        KNOWN_EVENT.validate_python(held)  # a code that the API sends and does not document
        if "response" in held:
            DOCUMENTED.validate_python(held["response"])
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return events


# One request ----------------------------------------------------------------------------------------------------------


def test_a_response_is_an_answer_with_its_bill_and_its_thinking_hidden(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model="said", input="hello")
    assert CANARY not in raw.text
    answer = Response.model_validate(json.loads(raw.text))
    DOCUMENTED.validate_python(json.loads(raw.text))
    assert answer.output_text == "u 0 hello"
    assert answer.status == "completed"
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].summary == []
    assert answer.output[0].content is None
    assert answer.usage.output_tokens_details.reasoning_tokens == 4
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert not set(answer.model_extra) - EXTENSIONS
    assert answer.completed_at >= answer.created_at


def test_what_was_asked_is_echoed_with_the_defaults_that_hold(client: openai.OpenAI) -> None:
    answer = said(client, "hello", instructions="be brief", metadata={"a": "b"}, temperature=0.5, max_output_tokens=99)
    assert answer.instructions == "be brief"
    assert answer.metadata == {"a": "b"}
    assert (answer.temperature, answer.max_output_tokens, answer.truncation) == (0.5, 99, "disabled")
    assert (answer.reasoning.context, answer.reasoning.mode, answer.reasoning.summary) == (
        "current_turn",
        "standard",
        None,
    )
    assert answer.text.format.type == "text"
    assert answer.store is True
    assert answer.background is False


def test_reasoning_is_shown_only_to_whom_asks(client: openai.OpenAI) -> None:
    answer = said(client, "hello", include=["reasoning.content"])
    assert answer.output[0].content[0].text == f"{CANARY} about hello"
    assert client.responses.retrieve(answer.id).output[0].content[0].text == f"{CANARY} about hello"
    plain = said(client, "hello")
    assert client.responses.retrieve(plain.id).output[0].content is None
    shown = client.responses.retrieve(plain.id, include=["reasoning.content"])
    assert shown.output[0].content[0].text == f"{CANARY} about hello"


def test_a_stream_ends_in_what_the_whole_says(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "input": "hello", "max_output_tokens": 60, "extra_body": {"seed": 3, "answer_room": 30}}
    whole = client.responses.create(**ask, include=["reasoning.content"])
    events = checked(client.responses.create(**ask, include=["reasoning.content"], stream=True))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == f"response.{whole.status}"
    last = Response.model_validate(events[-1]["response"])
    assert last.output_text == whole.output_text
    assert [item.content for item in last.output] == [item.content for item in whole.output]
    assert last.usage.output_tokens == whole.usage.output_tokens
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert deltas == whole.output_text
    thought = "".join(event["delta"] for event in events if event["type"] == "response.reasoning_text.delta")
    assert thought == whole.output[0].content[0].text
    kept = client.responses.retrieve(last.id)
    assert kept.to_dict() == events[-1]["response"]


def test_the_helper_of_the_client_follows_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="said", input="hello") as stream:
        assert [event.type for event in stream][-1] == "response.completed"
        assert stream.get_final_response().output_text == "u 0 hello"


def test_no_byte_of_hidden_thinking_is_in_a_stream(live: Live, client: openai.OpenAI) -> None:
    with client.responses.with_streaming_response.create(model="said", input="hello", stream=True) as raw:
        text = "".join(raw.iter_text())
    assert "event: response.completed\ndata: " in text
    assert CANARY not in text
    assert "reasoning_text" not in text


def test_thinking_that_ate_the_room_is_incomplete_with_a_bill(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="tiny", input="hello", max_output_tokens=8, extra_body={"thinking_token_budget": 1000, "seed": 1}
    )
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == ""
    assert answer.usage.output_tokens_details.reasoning_tokens == 8


def test_an_answer_of_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    wanted = {"format": {"type": "json_schema", "name": "number", "schema": schema, "strict": True}}
    answer = client.responses.create(model="tiny", input="x", text=wanted, reasoning={"effort": "minimal"})
    assert json.loads(answer.output_text)["n"] in (1, 2)
    assert answer.text.format.type == "json_schema"


def test_log_probabilities_of_the_answer_alone(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="tiny",
        input="x",
        max_output_tokens=24,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        extra_body={"seed": 1, "thinking_token_budget": 8},
    )
    content = answer.output[-1].content[0]
    assert content.logprobs
    assert len(content.logprobs) <= answer.usage.output_tokens - answer.usage.output_tokens_details.reasoning_tokens
    assert all(token.logprob <= 0 for token in content.logprobs)
    assert all(len(token.top_logprobs) == 2 for token in content.logprobs)


def test_streamed_log_probabilities_come_with_the_text_they_spell(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "input": "x", "max_output_tokens": 24, "include": ["message.output_text.logprobs"]}
    extra = {"seed": 1, "thinking_token_budget": 8}
    events = checked(client.responses.create(**asked, stream=True, extra_body=extra))
    told = [token for event in events if event["type"] == "response.output_text.delta" for token in event["logprobs"]]
    (done,) = (event for event in events if event["type"] == "response.output_text.done")
    assert told
    assert told == done["logprobs"]


def test_pro_is_more_compute_and_all_of_it_is_billed(client: openai.OpenAI) -> None:
    answer = said(client, "hello", reasoning={"mode": "pro"})
    assert answer.reasoning.mode == "pro"
    one = said(client, "hello")
    assert answer.output_text == one.output_text
    assert 4 <= answer.usage.output_tokens / one.usage.output_tokens <= 8, "it stops when the vote is decided"
    assert answer.usage.input_tokens % one.usage.input_tokens == 0, "each request has read the prompt"


def test_a_strategy_by_name(client: openai.OpenAI) -> None:
    answer = said(client, "hello", extra_body={"strategy": "consensus(samples=3)"})
    assert answer.usage.output_tokens == 3 * said(client, "hello").usage.output_tokens
    events = checked(said(client, "hello", extra_body={"strategy": "consensus(samples=3)"}, stream=True))
    assert events[-1]["response"]["output"][1]["content"][0]["text"] == "u 0 hello"


# What is not taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"previous_response_id": "resp_a", "conversation": "conv_a"}, "previous_response_id"),
        ({"background": True, "store": False}, "background"),
        ({"conversation": "conv_a", "store": False}, "store"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"effort": "xhigh"}}, "reasoning.effort"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"prompt": {"id": "pmpt_a"}}, "prompt"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"model": "nobody"}, "model"),
        ({"service_tier": "fast"}, "service_tier"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, options: dict, param: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(**{"model": "said", "input": "x", **options})
    assert caught.value.status_code in (400, 404)
    assert caught.value.body["param"] == param


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1/a.png"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "call_unknown", "output": "3"},
        {"type": "reasoning", "id": "rs_unknown", "summary": []},
        {"type": ["message"], "role": "user", "content": "x"},
        {"role": "critic", "content": "x"},
    ],
)
def test_items_that_cannot_be_read_are_refused(client: openai.OpenAI, item: dict) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        said(client, [{"role": "user", "content": "x"}, item])
    assert caught.value.body["param"].startswith("input")


def test_an_item_is_sent_once(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(items=[{"id": "msg_a", "role": "user", "content": "zero"}])
    item = {"id": "msg_a", "role": "user", "content": "one"}
    for options in ({"input": [item, item]}, {"input": [item], "conversation": conversation.id}):
        with pytest.raises(openai.BadRequestError, match="already"):
            client.responses.create(model="said", **options)


def test_a_summary_that_is_left_to_the_server_is_empty(client: openai.OpenAI) -> None:
    answer = said(client, "hello", reasoning={"summary": "auto"})
    assert answer.reasoning.summary is None
    assert answer.output[0].summary == []


@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_fit_the_window_is_refused_unless_turns_may_be_dropped(client, stream: bool) -> None:
    long = [{"role": role, "content": "word " * 30} for role in ("user", "assistant", "user", "assistant", "user")]
    ask = {"model": "tiny", "input": long, "max_output_tokens": 8, "stream": stream}
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ask)
    assert caught.value.code == "context_length_exceeded"
    answer = client.responses.create(**ask, truncation="auto")
    body = checked(answer)[-1]["response"] if stream else answer.to_dict()
    assert body["truncation"] == "auto"
    assert body["dropped_turns"] > 0


# Turns ----------------------------------------------------------------------------------------------------------------


def test_a_response_follows_another_without_its_thinking_and_says_so(client: openai.OpenAI) -> None:
    first = said(client, "one", instructions="be brief")
    second = said(client, "two", previous_response_id=first.id)
    assert second.output_text == "uau 0 two", "instructions do not carry over"
    assert [each.to_dict() for each in second.input_transformations] == [
        {"id": first.output[0].id, "type": "reasoning", "action": "removed", "reason": "turn_boundary"}
    ]
    third = said(client, "three", previous_response_id=second.id, reasoning={"context": "all_turns"})
    assert third.output_text == "uauau 2 three"
    assert third.reasoning.context == "all_turns"
    assert third.input_transformations == []


def test_another_models_thinking_is_not_used(client: openai.OpenAI) -> None:
    first = said(client, "one")
    second = client.responses.create(
        model="other", input="two", previous_response_id=first.id, reasoning={"context": "all_turns"}
    )
    assert second.output_text == "uau 0 two"
    assert second.input_transformations[0].reason == "model_mismatch"


def test_a_second_turn_begins_with_what_the_first_left_in_the_cache(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "max_output_tokens": 48, "extra_body": {"seed": 6, "thinking_token_budget": 8}}
    first = client.responses.create(**ask, input="hello there, " * 8)
    assert first.output_text
    time.sleep(0.3)  # the next prompt is computed while the engine is idle
    second = client.responses.create(**ask, input="go on", previous_response_id=first.id)
    assert second.usage.input_tokens_details.cached_tokens > first.usage.input_tokens - 16


def test_a_tool_loop_keeps_the_thinking_of_its_turn(client: openai.OpenAI) -> None:
    first = said(client, "call it", tools=TOOLS)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("add", {"a": 1}), ("sub", {})]
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "7"} for call in reversed(calls)]
    second = said(client, outputs, previous_response_id=first.id)
    assert second.output_text == "uat 1 77"
    assert second.input_transformations == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_is_made_to_call_a_tool(client: openai.OpenAI, stream: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    tool = {"type": "function", "name": "add", "description": "adds", "parameters": schema, "strict": True}
    answer = client.responses.create(
        model="tiny",
        input="x",
        tools=[tool],
        tool_choice={"type": "function", "name": "add"},
        reasoning={"effort": "minimal"},
        stream=stream,
    )
    if stream:
        events = checked(answer)
        answer = Response.model_validate(events[-1]["response"])
        pieces = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
        assert "".join(pieces) == answer.output[-1].arguments
    call = answer.output[-1]
    assert (call.type, call.name, call.status) == ("function_call", "add", "completed")
    assert json.loads(call.arguments)["a"] in (1, 2)
    assert answer.tools[0].to_dict() == tool
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    after = client.responses.create(
        model="tiny", input=[output], previous_response_id=answer.id, tools=[tool], max_output_tokens=16
    )
    assert after.status in ("completed", "incomplete")


def test_what_asks_for_no_tools_may_stand_without_any(client: openai.OpenAI) -> None:
    assert said(client, "x", tools=[], tool_choice="auto", parallel_tool_calls=True).output_text == "u 0 x"
    with pytest.raises(openai.BadRequestError) as caught:
        said(client, "x", tool_choice="required")
    assert caught.value.body["param"] == "tool_choice"


def test_a_client_that_keeps_everything_itself_sends_its_items_back(client: openai.OpenAI) -> None:
    history: list = [{"role": "user", "content": "call it"}]
    first = said(client, history, store=False, tools=TOOLS)
    assert CANARY not in first.to_json()
    assert first.output[0].encrypted_content
    history += [item.to_dict() for item in first.output]
    calls = [item for item in first.output if item.type == "function_call"]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "7"} for call in calls]
    second = said(client, history, store=False)
    assert second.output_text == "uat 1 77"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    history += [*(item.to_dict() for item in second.output), {"role": "user", "content": "next"}]
    third = said(client, history, store=False)
    assert third.output_text == "uatau 0 next"
    assert [each.reason for each in third.input_transformations] == ["turn_boundary"] * 2


def test_sealed_thinking_that_was_changed_is_refused(client: openai.OpenAI) -> None:
    first = said(client, "call it", tools=TOOLS, include=["reasoning.encrypted_content"])
    item = first.output[0].to_dict()
    item["encrypted_content"] = item["encrypted_content"][:-8] + "AAAAAAA="
    with pytest.raises(openai.BadRequestError, match="unchanged"):
        said(client, [{"role": "user", "content": "x"}, item])


def test_thinking_that_is_kept_here_can_be_named_by_its_id(client: openai.OpenAI) -> None:
    first = said(client, "call it", tools=TOOLS)
    items = [item.to_dict() for item in first.output if item.type != "message"]
    outputs = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "7"}
        for item in items
        if item["type"] == "function_call"
    ]
    answer = said(client, [{"role": "user", "content": "call it"}, *items, *outputs])
    assert answer.output_text == "uat 1 77"


def test_thinking_as_text_of_ones_own(client: openai.OpenAI) -> None:
    thought = {
        "type": "reasoning",
        "id": "rs_mine",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
    }
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "9"}]}
    answer = said(client, [{"role": "user", "content": "x"}, thought, call, output])
    assert answer.output_text == "uat 1 9"


# What is kept ---------------------------------------------------------------------------------------------------------


def test_a_stored_response_is_found_listed_and_deleted(client: openai.OpenAI) -> None:
    items = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}]
    answer = said(client, items)
    assert client.responses.retrieve(answer.id).to_dict() == answer.to_dict()
    listed = list(client.responses.input_items.list(answer.id, limit=1, order="asc"))
    assert [(item.role, item.content[0].text) for item in listed] == [("developer", "be brief"), ("user", "hello")]
    page = client.responses.input_items.list(answer.id, limit=1)
    assert page.has_more
    assert page.data[0].role == "user"
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(answer.id)
    client.responses.delete(answer.id)
    for call in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            call(answer.id)
    with pytest.raises(openai.NotFoundError) as caught:
        said(client, "two", previous_response_id=answer.id)
    assert caught.value.body["param"] == "previous_response_id"


def test_what_is_not_stored_is_not_there(client: openai.OpenAI) -> None:
    answer = said(client, "hello", store=False)
    assert answer.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


# In the background ----------------------------------------------------------------------------------------------------


def finished(client: openai.OpenAI, id: str) -> Response:
    for _ in range(600):
        answer = client.responses.retrieve(id)
        DOCUMENTED.validate_python(answer.to_dict())
        if answer.status not in ("queued", "in_progress"):
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{id} did not end")


def test_a_background_response_is_polled(client: openai.OpenAI) -> None:
    answer = said(client, "wait 0.3", background=True)
    assert answer.status in ("queued", "in_progress")
    assert answer.background is True
    assert answer.output == []
    done = finished(client, answer.id)
    assert done.status == "completed"
    assert done.output_text == "u 0 wait 0.3"
    assert done.usage.output_tokens > 0


def test_a_background_stream_is_cut_and_resumed_byte_for_byte(live: Live, client: openai.OpenAI) -> None:
    def read(raw, most: int | None = None) -> list[str]:
        lines, events = raw.iter_lines(), []
        for line in lines:
            if line.startswith("data: "):
                events.append(line)
                if most is not None and len(events) == most:
                    break
        return events

    with client.responses.with_streaming_response.create(
        model="said", input="wait 0.4", background=True, stream=True
    ) as raw:
        begun = read(raw, most=4)
    id = json.loads(begun[0].removeprefix("data: "))["response"]["id"]
    rest_of = client.responses.with_streaming_response
    with rest_of.retrieve(id, stream=True, starting_after=3) as raw:
        rest = read(raw)
    with rest_of.retrieve(id, stream=True) as raw:
        whole = read(raw)
    assert begun + rest == whole
    types = [json.loads(line.removeprefix("data: "))["type"] for line in whole]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert types[-1] == "response.completed"
    for cut in range(len(whole)):
        with rest_of.retrieve(id, stream=True, starting_after=cut) as raw:
            assert read(raw) == whole[cut + 1 :]
    checked(client.responses.retrieve(id, stream=True))
    assert CANARY not in "".join(whole)


def test_a_background_response_is_cancelled(live: Live, client: openai.OpenAI) -> None:
    answer = said(client, "wait 60", background=True)
    stream = iter(client.responses.retrieve(answer.id, stream=True))
    begun = [next(stream).type for _ in range(3)]
    assert begun == ["response.created", "response.queued", "response.in_progress"]
    cancelled = client.responses.cancel(answer.id)
    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(answer.id).status == "cancelled"
    assert client.responses.cancel(answer.id).status == "cancelled"
    assert list(stream) == [], "the stream ends"


def test_a_running_background_response_is_deleted(live: Live, client: openai.OpenAI) -> None:
    answer = said(client, "wait 60", background=True)
    client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
    assert not len(live.state.responses.jobs)


def test_what_fails_in_the_background_says_why(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="word " * 300, background=True)
    done = finished(client, answer.id)
    assert done.status == "failed"
    assert done.error.code == "context_length_exceeded"
    assert "maximum context length" in done.error.message
    events = checked(client.responses.retrieve(answer.id, stream=True))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "context_length_exceeded"


def test_as_many_wait_as_may(client: openai.OpenAI) -> None:
    settings = Settings(queued_requests=2)
    with serving([Served(name="said", sampler=ScriptedSampler(script))], settings) as live, live.client() as client:
        ids = [said(client, "wait 60", background=True).id for _ in range(2)]
        with pytest.raises(openai.RateLimitError) as caught:
            said(client, "wait 60", background=True)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        for id in ids:
            client.responses.cancel(id)
        assert finished(client, said(client, "hello", background=True).id).status == "completed"


def test_a_path_says_which_methods_it_takes(live: Live) -> None:
    for path, methods in (("/v1/responses/resp_a", "DELETE, GET, HEAD"), ("/v1/responses", "POST")):
        answer = httpx2.put(f"{live.root}{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_a_foreground_response_cannot_be_followed(client: openai.OpenAI) -> None:
    answer = said(client, "hello")
    for options in ({"stream": True}, {"starting_after": 3}):
        with pytest.raises(openai.BadRequestError):
            client.responses.retrieve(answer.id, **options)


def test_a_response_cannot_follow_one_that_is_not_done(client: openai.OpenAI) -> None:
    answer = said(client, "wait 60", background=True)
    with pytest.raises(openai.BadRequestError, match="not complete"):
        said(client, "two", previous_response_id=answer.id)
    client.responses.cancel(answer.id)


def test_a_stream_whose_client_left_is_cancelled(live: Live, client: openai.OpenAI) -> None:
    stream = client.responses.create(model="said", input="wait 30", stream=True)
    id = next(iter(stream)).response.id
    stream.close()
    for _ in range(200):
        if client.responses.retrieve(id).status == "cancelled":
            break
        time.sleep(0.05)
    assert client.responses.retrieve(id).status == "cancelled"


def test_the_engine_works_for_nobody_who_left(live: Live, client: openai.OpenAI) -> None:
    tiny = live.state.models.get("tiny").sampler
    streams = [client.responses.create(model="tiny", input="x", stream=True) for _ in range(6)]
    for stream in streams:
        next(iter(stream))
        stream.close()
    with live.client(timeout=0.2) as hasty:
        for _ in range(3):
            with contextlib.suppress(openai.APITimeoutError):
                hasty.responses.create(model="tiny", input="x")
    for _ in range(400):
        if tiny.num_generations == 0 and live.state.idle:
            break
        time.sleep(0.05)
    assert tiny.num_generations == 0
    assert live.state.idle


# Conversations --------------------------------------------------------------------------------------------------------


def test_responses_of_a_conversation_follow_one_another(client: openai.OpenAI) -> None:
    first = [{"role": "user", "content": "zero"}, {"role": "assistant", "content": "nought"}]
    conversation = client.conversations.create(items=first, metadata={"topic": "numbers"})
    one = said(client, "one", conversation=conversation.id)
    assert one.output_text == "uau 0 one"
    assert one.conversation.id == conversation.id
    events = checked(said(client, "two", conversation={"id": conversation.id}, stream=True))
    assert events[-1]["response"]["output"][1]["content"][0]["text"] == "uauau 0 two"
    three = said(client, "three", conversation=conversation.id, reasoning={"context": "all_turns"})
    assert three.output_text == "uauauau 2 three"
    done = finished(client, said(client, "four", conversation=conversation.id, background=True).id)
    assert done.output_text == "uauauauau 0 four"
    items = list(client.conversations.items.list(conversation.id, order="asc", limit=3))
    assert [item.type for item in items] == ["message"] * 2 + ["message", "reasoning", "message"] * 4
    assert CANARY not in json.dumps([item.to_dict() for item in items])
    with pytest.raises(openai.BadRequestError, match="belongs to conversation"):
        said(client, "x", previous_response_id=one.id)


def test_a_conversation_takes_one_response_at_a_time(client: openai.OpenAI) -> None:
    conversation = client.conversations.create()
    answer = said(client, "wait 60", conversation=conversation.id, background=True)
    with pytest.raises(openai.ConflictError) as caught:
        said(client, "two", conversation=conversation.id)
    assert caught.value.code == "conversation_locked"
    client.responses.cancel(answer.id)
    assert said(client, "two", conversation=conversation.id).output_text == "u 0 two"


def test_a_conversation_is_changed_and_deleted(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(metadata={"a": "b"})
    assert client.conversations.retrieve(conversation.id).metadata == {"a": "b"}
    assert client.conversations.update(conversation.id, metadata={"c": "d"}).metadata == {"c": "d"}
    added = client.conversations.items.create(
        conversation.id, items=[{"role": "user", "content": f"{n}"} for n in range(3)]
    )
    ids = [item.id for item in added.data]
    item = client.conversations.items.retrieve(ids[1], conversation_id=conversation.id)
    assert item.content[0].text == "1"
    client.conversations.items.delete(ids[1], conversation_id=conversation.id)
    assert [item.id for item in client.conversations.items.list(conversation.id)] == [ids[2], ids[0]]
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(ids[1], conversation_id=conversation.id)
    assert client.conversations.delete(conversation.id).deleted
    for call in (
        lambda: client.conversations.retrieve(conversation.id),
        lambda: client.conversations.delete(conversation.id),
        lambda: client.conversations.items.list(conversation.id),
        lambda: said(client, "x", conversation=conversation.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call()


def test_too_many_items_at_once(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.conversations.create(items=[{"role": "user", "content": "x"}] * 21)


def test_the_roles_of_the_script_are_the_dialogues() -> None:
    assert [role.value[0] for role in (Role.USER, Role.ASSISTANT, Role.TOOL, Role.SYSTEM)] == list("uats")
