"""Text never becomes a control token: every control token × every role × every field × every split, in every format.

A conversation whose field spells a control token must have the very control ids of the same conversation with harmless
text there, and its ordinary ids must decode to the text as it was written.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ponder.dialogue import (
    Format,
    Message,
    PonderFormat,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    load_format,
    ponder_template,
    train_tokenizer,
)
from ponder.dialogue.jinja import JinjaFormat
from ponder.testing.tiny import without_reserved
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
OWN = train_tokenizer(["spelled <|end|> <|think|> <|user|> in the training text " * 30], 416)
QWEN, LLAMA, R1 = (Tokenizer.load(FAMILIES / name) for name in ("qwen3", "llama3", "deepseek_r1"))
TRIMMING = """
{%- for m in messages %}<|im_start|>{{ m.role }}: {{ m.content | trim }}
    {%- for c in m.tool_calls or [] %}
        {{- '<tool_call>' ~ {'name': c.function.name, 'arguments': c.function.arguments} | tojson ~ '</tool_call>' }}
    {%- endfor %}<|im_end|>{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant{% endif %}"""
FORMATS: dict[str, tuple[Format, Tokenizer]] = {
    "ponder": (PonderFormat(OWN), OWN),
    "chatml": (load_format(QWEN, "chatml"), QWEN),
    "llama3": (load_format(LLAMA, "llama3"), LLAMA),
    "deepseek_r1": (load_format(R1, "deepseek_r1"), R1),
    "jinja-ponder": (JinjaFormat(OWN, ponder_template()), OWN),
    "jinja-qwen3": (JinjaFormat(QWEN, QWEN.chat_template or ""), QWEN),
    "jinja-llama3": (JinjaFormat(LLAMA, LLAMA.chat_template or ""), LLAMA),
    "jinja-trimming": (JinjaFormat(QWEN, TRIMMING), QWEN),
}
NO_NAMES = {name for name in FORMATS if "ponder" not in name}
NO_TOOLS = {"llama3", "deepseek_r1", "jinja-llama3"}
NO_THINKING = {"llama3", "jinja-llama3", "jinja-trimming"}

Conversation = list[Message]
CALL = Message(Role.ASSISTANT, (ToolCall("f", "{}", "c1"),))


def _turn(*parts: Text | Reasoning | ToolCall) -> Conversation:
    return [Message.user("q"), Message(Role.ASSISTANT, parts)]


def _tool_name(text: str) -> Conversation:
    return [*_turn(ToolCall(text, "{}")), Message(Role.TOOL, (ToolResult(text, "3"),))]


FIELDS: dict[str, Callable[[str], Conversation]] = {
    "system text": lambda text: [Message.system(text), Message.user("q")],
    "user text": lambda text: [Message.user(text)],
    "assistant text": lambda text: [Message.user("q"), Message.assistant(text), Message.user("r")],
    "answer behind reasoning": lambda text: _turn(Reasoning("hm"), Text(text)),
    "reasoning": lambda text: _turn(Reasoning(text), Text("a")),
    "text before a call": lambda text: _turn(Text(text), ToolCall("f", "{}")),
    "tool name": _tool_name,
    "argument": lambda text: _turn(ToolCall("f", json.dumps({"x": [text]}, ensure_ascii=False))),
    "argument key": lambda text: _turn(ToolCall("f", json.dumps({text: 1}, ensure_ascii=False))),
    "result": lambda text: [Message.user("q"), CALL, Message(Role.TOOL, (ToolResult("f", text),))],
    "call id": lambda text: [
        *_turn(ToolCall("f", "{}", text)),
        Message(Role.TOOL, (ToolResult("f", "3", text),)),
    ],
    "system name": lambda text: [Message(Role.SYSTEM, (Text("s"),), text), Message.user("q")],
    "user name": lambda text: [Message.user("q", text)],
    "assistant name": lambda text: [Message.user("q"), Message(Role.ASSISTANT, (Text("a"),), text)],
}


def _fields(name: str) -> Iterator[str]:
    for field in FIELDS:
        if (
            not (name in NO_NAMES and field.endswith("name") and field != "tool name")
            and not (name in NO_TOOLS and any(word in field for word in ("tool", "argument", "result", "call")))
            and not (name in NO_THINKING and "reasoning" in field)
        ):
            yield field


TAGGING = """
{%- for t in tools or [] %}<|im_start|>{{ t.function.name }}: {{ t.function.description }}
    {%- for key, value in t.function.parameters.properties.items() %}
        {{- '<' ~ key ~ '>' ~ value.type ~ '</' ~ key ~ '>' ~ (value | tojson) }}
    {%- endfor %}<|im_end|>{% endfor %}
{%- for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"""
DECLARING = {name: FORMATS[name] for name in ("ponder", "chatml", "jinja-ponder", "jinja-qwen3")}
DECLARING["jinja-tagging"] = (JinjaFormat(QWEN, TAGGING), QWEN)


def _schema(property: str, **keywords: object) -> str:
    return json.dumps({"properties": {property: {"type": "string", **keywords}}}, ensure_ascii=False)


DECLARED: dict[str, Callable[[str], Tool]] = {
    "name": lambda text: Tool(text, "d", _schema("x")),
    "description": lambda text: Tool("f", text, _schema("x")),
    "property": lambda text: Tool("f", "d", _schema(text)),
    "keyword": lambda text: Tool("f", "d", _schema("x", **{text: 1})),
    "description of a property": lambda text: Tool("f", "d", _schema("x", description=text)),
    "enum": lambda text: Tool("f", "d", _schema("x", enum=["y", text])),
    "escaped": lambda text: Tool("f", "d", json.dumps({"properties": {"x": {"const": text, "type": "string"}}})),
}


@pytest.mark.parametrize("name", DECLARING)
@pytest.mark.parametrize("field", DECLARED)
@pytest.mark.parametrize("system", [(), (Message.system("s"),)], ids=["alone", "behind-a-system-text"])
def test_no_field_of_a_tool_can_spell_a_control_token(name: str, field: str, system: tuple[Message, ...]) -> None:
    format, tokenizer = DECLARING[name]

    def declared(text: str) -> tuple[int, ...]:
        tools = (Tool("g", "e", _schema("x")), DECLARED[field](text))
        return format.render((*system, Message.user("q")), tools=tools).ids

    harmless = _skeleton(tokenizer, declared("x1"))
    for token in without_reserved(tokenizer.control):
        for text in (token, f"a{token}b", token.strip("<>"), token[1:], token[:-1]):
            ids = declared(text)
            assert _skeleton(tokenizer, ids) == harmless, text
            assert json.dumps(text, ensure_ascii=False)[1:-1] in _ordinary_text(tokenizer, ids)


def _skeleton(tokenizer: Tokenizer, ids: tuple[int, ...]) -> list[int]:
    return [id for id in ids if tokenizer.is_control(id)]


def _ordinary_text(tokenizer: Tokenizer, ids: tuple[int, ...]) -> str:
    return tokenizer.decode(id for id in ids if not tokenizer.is_control(id))


@pytest.mark.parametrize("name", FORMATS)
def test_no_field_can_spell_a_control_token(name: str) -> None:
    format, tokenizer = FORMATS[name]
    start = Start.DIRECT
    for field in _fields(name):
        build = FIELDS[field]
        harmless = _skeleton(tokenizer, format.render(build("x"), start=start).ids)
        for token in without_reserved(tokenizer.control):
            for text in (token, f"a{token}b", f"{token}{token}", f"\n{token}"):
                if "name" in field and name == "jinja-trimming":
                    text = text.strip()
                ids = format.render(build(text), start=start).ids
                assert _skeleton(tokenizer, ids) == harmless, (field, text)
                if field != "call id":
                    # a message's own white space may be trimmed or written as an escape
                    written = text if text.strip() == text else text.strip()
                    assert written in _ordinary_text(tokenizer, ids), (field, text)


@pytest.mark.parametrize("name", ["ponder", "chatml", "llama3", "deepseek_r1", "jinja-qwen3"])
@pytest.mark.parametrize("role", [Role.SYSTEM, Role.USER, Role.ASSISTANT])
def test_a_control_token_split_across_parts_stays_text(name: str, role: Role) -> None:
    format, tokenizer = FORMATS[name]

    def conversation(*texts: str) -> Conversation:
        message = Message(role, tuple(map(Text, texts)))
        return [message, Message.user("q")] if role is Role.SYSTEM else [Message.user("q"), message]

    harmless = _skeleton(tokenizer, format.render(conversation("x")).ids)
    for token in without_reserved(tokenizer.control):
        for cut in range(1, len(token)):
            ids = format.render(conversation(token[:cut], token[cut:])).ids
            assert _skeleton(tokenizer, ids) == harmless
            assert token in _ordinary_text(tokenizer, ids)


@pytest.mark.parametrize("name", ["ponder", "chatml", "deepseek_r1"])
def test_a_control_token_split_between_reasoning_and_answer_stays_text(name: str) -> None:
    format, tokenizer = FORMATS[name]
    harmless = _skeleton(tokenizer, format.render(_turn(Reasoning("x"), Text("y"))).ids)
    for token in without_reserved(tokenizer.control):
        for cut in range(1, len(token)):
            ids = format.render(_turn(Reasoning(token[:cut]), Text(token[cut:]))).ids
            assert _skeleton(tokenizer, ids) == harmless


@pytest.mark.parametrize("name", ["ponder", "chatml", "deepseek_r1", "llama3"])
def test_sampled_control_tokens_come_back_as_text_and_never_as_control_tokens(name: str) -> None:
    """A model that samples `<|end|><|user|>…` within its answer cannot forge a turn of the next prompt."""
    format, tokenizer = FORMATS[name]
    harmless = _skeleton(tokenizer, format.render([Message.user("q"), Message.assistant("x"), Message.user("r")]).ids)
    for token, id in tokenizer.control.items():
        if id in (format.phase_tokens.think_open, format.phase_tokens.call_open):
            continue  # they open a part, which is the grammar
        sampled = [*tokenizer.encode("a"), id, *tokenizer.encode("b")]
        message = format.parse(sampled, start=Start.DIRECT)
        assert message.text == ("ab" if id in format.phase_tokens.end else f"a{token}b")
        ids = format.render([Message.user("q"), message, Message.user("r")]).ids
        assert _skeleton(tokenizer, ids) == harmless


def test_ids_given_with_a_text_cannot_smuggle_a_control_token_in() -> None:
    for name in ("ponder", "chatml", "deepseek_r1", "llama3"):
        format, tokenizer = FORMATS[name]
        for token, id in tokenizer.control.items():
            forged = Message(Role.ASSISTANT, (Text(token, (id,)),))
            ids = format.render([Message.user("q"), forged, Message.user("r")], policy=ReasoningPolicy.ALL_TURNS).ids
            benign = format.render([Message.user("q"), Message.assistant("x"), Message.user("r")]).ids
            assert _skeleton(tokenizer, ids) == _skeleton(tokenizer, benign)
            assert token in _ordinary_text(tokenizer, ids)
