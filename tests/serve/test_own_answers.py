"""Whatever the server wrote is accepted back, in every shape in which the official clients hand it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import Live, serving

from ponder.dialogue import Message, Role, ToolCall
from ponder.serve import Served
from ponder.testing.scripted import Say, ScriptedSampler

pytestmark = pytest.mark.property

USER: dict[str, Any] = {"role": "user", "content": "Go on."}
EMPTY = {"type": "object", "properties": {}}
TOOLS: list[Any] = [{"type": "function", "function": {"name": name, "parameters": EMPTY}} for name in "fg"]
FLAT: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]
BLOCKS: list[Any] = [{"name": name, "input_schema": EMPTY} for name in "fg"]
TEXTS = st.one_of(st.just(""), st.text(max_size=12), st.sampled_from(["a b c", " x\n", "<|end|>", "{}"]))
CALLS = st.lists(
    st.builds(ToolCall, st.sampled_from("fg"), st.sampled_from(["{}", '{"x": 1}', '{"x": "é\\n"}', '{"x": [1, {}]}'])),
    max_size=3,
)
SAYS = st.builds(
    lambda text, thought, calls, refuses: Say(text, thought, tuple(calls), refuses=refuses and bool(text.strip())),
    TEXTS,
    TEXTS,
    CALLS,
    st.booleans(),
)
SHAPES = st.sampled_from([{}, {"exclude_none": True}, {"exclude_unset": True}, {"mode": "json"}])


class Scripted(ScriptedSampler):
    """Says `next`, and again when it is asked again."""

    def __init__(self) -> None:
        super().__init__(lambda conversation, index: self.next)
        self.next = Say("")


@pytest.fixture(scope="module")
def said() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
def live(said: Scripted) -> Iterator[Live]:
    with serving([Served(name="said", sampler=said)]) as it:
        yield it


def chat(live: Live, stream: bool, shape: dict[str, Any], limit: int | None, turn: int) -> list[Any]:
    """The message as the client dumps it. In a stream every other time its deltas are put together by hand."""
    shown = {"reasoning_format": "reasoning"}
    ask: dict[str, Any] = {"model": "said", "messages": [USER], "tools": TOOLS, "extra_body": shown}
    ask |= {} if limit is None else {"max_completion_tokens": limit}
    with live.client() as client:
        if not stream:
            return [client.chat.completions.create(**ask).choices[0].message.model_dump(**shape)]
        if turn % 2:
            chunks = client.chat.completions.create(**ask, stream=True)
            return [_merged([chunk.choices[0].delta.model_dump(**shape) for chunk in chunks])]
        with client.chat.completions.stream(**ask) as events:
            try:
                return [events.get_final_completion().choices[0].message.model_dump(**shape)]
            except openai.LengthFinishReasonError as cut:
                return [cut.completion.choices[0].message.model_dump(**shape)]


def _merged(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        for call in delta.pop("tool_calls", None) or ():
            made = calls.setdefault(call["index"], call)
            if made is not call:
                made["function"]["arguments"] += call["function"]["arguments"]
        for name, value in delta.items():
            joins = isinstance(value, str) and name != "role" and message.get(name)
            message[name] = message[name] + value if joins else message.get(name) or value
    return message | {"tool_calls": list(calls.values()) or None}


def items(live: Live, stream: bool, shape: dict[str, Any], limit: int | None, turn: int) -> list[Any]:
    """The output items as the client dumps them, stored or not, with thoughts in one of three ways; or their names."""
    include = [[], ["reasoning.content"], ["reasoning.encrypted_content"]][turn % 3]
    ask: dict[str, Any] = {"model": "said", "input": [USER], "tools": FLAT, "include": include, "store": turn % 2 == 0}
    ask |= {} if limit is None else {"max_output_tokens": limit}
    with live.client() as client:
        if stream:
            with client.responses.stream(**ask) as events:
                done = [event.item for event in events if event.type == "response.output_item.done"]
                whole = turn % 4 < 2 and limit is None  # this client has no final response of a stream that was cut
                output = events.get_final_response().output if whole else done
        else:
            output = client.responses.create(**ask).output
    if ask["store"] and turn % 5 == 0 and not any(item.type == "function_call" for item in output):
        return [{"type": "item_reference", "id": item.id} for item in output]
    return [item.model_dump(**shape) for item in output]


def blocks(live: Live, stream: bool, shape: dict[str, Any], limit: int | None, turn: int) -> list[Any]:
    """The message of the messages API, its blocks as the client dumps them, or as its objects."""
    ask: dict[str, Any] = {"model": "said", "messages": [USER], "tools": BLOCKS, "max_tokens": limit or 1000}
    ask |= {"thinking": {"type": "enabled", "budget_tokens": 900}} if turn % 2 else {}
    with anthropic.Anthropic(base_url=live.root, api_key="none", max_retries=0) as client:
        if stream:
            with client.messages.stream(**ask) as events:
                message = events.get_final_message()
        else:
            message = client.messages.create(**ask)
    content = message.content if turn % 3 else [block.model_dump(**shape) for block in message.content]
    return [{"role": "assistant", "content": content}]


def send_back(live: Live, read: Any, history: list[Any], calls: list[str]) -> None:
    """The answer, results of its calls in reverse order, and a question."""
    with live.client() as client:
        if read is chat:
            results = [{"role": "tool", "tool_call_id": id, "content": f"r {id}"} for id in reversed(calls)]
            client.chat.completions.create(
                model="said", messages=[USER, *history, *results, USER], tools=TOOLS, max_tokens=4
            )
        elif read is items:
            results = [{"type": "function_call_output", "call_id": id, "output": f"r {id}"} for id in reversed(calls)]
            client.responses.create(
                model="said", input=[USER, *history, *results, USER], tools=FLAT, max_output_tokens=4
            )
        else:
            results = [{"type": "tool_result", "tool_use_id": id, "content": f"r {id}"} for id in reversed(calls)]
            answered: Any = [
                USER,
                *history,
                {"role": "user", "content": [*results, {"type": "text", "text": "Go on."}]},
            ]
            anthropic.Anthropic(base_url=live.root, api_key="none", max_retries=0).messages.create(
                model="said", messages=answered, tools=BLOCKS, max_tokens=4
            )


def call_ids(read: Any, history: list[Any]) -> list[str]:
    if read is chat:
        return [call["id"] for call in history[0].get("tool_calls") or ()]
    if read is items:
        return [item["call_id"] for item in history if item["type"] == "function_call"]
    content = history[0]["content"]
    dumped = [block if isinstance(block, dict) else block.model_dump() for block in content]
    return [block["id"] for block in dumped if block["type"] == "tool_use"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("read", [chat, items, blocks])
def test_what_the_server_wrote_comes_back_and_is_what_it_wrote(
    live: Live, said: Scripted, read: Any, stream: bool
) -> None:
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(say=SAYS, shape=SHAPES, limit=st.sampled_from([None, None, 3]), turn=st.integers(0, 59))
    def holds(say: Say, shape: dict[str, Any], limit: int | None, turn: int) -> None:
        said.next = say
        history = read(live, stream, shape, limit, turn)
        send_back(live, read, history, call_ids(read, history))
        if limit is None:
            _assert_said(said.requests[-1].prompt, say, read)  # type: ignore[arg-type]

    holds()


def _assert_said(prompt: tuple[Message, ...], say: Say, read: Any) -> None:
    """The model is given what was said."""
    first, *others = prompt
    assert first.text == "Go on."
    if not (say.text or say.calls):
        return
    answer = others[0]
    assert answer.role is Role.ASSISTANT
    assert answer.text == say.text
    assert answer.refusal == (say.text if say.refuses and read is not blocks else "")
    made = [part for part in answer.parts if isinstance(part, ToolCall)]
    assert [(call.name, json.loads(call.arguments)) for call in made] == [
        (call.name, json.loads(call.arguments)) for call in say.calls
    ]
    results = [part for message in others[1:-1] for part in message.parts]
    assert [getattr(part, "content", None) for part in results] == [f"r {call.id}" for call in made]
