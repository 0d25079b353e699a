"""A foreign chat template: what it rewrites or loses is refused, what it trims is followed."""

from pathlib import Path

import pytest

from ponder.dialogue import Message, Reasoning, Role, Start, Text, ToolCall, ToolResult, load_format
from ponder.dialogue.jinja import JinjaFormat
from ponder.sandbox.templates import TemplateError, TemplateFailure
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
    with pytest.raises(FormatError, match="train a native format"):
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
