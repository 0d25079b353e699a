"""Chat completions with tools, as the official client drives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from live import Live, serving
from pydantic import BaseModel

from ponder.dialogue import Message, Reasoning, Role, Text, ToolCall, ToolResult
from ponder.serve import Served
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler

ASKED: list[Any] = [{"role": "user", "content": "What is 6 * 7, and the weather?"}]
MULTIPLY = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "The product of two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"sign": {"enum": ["+", "-"]}, "small": {"type": "boolean"}},
            "required": ["sign", "small"],
            "additionalProperties": False,
        },
    },
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
TOOLS: list[Any] = [MULTIPLY, WEATHER]
CALLS = Say(
    "Let me see.",
    reasoning="Two calls.",
    calls=(ToolCall("multiply", '{"sign": "+", "small": true}'), ToolCall("weather", "{}")),
)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    said = ScriptedSampler(lambda messages, index: Say("42.", "So.") if messages[-1].role is Role.TOOL else CALLS)
    with serving(
        [Served(name="tiny", sampler=tiny_sampler(max_positions=512)), Served(name="said", sampler=said)]
    ) as it:
        yield it


def test_calls_come_whole(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(model="said", messages=ASKED, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    assert [call.function.name for call in choice.message.tool_calls] == ["multiply", "weather"]
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"sign": "+", "small": True}
    assert len({call.id for call in choice.message.tool_calls}) == 2


def test_streamed_calls_begin_with_id_and_name_and_then_give_arguments(client: openai.OpenAI) -> None:
    pieces: dict[int, list[Any]] = {}
    ends = []
    for chunk in client.chat.completions.create(model="said", messages=ASKED, tools=TOOLS, stream=True):
        for choice in chunk.choices:
            ends.append(choice.finish_reason)
            for call in choice.delta.tool_calls or ():
                pieces.setdefault(call.index, []).append(call)
    assert ends[-1] == "tool_calls"
    assert list(pieces) == [0, 1]
    for name, (first, *rest) in zip(("multiply", "weather"), pieces.values(), strict=True):
        assert (first.function.name, first.function.arguments, first.type) == (name, "", "function")
        assert first.id.startswith("call_")
        assert all(call.id is None and call.function.name is None for call in rest)
    assert json.loads("".join(call.function.arguments for call in pieces[0])) == {"sign": "+", "small": True}


def test_the_clients_stream_helper_puts_them_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="said", messages=ASKED, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds
    assert kinds.count("tool_calls.function.arguments.done") == 2
    assert [call.function.name for call in final.message.tool_calls] == ["multiply", "weather"]
    assert final.finish_reason == "tool_calls"


def test_a_loop_with_results_goes_on_and_keeps_the_thinking_of_its_turn(live: Live, client: openai.OpenAI) -> None:
    extra = {"reasoning_format": "reasoning"}
    first = client.chat.completions.create(model="said", messages=ASKED, tools=TOOLS, extra_body=extra)
    message = first.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"result of {call.function.name}"}
        for call in message.tool_calls
    ]
    asked = [*ASKED, message.model_dump(exclude_none=True), *results]
    second = client.chat.completions.create(model="said", messages=asked, tools=TOOLS)
    assert second.choices[0].message.content == "42."
    heard = live.state.models.get("said").sampler.requests[-1]
    ids = [call.id for call in message.tool_calls]
    assert heard.prompt[1] == Message(
        Role.ASSISTANT,
        (
            Reasoning("Two calls."),
            Text("Let me see."),
            ToolCall("multiply", '{"sign": "+", "small": true}', ids[0]),
            ToolCall("weather", "{}", ids[1]),
        ),
    )
    assert heard.prompt[2] == Message(
        Role.TOOL,
        (ToolResult("multiply", "result of multiply", ids[0]), ToolResult("weather", "result of weather", ids[1])),
    )
    assert [tool.name for tool in heard.tools] == ["multiply", "weather"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "multiply"}}])
def test_a_demanded_call_keeps_to_its_schema(client: openai.OpenAI, choice: Any, stream: bool) -> None:
    ask = {
        "model": "tiny",
        "messages": ASKED,
        "tools": [MULTIPLY],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "seed": 3,
        "extra_body": {"thinking_token_budget": 4},
    }
    if stream:
        with client.chat.completions.stream(**ask) as events:
            final = events.get_final_completion().choices[0]
    else:
        final = client.chat.completions.create(**ask).choices[0]
    (call,) = final.message.tool_calls
    assert final.finish_reason == "tool_calls"
    assert not final.message.content
    assert call.function.name == "multiply"
    arguments = json.loads(call.function.arguments)
    assert arguments["sign"] in "+-"
    assert isinstance(arguments["small"], bool)


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_no_call_is_made_where_none_is_wanted(client: openai.OpenAI, tools: Any) -> None:
    choice = {"tool_choice": "none", "tools": tools} if tools else {}
    for seed in range(8):
        answer = client.chat.completions.create(
            model="tiny",
            messages=ASKED,
            seed=seed,
            temperature=2,
            max_completion_tokens=120,
            reasoning_effort="none",
            **choice,
        )
        assert answer.choices[0].message.tool_calls is None


def test_the_tools_are_in_the_prompt(client: openai.OpenAI) -> None:
    bare = client.chat.completions.create(model="tiny", messages=ASKED, max_completion_tokens=1)
    told = client.chat.completions.create(model="tiny", messages=ASKED, max_completion_tokens=1, tools=TOOLS)
    assert told.usage.prompt_tokens > bare.usage.prompt_tokens + len("multiply")


class Weather(BaseModel):
    """The weather somewhere."""

    unit: Literal["c", "f"]
    tomorrow: bool


def test_pydantic_models_as_tools_and_as_the_answers_form(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "messages": ASKED, "seed": 1, "extra_body": {"thinking_token_budget": 4}}
    called = client.chat.completions.parse(
        **ask, tools=[openai.pydantic_function_tool(Weather)], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = called.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)
    formed = client.chat.completions.parse(**ask, response_format=Weather)
    assert isinstance(formed.choices[0].message.parsed, Weather)
    with client.chat.completions.stream(**ask, response_format=Weather) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == formed.choices[0].message.parsed


def test_a_call_that_was_cut_off_ends_with_length(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"tools": [MULTIPLY], "tool_choice": "required", "max_completion_tokens": 18, "seed": 1}
    extra = {"thinking_token_budget": 0}
    whole = client.chat.completions.create(model="tiny", messages=ASKED, **ask, extra_body=extra).choices[0]
    assert whole.finish_reason == "length"
    assert whole.message.tool_calls[0].function.name == "multiply"
    arguments = ""
    for chunk in client.chat.completions.create(model="tiny", messages=ASKED, **ask, stream=True, extra_body=extra):
        for call in chunk.choices[0].delta.tool_calls or ():
            arguments += call.function.arguments
    assert arguments == whole.message.tool_calls[0].function.arguments


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": TOOLS, "strategy": "consensus(samples=2)"}, "tools"),
        ({"functions": []}, "functions"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(client: openai.OpenAI, extra: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=ASKED, extra_body=extra)
    assert refused.value.body["param"] == param


def test_a_result_of_a_call_that_nobody_made_is_refused(client: openai.OpenAI) -> None:
    asked = [*ASKED, {"role": "tool", "tool_call_id": "call_x", "content": "42"}]
    with pytest.raises(openai.BadRequestError, match="no earlier message makes"):
        client.chat.completions.create(model="tiny", messages=asked, tools=TOOLS)


def test_the_client_gathers_the_log_probabilities_of_a_stream(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "messages": ASKED, "max_completion_tokens": 30, "seed": 5, "logprobs": True}
    extra = {"thinking_token_budget": 4, "regex": "[a-z]{8}"}
    whole = client.chat.completions.create(**ask, extra_body=extra).choices[0]
    with client.chat.completions.stream(**ask, extra_body=extra) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.message.content == whole.message.content
    assert final.logprobs.content == whole.logprobs.content
