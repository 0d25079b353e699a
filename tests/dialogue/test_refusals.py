"""What a format cannot express is refused by name, never dropped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ponder.dialogue import (
    Message,
    PonderFormat,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    ToolCall,
    ToolResult,
    from_dicts,
    load_format,
    ponder_template,
    to_dicts,
    train_tokenizer,
)
from ponder.dialogue.jinja import JinjaFormat
from ponder.tokenizer import Tokenizer, TokenizerError
from ponder.types import FormatError

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
OWN = train_tokenizer([], 320)
QWEN, LLAMA, R1 = (Tokenizer.load(FAMILIES / name) for name in ("qwen3", "llama3", "deepseek_r1"))
FORMATS = {
    "ponder": PonderFormat(OWN),
    "chatml": load_format(QWEN, "chatml"),
    "llama3": load_format(LLAMA, "llama3"),
    "deepseek_r1": load_format(R1, "deepseek_r1"),
}
CALL = Message(Role.ASSISTANT, (ToolCall("f", "{}", "c1"), ToolCall("g", "{}", "c2")))
Q = Message.user("q")
LATER = [[Q, Message.system("s")], [Message.system("s"), Message(Role.DEVELOPER, (Text("d"),))]]


def result(*parts: ToolResult) -> Message:
    return Message(Role.TOOL, parts)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("messages", LATER)
def test_instructions_come_first_or_where_the_format_has_a_place_for_them(name: str, messages: list[Message]) -> None:
    format = FORMATS[name]
    if format.instructs_anywhere and (format.has_developer or messages[1].role is Role.SYSTEM):
        assert format.render(messages).ids
        return
    why = "no developer role" if format.instructs_anywhere else "only come first"
    with pytest.raises(FormatError, match=rf"message 1 \({messages[1].role}\).*{why}"):
        format.render(messages)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([Message.user("q", "")], "the name is empty"),
        ([Message(Role.USER, (Reasoning("r"),))], r"message 0 \(user\), part 0: a Reasoning cannot stand here"),
        ([Message(Role.TOOL, (Text("t"),))], r"message 0 \(tool\), part 0: a Text cannot stand here"),
        ([Message(Role.USER, (ToolCall("f", "{}"),))], "a ToolCall cannot stand here"),
        ([Q, Message(Role.ASSISTANT, (ToolResult("f", "1"),))], "a ToolResult cannot stand here"),
        ([Q, Message(Role.ASSISTANT, (ToolCall("", "{}"),))], "tool's name is empty"),
        ([Q, CALL, result(ToolResult("g", "2", "c2"), ToolResult("f", "1", "c1"))], "'c2'.*next call.*'c1'"),
    ],
)
def test_every_format_refuses_a_conversation_without_sense(name: str, messages: Sequence[Message], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        FORMATS[name].render(messages)


@pytest.mark.parametrize("name", ["chatml", "llama3", "deepseek_r1"])
@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([Message.user("q", "bob")], r"message 0 \(user\): .* cannot express a speaker's name \('bob'\)"),
        ([Message(Role.DEVELOPER, (Text("d"),)), Q], "has no developer role"),
    ],
)
def test_families_have_no_names_and_no_developer(name: str, messages: Sequence[Message], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        FORMATS[name].render(messages)


@pytest.mark.parametrize("name", ["llama3", "deepseek_r1"])
def test_tools_are_refused_where_a_family_has_none(name: str) -> None:
    with pytest.raises(FormatError, match=rf"message 1 .*{name} cannot express tool calls"):
        FORMATS[name].render([Q, CALL])


def test_llama3_has_no_thinking_but_leaves_old_reasoning_out_as_any_format() -> None:
    llama = FORMATS["llama3"]
    old = [Q, Message.assistant("a", "thought"), Q]
    assert llama.render(old).dropped_reasoning[0].message_index == 1
    with pytest.raises(FormatError, match="cannot express reasoning"):
        llama.render(old, policy=ReasoningPolicy.ALL_TURNS)
    with pytest.raises(FormatError, match=r"no tokens for thinking: use Start\.DIRECT"):
        llama.render([Q], start=Start.THINK)


@pytest.mark.parametrize("name", ["chatml", "deepseek_r1"])
@pytest.mark.parametrize("parts", [(Text("a"), Reasoning("r")), (Reasoning("r"), Reasoning("s"))])
def test_families_write_one_reasoning_first(name: str, parts: tuple[Any, ...]) -> None:
    with pytest.raises(FormatError, match="one reasoning, then text, then tool calls"):
        FORMATS[name].render([Q, Message(Role.ASSISTANT, parts)])


FOLDED = Message(Role.ASSISTANT, (Reasoning("t"), Reasoning("s", state=True), Reasoning("u"), Text("a")))


@pytest.mark.parametrize("name", ["chatml", "llama3", "deepseek_r1"])
def test_families_have_no_states(name: str) -> None:
    with pytest.raises(FormatError, match=rf"message 1 \(assistant\), part 1: {name} cannot express a state"):
        FORMATS[name].render([Q, FOLDED])
    with pytest.raises(FormatError, match="cannot express a state"):
        FORMATS[name].contexts([Q, FOLDED])
    assert len(FORMATS[name].contexts([Q, Message.assistant("a")])) == 1


def test_a_foreign_template_has_no_states_but_leaves_old_ones_out() -> None:
    jinja = JinjaFormat(OWN, ponder_template())
    with pytest.raises(FormatError, match=r"message 1 .*, part 1: a foreign template cannot express a state"):
        jinja.render([Q, FOLDED])
    assert jinja.render([Q, FOLDED, Q]).ids == FORMATS["ponder"].render([Q, FOLDED, Q]).ids


def test_our_own_template_refuses_folded_thinking_wherever_it_is_run() -> None:
    jinja2 = pytest.importorskip("jinja2")

    def raise_exception(text: str) -> None:
        raise jinja2.TemplateError(text)

    template = jinja2.Environment().from_string(ponder_template())
    with pytest.raises(jinja2.TemplateError, match="cannot express folded thinking"):
        template.render(messages=to_dicts([Q, FOLDED]), raise_exception=raise_exception)


@pytest.mark.parametrize(
    "parts",
    [
        (Text("a"), Reasoning("s", state=True)),
        (Reasoning("t"), Reasoning("s", state=True), Text("a"), Reasoning("u")),
    ],
)
def test_dictionaries_have_no_place_for_folded_thinking_behind_text(parts: tuple[Any, ...]) -> None:
    with pytest.raises(FormatError, match=r"message 1 .* not one block before everything else"):
        to_dicts([Q, Message(Role.ASSISTANT, parts)])


def test_chatml_results_stand_in_the_order_of_their_calls() -> None:
    with pytest.raises(FormatError, match=r"answers 'f' \(its name is 'g'\)"):
        FORMATS["chatml"].render([Q, CALL, result(ToolResult("g", "2"))])
    with pytest.raises(FormatError, match="answers no call"):
        FORMATS["chatml"].render([Q, result(ToolResult("g", "2"))])


def test_chatml_arguments_are_json() -> None:
    with pytest.raises(FormatError, match="arguments in JSON"):
        FORMATS["chatml"].render([Q, Message(Role.ASSISTANT, (ToolCall("f", "{oops"),))])


@pytest.mark.parametrize("name", FORMATS)
def test_a_training_example_ends_with_the_assistant_and_takes_no_prompt(name: str) -> None:
    with pytest.raises(FormatError, match="must end with an assistant message"):
        FORMATS[name].render([Q], train=True)
    with pytest.raises(FormatError, match="takes no generation prompt"):
        FORMATS[name].render([Q, Message.assistant("a")], train=True, start=Start.DIRECT)


def test_a_format_whose_tokens_are_missing_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"no control token '<\|im_start\|>'"):
        load_format(OWN, "chatml")
    with pytest.raises(TokenizerError, match="no control token"):
        PonderFormat(QWEN)
    with pytest.raises(FormatError, match="no dialogue format is named 'chatgpt'; known: ponder, chatml"):
        load_format(OWN, "chatgpt")
    with pytest.raises(FormatError, match="carries no chat template"):
        load_format(Tokenizer.train([], 256, ()))


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([5], "must be an object"),
        ([{"role": "robot", "content": ""}], "unknown role 'robot'"),
        ([{"content": "x"}], "unknown role None"),
        ([{"role": "user", "content": "x", "mood": 1}], "unknown key 'mood'"),
        ([{"role": "user", "content": 5}], "'content' must be a string"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "'content' must be a string or a list of text parts"),
        ([{"role": "user", "content": "x", "name": 3}], "'name' must be a string"),
        ([{"role": "tool", "content": "x"}], "needs a 'name'"),
        ([{"role": "assistant", "reasoning_content": 5}], "'reasoning_content' must be a string, or a list"),
        ([{"role": "assistant", "reasoning": ["t", {"fold": "s"}]}], "'reasoning', part 1: must be a string"),
        ([{"role": "assistant", "reasoning_content": [{"state": None}]}], "part 0: must be a string"),
        ([{"role": "assistant", "reasoning_content": ["t", "u"]}], "two thoughts follow each other"),
        ([{"role": "assistant", "tool_calls": 5}], "'tool_calls' must be a list"),
        ([{"role": "assistant", "tool_calls": [5]}], "needs 'function'"),
        ([{"role": "assistant", "tool_calls": [{}]}], "needs 'function'"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": 1, "arguments": ""}}]}], "must be strings"),
    ],
)
def test_dictionaries_that_are_no_messages_are_refused(entries: list[Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        from_dicts(entries)


def test_dictionaries_may_be_written_as_openai_does() -> None:
    messages = from_dicts(
        [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "assistant",
                "content": None,
                "reasoning": "r",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ]
    )
    assert messages == (
        Message.user("ab"),
        Message(Role.ASSISTANT, (Reasoning("r"), ToolCall("f", '{"x": 1}', "c1"))),
        Message(Role.TOOL, (ToolResult("f", "2", "c1"),)),
    )
