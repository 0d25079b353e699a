"""A foreign chat template: what it rewrites or loses is refused, what it trims is followed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.dialogue import (
    Message,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    ToolCall,
    ToolResult,
    load_format,
    to_dicts,
)
from ponder.dialogue.jinja import JinjaFormat
from ponder.sandbox.templates import TemplateError, TemplateFailure, render_template
from ponder.tokenizer import Tokenizer
from ponder.types import FormatError

QWEN = Tokenizer.load(Path(__file__).parents[1] / "golden" / "families" / "qwen3")
LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


def jinja(template: str) -> JinjaFormat:
    return JinjaFormat(QWEN, template)


@pytest.mark.parametrize(
    "transform", ["upper", "e", "length", "replace('\"', '')", "reverse", "truncate(9)", "tojson | tojson"]
)
def test_a_template_that_rewrites_text_is_refused(transform: str) -> None:
    with pytest.raises(FormatError, match="message 0: the chat template drops or rewrites its content"):
        jinja("{% for m in messages %}{{ m.content | " + transform + " }}{% endfor %}").render(
            [Message.user("some text")]
        )


@pytest.mark.parametrize("transform", ["trim", "trim | trim", "string"])
def test_a_template_that_trims_is_followed(transform: str) -> None:
    format = jinja("{% for m in messages %}[{{ m.content | " + transform + " }}]{% endfor %}")
    text = QWEN.decode(format.render([Message.user(" \n a b \t")]).ids)
    assert text == ("[ \n a b \t]" if transform == "string" else "[a b]")


def test_a_template_that_strips_lines_on_one_side_is_followed() -> None:
    format = jinja("{% for m in messages %}[{{ m.content.lstrip('\n') }}]{% endfor %}")
    assert QWEN.decode(format.render([Message.user("\n\n a\n")]).ids) == "[ a\n]"


def test_what_a_template_leaves_out_is_refused_by_name() -> None:
    format = jinja(LOOP)
    with pytest.raises(FormatError, match=r"message 0: .* its name"):
        format.render([Message.user("q", "bob")])
    with pytest.raises(FormatError, match=r"message 1: .* its tool call name"):
        format.render([Message.user("q"), Message(Role.ASSISTANT, (ToolCall("f", "{}"),))])


def test_reasoning_that_a_template_leaves_out_is_reported() -> None:
    rendered = jinja(LOOP).render([Message.user("q"), Message(Role.ASSISTANT, (Reasoning("hm"), Text("a")))])
    assert [(dropped.message_index, dropped.tokens > 0) for dropped in rendered.dropped_reasoning] == [(1, True)]


def test_a_refusal_of_the_template_itself_is_passed_on() -> None:
    with pytest.raises(TemplateError, match="refuses this conversation: roles must alternate") as caught:
        jinja("{{ raise_exception('roles must alternate') }}").render([Message.user("q")])
    assert caught.value.failure is TemplateFailure.REFUSED
    assert isinstance(caught.value, FormatError)


def test_arguments_are_given_as_an_object_or_as_text_whichever_the_template_wants() -> None:
    call = Message(Role.ASSISTANT, (ToolCall("f", '{"x": "<think>"}'),))
    for written in ("c.function.arguments | tojson", "'' + c.function.arguments"):
        template = (
            "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} "
        )
        format = jinja(template + "{{ " + written + " }}</tool_call>{% endfor %}{% endfor %}")
        ids = format.render([Message.user("q"), call]).ids
        assert QWEN.decode(ids) == 'q<tool_call>f {"x": "<think>"}</tool_call>'
        assert QWEN.control_id("<think>") not in ids


def test_the_prompt_ends_in_the_phase_that_was_asked_for() -> None:
    opening = jinja(LOOP + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    opened = jinja(LOOP + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}")
    for format in (opening, opened):
        thinking = format.render([Message.user("q")], start=Start.THINK)
        assert QWEN.decode(thinking.ids).endswith("assistant\n<think>\n")
        assert [id for id in thinking.ids if QWEN.is_control(id)][-1] == format.phase_tokens.think_open
    assert QWEN.decode(opening.render([Message.user("q")], start=Start.DIRECT).ids).endswith("assistant\n")
    assert QWEN.decode(opened.render([Message.user("q")], start=Start.DIRECT).ids).endswith("<think>\n\n</think>\n\n")


def test_a_foreign_template_cannot_be_trained() -> None:
    with pytest.raises(FormatError, match="use a native format"):
        jinja(LOOP).render([Message.user("q"), Message.assistant("a")], train=True)


def test_an_unknown_template_goes_to_the_fallback_even_with_a_familys_tokens() -> None:
    assert load_format(QWEN, chat_template=LOOP).name == "jinja"
    assert load_format(QWEN, "jinja").name == "jinja"
    assert load_format(QWEN).name == "chatml"


def test_results_are_named_by_their_order() -> None:
    messages = [
        *(Message.user("q"), Message(Role.ASSISTANT, (ToolCall("f", "{}"),))),
        Message(Role.TOOL, (ToolResult("g", "1"),)),
    ]
    with pytest.raises(FormatError, match="its name is 'g'"):
        load_format(QWEN, "jinja").render(messages)


# What a template may do with what is said; the rest of the conversation is written by LOOP's rule.
SWITCH = "{% set quiet = '/no_think' in messages[0].content %}" + LOOP + "{% if quiet %}(quiet){% endif %}"
WITHOUT = "{% for m in messages %}[{{ m.content.replace('/no_think', '').replace('/loud', '') | trim }}]{% endfor %}"
COMMAND = "{% for m in messages %}[{{ 'do ' if m.content.startswith('!run') }}{{ m.content }}]{% endfor %}"
CUT = "{% for m in messages %}[{{ m.content.split('###')[-1] }}]{% endfor %}"
LAST = "{% for m in messages %}[{{ m.content }}{{ '' if m.content.endswith('.') else '.' }}]{% endfor %}"
TEXTS = ["Be brief. /no_think", "/no_think", " /no_think x\n", "x/no_think/loud", "/loud .", "x"]
EQUAL = "{% for m in messages %}[{{ m.content }}{{ '!' if m.content == '/no_think' }}]{% endfor %}"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("template", [SWITCH, WITHOUT, COMMAND, LAST, EQUAL])
def test_a_template_that_looks_for_words_of_its_own_finds_them(template: str, text: str) -> None:
    messages = [Message.system(text), Message.user("!run <think> /no_think.")]
    wanted = render_template(template, {"messages": to_dicts(messages)})
    ids = jinja(template).render(messages).ids
    assert QWEN.decode(ids) == wanted
    assert QWEN.control_id("<think>") not in ids


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ 'long' if messages[0].content | length > 9 }}", "x"),
        ("{% for m in messages %}{{ m.content }}{{ m.content[0] }}{% endfor %}", "abc"),
        ("{% for m in messages %}{{ m.content }}{{ m.content | first | upper }}{% endfor %}", "abc"),
        ("{% for m in messages %}{{ m.content }}{{ m.content.count('b') }}{% endfor %}", "cab"),
        ("{% for m in messages %}{{ '?' if m.content is eq('abc') else m.content }}{% endfor %}", "abc"),
        ("{% for m in messages %}{{ m.content }}{{ '</think>' in m.content }}{% endfor %}", "a</think>b"),
        (CUT.replace("###", "<think>"), "a<think>b"),
        (CUT, "a ### b"),
        ("{{ messages | tojson }}{{ messages[0].content | int + 1 }}", "41"),
    ],
)
def test_a_template_that_looks_further_is_followed_exactly_or_refused(template: str, text: str) -> None:
    messages = [Message.user(text)]
    wanted = render_template(template, {"messages": to_dicts(messages)})
    try:
        ids = jinja(template).render(messages).ids
    except TemplateError:
        raise
    except FormatError:
        return
    assert QWEN.decode(ids) == wanted


def test_what_depends_on_the_text_is_refused_with_the_place() -> None:
    format = jinja("{% for m in messages %}{{ m.content }}{{ '</think>' in m.content }}{% endfor %}")
    assert QWEN.decode(format.render([Message.user("a")]).ids) == "aFalse"
    with pytest.raises(FormatError, match=r"depends on what its messages say .*near 'a</think>bTrue'\): change"):
        format.render([Message.user("a</think>b")])


def test_a_template_gets_what_transformers_gives_it() -> None:
    """No tools are None, not undefined; a token that has no name is undefined, not empty."""
    template = "{{ tools is none }} {{ documents is none }} {{ bos_token is defined }} {{ eos_token }}"
    assert QWEN.decode(jinja(template).render([]).ids) == "True True False <|im_end|>"


def test_the_clock_stands_while_a_conversation_is_rendered() -> None:
    format = jinja(LOOP + "{{ strftime_now('%f') }}")
    for _ in range(20):
        format.render([Message.user("a")])


def test_old_thinking_is_dropped_as_the_template_drops_it() -> None:
    dropping = (
        "{% set ns = namespace(last=0) %}{% for m in messages if m.role == 'user' %}{% set ns.last = loop.index0 %}"
        "{% endfor %}{% for m in messages %}[{{ '(thought)' if m.reasoning_content }}{{ m.content }}]{% endfor %}"
    )
    keeping = "{% for m in messages %}[{{ m.reasoning_content }}{{ m.content }}]{% endfor %}"
    messages = [Message.user("q"), Message.assistant("a", "hm"), Message.user("r")]
    for template, written in ((dropping, "[q][(thought)a][r]"), (keeping, "[q][a][r]")):
        rendered = jinja(template).render(messages)
        assert QWEN.decode(rendered.ids) == written
        assert [dropped.message_index for dropped in rendered.dropped_reasoning] == [1]
    kept = jinja(keeping).render(messages, policy=ReasoningPolicy.ALL_TURNS)
    assert QWEN.decode(kept.ids) == "[q][hma][r]"


@given(
    text=st.lists(st.sampled_from(["/no_think", "<think>", "<|im_end|>", " ", "\n", "/loud", "a", "<", "|>"])).map(
        "".join
    )
)
def test_no_word_that_is_shown_lets_text_spell_a_control_token(text: str) -> None:
    template = "{{ '<|im_start|>' + '/no_think' + '/loud' + '<' + '|>' + 'a' }}" + WITHOUT
    messages = [Message.user(text)]
    harmless = [id for id in jinja(template).render([Message.user("x")]).ids if QWEN.is_control(id)]
    try:
        ids = jinja(template).render(messages).ids
    except FormatError:
        return
    assert [id for id in ids if QWEN.is_control(id)] == harmless


SAYS = "{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>' }}"
LATE = [Message.user("a"), Message.assistant("b"), Message.system("c"), Message.user("d")]
EACH = "{% for m in messages %}" + SAYS + "{% endfor %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (EACH, None),
        ("{% for m in messages if m.role != 'system' %}" + SAYS + "{% endfor %}", "drops or rewrites its content"),
        ("{% for m in messages|sort(attribute='role', reverse=true) %}" + SAYS + "{% endfor %}", "where they stand"),
        (EACH.replace("{{", "{% if m.role == 'system' %}{{ raise_exception('first!') }}{% endif %}{{"), "first!"),
    ],
)
def test_late_instructions_are_written_where_they_stand_or_refused(template: str, why: str | None) -> None:
    tokenizer = Tokenizer.train([], 288, ["<|im_start|>", "<|im_end|>"])
    format = JinjaFormat(tokenizer, template)
    if why is None:
        text = tokenizer.decode(format.render(LATE).ids)
        assert text == "".join(f"<|im_start|>{m.role.value}\n{m.text}<|im_end|>" for m in LATE)
        return
    with pytest.raises(FormatError, match=why):
        format.render(LATE)


def test_a_template_says_whether_it_knows_developers() -> None:
    tokenizer = Tokenizer.train([], 288, ["<|im_start|>", "<|im_end|>"])
    assert JinjaFormat(tokenizer, EACH).has_developer
    assert not JinjaFormat(tokenizer, EACH.replace("in messages", "in messages if m.role != 'developer'")).has_developer
