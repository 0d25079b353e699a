"""`/v1/messages`, as Anthropic's own client drives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest
from live import Live, serving

from ponder.dialogue import Reasoning, Role, ToolCall, ToolResult
from ponder.serve import Served
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import consensus

ASKED: list[Any] = [{"role": "user", "content": "What is 6 * 7, and the weather?"}]
EMPTY = {"type": "object", "properties": {}}
TOOLS: list[Any] = [
    {"name": "multiply", "description": "A product.", "input_schema": EMPTY},
    {"name": "weather", "input_schema": EMPTY, "cache_control": {"type": "ephemeral"}},
]
CALLS = Say(
    "Let me see.",
    reasoning="Two calls.",
    calls=(ToolCall("multiply", '{"a": 6}'), ToolCall("weather", "{}")),
)
SHOWN: Any = {"type": "enabled", "budget_tokens": 1024}


def script(messages: Any, index: int) -> Say:
    if messages[-1].role is Role.TOOL:
        return Say("42, and rain.", "So.")
    if messages[-1].text == "Is it?":
        return Say('{"right": true}')
    return CALLS if "weather" in messages[-1].text else Say("Hello there.", "A greeting.")


@pytest.fixture(scope="module")
def said() -> ScriptedSampler:
    return ScriptedSampler(script)


@pytest.fixture(scope="module")
def live(said: ScriptedSampler) -> Iterator[Live]:
    tiny = tiny_sampler(max_positions=512)
    served = [
        Served(name="said", sampler=said),
        Served(name="tiny", sampler=tiny),
        Served(name="deep", sampler=said, strategy=consensus(samples=3)),
    ]
    with serving(served) as it:
        yield it


@pytest.fixture(scope="module")
def client(live: Live) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=live.root, api_key="none", max_retries=0)


def ask(client: anthropic.Anthropic, content: Any = "hi", **fields: Any) -> Any:
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return client.messages.create(**{"model": "said", "max_tokens": 100, "messages": messages, **fields})


def test_an_answer_hides_its_thinking_and_bills_it(client: anthropic.Anthropic) -> None:
    answer = ask(client, system="Be kind.")
    assert [block.type for block in answer.content] == ["text"]
    assert (answer.content[0].text, answer.stop_reason, answer.role) == ("Hello there.", "end_turn", "assistant")
    assert answer.usage.output_tokens == 6  # two words and a close of thinking, two words and an end
    assert answer.usage.input_tokens > 0


def test_thinking_is_a_block_of_its_own_where_it_is_asked_for(client: anthropic.Anthropic) -> None:
    answer = ask(client, thinking=SHOWN)
    assert [(block.type, getattr(block, "thinking", None)) for block in answer.content] == [
        ("thinking", "A greeting."),
        ("text", None),
    ]
    assert ask(client, thinking={"type": "disabled"}).usage.output_tokens == 3


def test_a_budget_is_an_exact_cap(client: anthropic.Anthropic, said: ScriptedSampler) -> None:
    ask(client, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000)
    assert said.requests[-1].params.thinking.cap == 1024


def test_tools_are_called_answered_in_any_order_and_carried_on(
    client: anthropic.Anthropic, said: ScriptedSampler
) -> None:
    first = ask(client, ASKED, tools=TOOLS, thinking=SHOWN)
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use", "tool_use"]
    multiply, weather = first.content[2:]
    assert (multiply.name, multiply.input, weather.input) == ("multiply", {"a": 6}, {})
    results: Any = [
        {
            "type": "tool_result",
            "tool_use_id": weather.id,
            "content": [{"type": "text", "text": "no rain"}],
            "is_error": True,
        },
        {"type": "tool_result", "tool_use_id": multiply.id, "content": "42"},
    ]
    history = [*ASKED, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = ask(client, history, tools=TOOLS)
    assert second.content[0].text == "42, and rain."
    *_, assistant, tool = said.requests[-1].prompt
    assert assistant.parts[0] == Reasoning("Two calls.")
    assert tool.parts == (
        ToolResult("multiply", "42", multiply.id),
        ToolResult("weather", "error: no rain", weather.id),
    )


def test_a_stream_closes_each_block_before_the_next(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="said", max_tokens=100, messages=ASKED, tools=TOOLS, thinking=SHOWN) as stream:
        kinds = [event.type for event in stream if event.type.startswith(("message_", "content_block_s"))]
        final = stream.get_final_message()
    assert kinds == [
        "message_start",
        *["content_block_start", "content_block_stop"] * 4,
        "message_delta",
        "message_stop",
    ]
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert final.content[0].thinking == "Two calls."
    assert final.content[2].input == {"a": 6}
    assert final.stop_reason == "tool_use"
    whole = ask(client, ASKED, tools=TOOLS, thinking=SHOWN)
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens


def test_a_stop_sequence_is_named_and_a_limit_told(client: anthropic.Anthropic) -> None:
    stopped = ask(client, stop_sequences=["there"])
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", "there", "Hello ")
    assert ask(client, max_tokens=4).stop_reason == "max_tokens"


def test_a_model_with_a_strategy_answers_here_too(client: anthropic.Anthropic, said: ScriptedSampler) -> None:
    assert ask(client, model="deep").content[0].text == "Hello there."
    assert said.requests[-1].n == 3


def test_the_tokens_of_a_prompt_are_those_that_are_billed(client: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "Count these words, please."}]
    counted = client.messages.count_tokens(model="tiny", messages=messages, system="Be exact.")
    answer = ask(client, messages, model="tiny", system="Be exact.", max_tokens=2)
    usage = answer.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "fly"}}, "tool_choice"),
        ({"container": "x"}, "container"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"content": [{"type": "tool_result", "tool_use_id": "x", "content": ""}]}, "tool_use_id"),
        ({"content": [{"type": "image", "source": {}}]}, "content"),
    ],
)
def test_what_is_not_served_is_refused_by_name(live: Live, fields: dict[str, Any], place: str) -> None:
    import urllib.error
    import urllib.request

    content = fields.pop("content", "hi")
    body = {"model": "said", "max_tokens": 10, "messages": [{"role": "user", "content": content}], **fields}
    request = urllib.request.Request(
        f"{live.url}/messages", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    error = json.loads(refused.value.read())["error"]
    assert refused.value.code == 400
    assert place in f"{error['param']} {error['message']}"


def test_the_text_keeps_to_a_schema_and_comes_back(client: anthropic.Anthropic) -> None:
    class Verdict(pydantic.BaseModel):
        right: bool

    user = {"role": "user", "content": "Is it?"}
    for model in ("tiny", "said"):
        options: Any = {"thinking": {"type": "disabled"}, "output_format": Verdict, "max_tokens": 60}
        answer = client.messages.parse(model=model, messages=[user], **options)
        assert isinstance(answer.parsed_output, Verdict)
        turns: Any = [user, {"role": "assistant", "content": answer.content}, user]
        assert client.messages.count_tokens(model=model, messages=turns).input_tokens > 0
        assert client.messages.parse(model=model, messages=turns, **options).parsed_output is not None


def test_a_schema_may_stand_in_its_older_place_but_not_in_both(client: anthropic.Anthropic) -> None:
    form = {"type": "json_schema", "schema": {"type": "object", "properties": {"right": {"type": "boolean"}}}}
    older = {"output_format": form}
    assert ask(client, "Is it?", extra_body=older).content[-1].text == '{"right": true}'
    with pytest.raises(anthropic.BadRequestError, match="does not keep the grammar"):
        ask(client, "Hello?", extra_body=older)
    with pytest.raises(anthropic.BadRequestError, match="give one"):
        ask(client, "Is it?", output_config={"format": form}, extra_body=older)


def test_hints_of_a_tool_change_nothing_and_a_tool_that_is_not_offered_is_refused(client: anthropic.Anthropic) -> None:
    hints = {"eager_input_streaming": True, "defer_loading": False, "allowed_callers": ["direct"]}
    answer = ask(client, ASKED, tools=[{**each, **hints} for each in TOOLS])
    assert [block.name for block in answer.content if block.type == "tool_use"] == ["multiply", "weather"]
    for refused in ({"defer_loading": True}, {"allowed_callers": ["code_execution_20250825"]}):
        with pytest.raises(anthropic.BadRequestError, match=next(iter(refused))):
            ask(client, ASKED, tools=[{**TOOLS[0], **refused}])


def test_whole_thinking_is_signed_in_answers_and_in_streams(client: anthropic.Anthropic) -> None:
    """Clients send thinking without a signature back as text of the answer."""
    options: Any = {"model": "said", "max_tokens": 100, "messages": ASKED, "tools": TOOLS, "thinking": SHOWN}
    with client.messages.stream(**options) as events:
        streamed = events.get_final_message().content
    for content in (streamed, client.messages.create(**options).content):
        assert content[0].type == "thinking"
        assert content[0].signature
