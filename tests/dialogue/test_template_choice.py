"""A folder speaks its template exactly: by the native format that writes the same, else by the template itself."""

from pathlib import Path

import pytest

from ponder.dialogue import (
    Message,
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
from ponder.sandbox.templates import TemplateError
from ponder.tokenizer import Tokenizer
from ponder.types import FormatError

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
QWEN, LLAMA, R1 = (Tokenizer.load(FAMILIES / name) for name in ("qwen3", "llama3", "deepseek_r1"))
OWN = train_tokenizer([], 320)
NATIVE = {"chatml": QWEN, "llama3": LLAMA, "deepseek_r1": R1, "ponder": OWN}
# Each is one change of a known template: what it says, and what it says instead.
NEAR: dict[str, tuple[str, str, str]] = {
    "a default instruction": ("chatml", "{%- for message", "{{- '<|im_start|>system\nS<|im_end|>\n' }}{%- for message"),
    "text is trimmed": ("chatml", "message.content ~ '<|im_end|>", "message.content.strip() ~ '<|im_end|>"),
    "no empty think block": ("chatml", "(loop.last or reasoning)", "reasoning"),
    "old thinking is kept": ("chatml", "loop.index0 > ns.query and", "true and"),
    "answers are not trimmed": ("chatml", "message.content.lstrip('\\n')", "message.content"),
    "results stand alone": ("chatml", "if before != 'tool' else ''", ""),
    "arguments before names": ("chatml", '"name": "\' ~ call.function.name ~ \'", ', '"called": "x", '),
    "no direct prompt": ("chatml", "enable_thinking is false", "false"),
    "a switch in the text": ("chatml", "enable_thinking is false", "'/no_think' in messages[-1].content"),
    "a switch in the instruction": ("chatml", "enable_thinking is false", "'/quiet' in messages[0].content"),
    "text is not trimmed": ("llama3", ".strip()", ""),
    "a date": ("llama3", "{{- bos_token }}", "{{- bos_token ~ strftime_now('%d %b %Y') }}"),
    "no first token": ("llama3", "{{- bos_token }}", ""),
    "other line breaks": ("llama3", "_id|>\\n\\n' ~ message", "_id|>\\n' ~ message"),
    "a greeting is noticed": (
        "llama3",
        "{{- bos_token }}",
        "{{- bos_token ~ ('!' if 'hello' in messages[-1].content) }}",
    ),
    "a line break before the answer": ("deepseek_r1", "'<｜Assistant｜>' ~", "'<｜Assistant｜>\\n' ~"),
    "thinking is not opened": ("deepseek_r1", "<think>\\n", ""),
    "instructions where they stand": ("deepseek_r1", "if message.role == 'system'", "if false"),
    "names are left out": ("ponder", "<|name|>", ""),
    "an instruction of its own": ("ponder", "{%- set ns", "<|system|>S<|end|>{%- set ns"),
}


def with_change(name: str) -> tuple[Tokenizer, str]:
    family, old, new = NEAR[name]
    template = ponder_template() if family == "ponder" else NATIVE[family].chat_template or ""
    changed = template.replace(old, new)
    return NATIVE[family], changed


@pytest.mark.parametrize("family", NATIVE)
def test_a_known_template_is_spoken_natively(family: str) -> None:
    assert load_format(NATIVE[family]).name == family


def test_instructions_stand_where_the_template_lets_them() -> None:
    assert [load_format(NATIVE[family]).instructs_anywhere for family in NATIVE] == [True, True, False, True]
    first_only = (QWEN.chat_template or "").replace("not (tools and loop.first)", "loop.first and not tools")
    assert first_only != QWEN.chat_template
    strict = load_format(QWEN, chat_template=first_only)
    assert (strict.name, strict.instructs_anywhere) == ("chatml", False)


@pytest.mark.parametrize("name", NEAR)
def test_a_near_template_is_not_taken_for_a_known_one(name: str) -> None:
    tokenizer, template = with_change(name)
    assert template not in (tokenizer.chat_template, ponder_template())
    assert load_format(tokenizer, chat_template=template).name == "jinja"


def test_our_own_template_of_before_tools_is_still_ours() -> None:
    older = "{%- set tools = none -%}" + ponder_template()
    assert load_format(OWN, chat_template=older).name == "ponder"


def test_a_template_that_does_not_end_is_an_error_and_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.dialogue.jinja.RENDER_SECONDS", 0.25)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match="stopped"):
        load_format(LLAMA, chat_template=endless)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
DECLARING = "{% for t in tools %}{{ t | tojson }}\n{% endfor %}" + CHATML
LIST = [{"name": "rag", "template": "?"}, {"name": "tool_use", "template": DECLARING}]


def listed(*templates: dict[str, str]) -> Tokenizer:
    return Tokenizer.train([], 288, ["<|im_start|>", "<|im_end|>"], config={"chat_template": list(templates)})


def test_of_several_templates_the_default_is_used_and_another_where_tools_are_declared() -> None:
    tokenizer = listed({"name": "default", "template": CHATML}, *LIST)
    form = load_format(tokenizer)
    assert tokenizer.decode(form.render([Message.user("Hi")]).ids) == "<|im_start|>user\nHi<|im_end|>"
    declared = tokenizer.decode(form.render([Message.user("Hi")], tools=[Tool("f")]).ids)
    assert declared.startswith('{"type": "function", "function": {"name": "f"')
    assert declared.endswith("}\n<|im_start|>user\nHi<|im_end|>")


def test_templates_without_a_default_are_refused_by_name_and_one_can_be_chosen() -> None:
    with pytest.raises(FormatError, match=r"none is called 'default' \(it has rag, tool_use\)"):
        load_format(listed(*LIST))
    tokenizer = listed(*LIST)
    form = load_format(tokenizer, chat_template="tool_use")
    assert tokenizer.decode(form.render([Message.user("Hi")], tools=[Tool("f")]).ids).startswith('{"type"')


def test_a_list_in_a_folder_of_a_known_vocabulary_is_spoken_as_it_says(tmp_path: Path) -> None:
    """Hermes 3 has Llama 3's vocabulary and its own template."""
    LLAMA.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    plain = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}" + plain)
    (tmp_path / "chat_template.jinja").write_text(plain)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.decode(load_format(loaded).render([Message.user("Hi")]).ids) == "[user]Hi<|eot_id|>"


THINKING = "{%- set reasoning = message.reasoning_content if message.reasoning_content is string else '' %}"
SPLITTING = (
    "{%- set content = message.content %}{%- if message.reasoning_content is not string and '</think>' in content %}"
    "{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
)


def qwen3_as_published() -> str:
    """Qwen3's template, which reads thinking from an answer's text and a tool's result from a user's."""
    template = QWEN.chat_template or ""
    answer = template.index("{%- elif message.role == 'assistant' %}")
    rest = template[answer:].replace(THINKING, THINKING + SPLITTING)
    for old in ("message.content.lstrip", "message.content }}", "if message.content or"):
        rest = rest.replace(old, old.replace("message.content", "content"), 1)
    looks = "message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')"
    return (
        template[:answer].replace(
            "message.role == 'user' %}{% set", f"message.role == 'user' and not ({looks}) %}}{{% set"
        )
        + rest
    )


LOOKING = [
    [Message.user("a"), Message.assistant("<think>\nhm\n</think>\n\nb"), Message.user("c")],
    [Message.user("a"), Message.assistant("<think>\nhm\n</think>\n\nb")],
    [Message.user("a"), Message.assistant("b", "hm"), Message.user("<tool_response>\nr\n</tool_response>")],
    [Message.user("<think>x</think>y"), Message.assistant("x</think>y", "hm")],
    [
        Message.user("a"),
        Message(Role.ASSISTANT, (Text("hm</think>b"), ToolCall("f", "{}"))),
        Message(Role.TOOL, (ToolResult("f", "<think>r</think>"),)),
    ],
]


@pytest.mark.parametrize("number", range(len(LOOKING)))
def test_a_native_format_reads_thinking_from_text_where_its_template_does(number: int) -> None:
    template, messages = qwen3_as_published(), LOOKING[number]
    native = load_format(QWEN, chat_template=template)
    assert native.name == "chatml"
    theirs = JinjaFormat(QWEN, template)
    for start in (Start.NONE, Start.DIRECT):
        ours = QWEN.decode(native.render(messages, start=start).ids)
        assert ours == theirs.spell(theirs.written([messages], [start])[0, start] or ())
    named = QWEN.decode(load_format(QWEN, "chatml").render(LOOKING[0]).ids)
    assert named.count("</think>") == 1  # text, as it was said
