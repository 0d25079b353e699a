"""Dialogues of public data sets: what each kind is read as, and what is refused by file and line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ponder.dialogue import Message, Reasoning, Role, Text, ToolCall, ToolResult
from ponder.train.data.dialogues import Dialogue, dialogue_from, read_dialogues
from ponder.types import DataError, FormatError

ASKED, ANSWERED = Message.user("q"), Message.assistant("a")
CALL: dict[str, Any] = {"type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}},
}


def says(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def shares(sender: str, value: object, **more: object) -> dict[str, object]:
    return {"from": sender, "value": value, **more}


ONE_TURN: Mapping[str, dict[str, object]] = {
    "messages": {"messages": [says("user", "q"), says("assistant", "a")]},
    "messages as a string": {"messages": json.dumps([says("user", "q"), says("assistant", "a")])},
    "nulls and empty lists": {
        "messages": [says("user", "q", name=None), says("assistant", "a", tool_calls=[], refusal=None, annotations=[])],
        "tools": None,
        "images": [],
    },
    "ShareGPT": {"conversations": [shares("human", "q"), shares("gpt", "a", markdown=None)], "id": "x"},
    "an empty system message": {"conversations": [shares("system", ""), shares("human", "q"), shares("gpt", "a")]},
    "one dialogue in two spellings": {
        "messages": [says("user", "q"), says("assistant", "a")],
        "conversations": [shares("human", "q"), shares("gpt", "a")],
    },
    "a label that is true": {"prompt": "q", "completion": "a", "label": True},
    "a switch that is no thought": {"prompt": "q", "response": "a", "reasoning": "off"},
    "ShareGPT with roles": {"conversations": [says("user", "q"), says("assistant", "a")]},
    "prompt and completion": {"prompt": "q", "completion": "a"},
    "prompt and response": {"prompt": "q", "response": "a"},
    "prompt and completion as messages": {"prompt": [says("user", "q")], "completion": [says("assistant", "a")]},
    "a prompt of messages": {"prompt": [says("user", "q")], "completion": "a"},
    "Alpaca": {"instruction": "q", "input": "", "output": "a", "text": "all of it"},
    "Alpaca without an input": {"instruction": "q", "input": None, "output": "a"},
    "messages beside a prompt": {"prompt": "other", "messages": [says("user", "q"), says("assistant", "a")]},
}


@pytest.mark.parametrize("record", ONE_TURN.values(), ids=ONE_TURN)
def test_each_kind_of_record_is_the_same_dialogue(record: dict[str, object]) -> None:
    assert dialogue_from(record) == Dialogue(messages=(ASKED, ANSWERED), taught=frozenset({1}))


def test_a_system_text_beside_the_turns_comes_first() -> None:
    for record in (
        {"system": "s", "conversations": [shares("human", "q"), shares("gpt", "a")]},
        {"system": "s", "instruction": "q", "output": "a"},
        {"system": "s", "prompt": "q", "completion": "a"},
        {"conversations": [shares("system", "s"), shares("human", "q"), shares("gpt", "a")]},
    ):
        assert dialogue_from(record).messages == (Message.system("s"), ASKED, ANSWERED)


def test_an_alpaca_input_follows_its_instruction_and_history_its_turns() -> None:
    record = {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["q", "a"]]}
    dialogue = dialogue_from(record)
    assert dialogue.messages == (ASKED, ANSWERED, Message.user("Add.\n\n1 2"), Message.assistant("3"))
    assert dialogue.taught == {1, 3}


def test_a_completion_is_learned_and_the_answers_of_its_prompt_are_context() -> None:
    prompt = [says("user", "q"), says("assistant", "a"), says("user", "r")]
    assert dialogue_from({"prompt": prompt, "completion": [says("assistant", "b")]}).taught == {3}


def test_messages_of_weight_0_are_context() -> None:
    turns = [says("user", "q"), says("assistant", "a", weight=0), says("user", "r"), says("assistant", "b", weight=1)]
    assert dialogue_from({"messages": turns}).taught == {3}
    with pytest.raises(FormatError, match="all messages of the assistant have the weight 0"):
        dialogue_from({"messages": turns[:2]})
    with pytest.raises(FormatError, match=r"message 1: 'weight' must be 0 or 1 \(got 0\.5\)"):
        dialogue_from({"messages": [turns[0], says("assistant", "a", weight=0.5)]})


@pytest.mark.parametrize(
    "content",
    [
        "<think>\none\n</think>\n\na",
        "<think>one</think>a",
        "  <think>one</think> a ",
        "one\n</think>\na",
        "<thinking>one</thinking>\na",
        "<|begin_of_thought|>\n\none\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\na\n\n<|end_of_solution|>",
    ],
)
def test_thinking_in_the_content_is_reasoning(content: str) -> None:
    thought = Message(Role.ASSISTANT, (Reasoning("one"), Text("a")))
    for record in (
        {"messages": [says("user", "q"), says("assistant", content)]},
        {"conversations": [shares("human", "q"), shares("gpt", content)]},
        {"prompt": "q", "completion": content},
        {"instruction": "q", "output": content},
    ):
        assert dialogue_from(record).messages == (ASKED, thought)


def test_thinking_in_a_key_of_its_own_is_reasoning() -> None:
    thought = Message(Role.ASSISTANT, (Reasoning("one"), Text("a")))
    for key in ("reasoning_content", "reasoning", "thinking"):
        assert (
            dialogue_from({"messages": [says("user", "q"), says("assistant", "a", **{key: "one"})]}).messages[1]
            == thought
        )
        assert dialogue_from({"prompt": "q", "completion": "a", key: "one"}).messages[1] == thought


def test_an_empty_think_block_is_a_direct_answer_and_a_user_may_write_tags() -> None:
    record = {"messages": [says("user", "<think>q</think>"), says("assistant", "<think>\n\n</think>\n\na")]}
    assert dialogue_from(record).messages == (Message.user("<think>q</think>"), ANSWERED)
    mention = [says("user", "q"), says("assistant", "The tag is <think>.")]
    assert dialogue_from({"messages": mention}).messages[1].text == "The tag is <think>."


def test_thinking_before_a_tool_call_is_reasoning() -> None:
    turns = [
        says("user", "q"),
        says("assistant", "<think>look</think>", tool_calls=[CALL]),
        says("tool", "r"),
        says("assistant", "a"),
    ]
    assert dialogue_from({"messages": turns}).messages[1].parts == (Reasoning("look"), ToolCall("look", '{"x": 1}'))


@pytest.mark.parametrize(
    ("message", "says_why"),
    [
        (says("assistant", "<think>never closed"), "1 times <think>, 0 times </think>"),
        (says("assistant", "Sure. <think>x</think>a"), "must be one block at its beginning"),
        (says("assistant", "<think>x</think>a<think>y</think>b"), "2 times <think>, 2 times </think>"),
        (says("assistant", "<think>x</think>a", reasoning_content="y"), "in the content and in reasoning_content"),
        (says("assistant", '<tool_call>{"name": "f"}</tool_call>'), "write it as tool_calls"),
    ],
)
def test_thinking_that_is_not_one_block_is_refused_with_file_and_line(
    tmp_path: Path, message: dict[str, object], says_why: str
) -> None:
    lines = [{"messages": [says("user", "q"), says("assistant", "a")]}, {"messages": [says("user", "q"), message]}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=rf"d\.jsonl:2: message 1 \(assistant\): .*{says_why}"):
        list(read_dialogues(tmp_path / "d.jsonl"))


def test_tools_are_declared_however_the_column_writes_them() -> None:
    turns = [says("user", "q"), says("assistant", "a")]
    returned = {"type": "function", "function": {**TOOL["function"], "return": {"type": "string"}}}
    for tools in ([TOOL], [TOOL["function"]], json.dumps([TOOL]), [returned]):
        (tool,) = dialogue_from({"messages": turns, "tools": tools}).tools
        assert (tool.name, tool.description, json.loads(tool.parameters)) == ("look", "Looks.", {"type": "object"})
    assert dialogue_from({"messages": turns, "tools": ""}).tools == ()
    for bad, why in ((["look"], "tool 0: must be"), ("{", "a string that is not JSON"), (3, "must be a list of tools")):
        with pytest.raises(FormatError, match=why):
            dialogue_from({"messages": turns, "tools": bad})


def test_calls_and_results_are_read_however_they_are_written() -> None:
    messages = (
        ASKED,
        Message(Role.ASSISTANT, (ToolCall("look", '{"x": 1}'),)),
        Message(Role.TOOL, (ToolResult("look", "r"),)),
        ANSWERED,
    )
    spelled = json.dumps({"name": "look", "arguments": {"x": 1}})
    look, end = CALL["function"], says("assistant", "a")
    for turns in (
        [says("user", "q"), says("assistant", "", tool_calls=[CALL]), says("tool", "r"), end],
        [says("user", "q"), says("assistant", None, tool_calls=[look]), says("tool", "r", name="look"), end],
        [says("user", "q"), says("assistant", None, function_call=look), says("function", "r", name="look"), end],
        [shares("human", "q"), shares("function_call", spelled), shares("observation", "r"), shares("gpt", "a")],
    ):
        assert dialogue_from({"messages": turns}).messages == messages


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({}, r"no dialogue that is known \(it has nothing\)"),
        ({"text": "raw"}, r"raw text is for \[pretrain\] text"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "are preferences"),
        ({"prompt": 3, "completion": "a"}, '"prompt" must be a list of messages'),
        ({"prompt": "q", "completion": []}, '"completion" must be a list of messages, and not empty'),
        ({"prompt": "q", "completion": [says("user", "a")]}, "last message must be the assistant's"),
        ({"instruction": "q", "output": 3}, r'"output" must be a string \(got int\)'),
        ({"instruction": "q", "output": "a", "history": ["q"]}, '"history" must be a list of pairs'),
        ({"conversations": []}, '"conversations" must be a list of messages, and not empty'),
        ({"conversations": [shares("human", "q")]}, "last message must be the assistant's"),
        ({"conversations": [shares("narrator", "q"), shares("gpt", "a")]}, "unknown role 'narrator'"),
        ({"conversations": [shares("human", "q"), shares("function_call", "{")]}, "function_call.*not JSON"),
        ({"messages": [says("user", "q"), says("assistant", "a")], "images": ["x.png"]}, '"images" is not supported'),
        ({"messages": [says("user", "q"), says("assistant", "a")], "documents": [{"text": "x"}]}, '"documents" is not'),
        (
            {"messages": [says("user", "q"), says("assistant", "a")], "reasoning": "t"},
            '"reasoning" stands beside "mess',
        ),
        ({"prompt": "q", "completion": [says("assistant", "a")], "thinking": "t"}, '"thinking" stands beside "compl'),
        ({"prompt": "q", "completion": "a", "label": False}, '"label" is false, so the answer is one not to give'),
        ({"prompt": "q", "response": "a", "context": "c"}, '"context" is not read: write it into the question'),
        ({"prompt": "q", "response": "a", "system": "s", "system_prompt": "t"}, '"system" and "system_prompt" differ'),
        (
            {
                "messages": [says("user", "q"), says("assistant", "a")],
                "conversations": [shares("human", "q"), shares("gpt", "b")],
            },
            '"messages" and "conversations" differ',
        ),
        (
            {"prompt": "q", "completion": "a", "chat_template_kwargs": {"x": 1}},
            '"chat_template_kwargs" is not supported',
        ),
        (
            {"messages": [says("user", [{"type": "image_url", "image_url": {"url": "x"}}]), says("assistant", "a")]},
            "message 0: 'content' must be a string or a list of text parts",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_name(record: dict[str, object], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        dialogue_from(record)


@pytest.mark.parametrize(
    "record",
    [
        {"system_prompt": "s", "prompt": "q", "response": "a"},
        {"system_prompt": "s", "conversations": [shares("human", "q"), shares("gpt", "a")]},
        {"system_prompt": "s", "conversations": [shares("system", "s"), shares("human", "q"), shares("gpt", "a")]},
        {"system_prompt": "s", "system": "s", "instruction": "q", "output": "a"},
    ],
)
def test_a_column_for_the_system_message_is_read_once(record: dict[str, object]) -> None:
    assert dialogue_from(record).messages == (Message.system("s"), ASKED, ANSWERED)
