"""Hostile chat templates: no side effect, stopped by the deadline, a typed error, and the next render works."""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ponder.dialogue import Message, Reasoning, Role, Start, Text, ToolCall, ToolResult, load_format
from ponder.dialogue.jinja import JinjaFormat
from ponder.dialogue.sandbox import Sandbox, TemplateError, TemplateFailure
from ponder.tokenizer import Tokenizer
from ponder.types import FormatError

pytestmark = pytest.mark.fault

QWEN = Tokenizer.load(Path(__file__).parents[1] / "golden" / "families" / "qwen3")
LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
PAYLOADS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch FILE').read() }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch FILE') }}",
    "{{ lipsum.__globals__['os'].system('touch FILE') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ strftime_now.__globals__ }}",
    "{{ (messages | attr('__class__')).mro() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ ''['__cl' ~ 'ass__'] }}",
    "{{ (raise_exception | attr('func_globals')) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ messages.__reduce_ex__(2) }}",
    "{{ joiner.__init__.__globals__['__builtins__']['open']('FILE', 'w') }}",
    "{{ ({}).__class__.__base__.__subclasses__()[104] }}",
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(seconds=1.0)
    box.render("", {})
    yield box
    box.close()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_reaches_nothing(sandbox: Sandbox, payload: str, tmp_path: Path) -> None:
    """It ends in an error, or in nothing where what it asked for is undefined."""
    trace = tmp_path / "trace"
    try:
        shown = sandbox.render(payload.replace("FILE", str(trace)), {"messages": [{"role": "user"}]})
    except TemplateError:
        shown = ""
    assert shown == ""
    assert not trace.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ 'x' * 10**8 }}",
        "{{ '%0999999999d' | format(1) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ [[1] * 10**6] * 10**6 }}",
        "{{ ('x' * 10**6 + '\n') * 10**3 }}",
        "{{ lipsum(n=10**9) }}",
    ],
)
def test_what_grows_without_bound_is_stopped(sandbox: Sandbox, template: str) -> None:
    before = time.monotonic()
    with pytest.raises(TemplateError):
        sandbox.render(template, {})
    assert time.monotonic() - before < 3
    assert sandbox.render("still {{ x }}", {"x": "here"}) == "still here"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ ('a' * 9999) | replace('a', 'b' * 1000) | list | sort | join | length }}" * 2000,
    ],
)
def test_the_deadline_really_stops(template: str) -> None:
    box = Sandbox(seconds=0.5)
    box.render("", {})
    before = time.monotonic()
    with pytest.raises(TemplateError, match=r"stopped: it ran longer than 0\.5 s") as caught:
        box.render(template, {})
    assert caught.value.failure is TemplateFailure.DEADLINE
    assert time.monotonic() - before < 2
    box.close()


def test_a_killed_child_is_replaced() -> None:
    box = Sandbox()
    assert box.render("a", {}) == "a"
    assert box._child is not None
    box._child.kill()
    box._child.wait()
    with pytest.raises(TemplateError):
        box.render("b", {})
    assert box.render("c", {}) == "c"
    box.close()


def test_a_sandbox_that_is_forgotten_ends_its_child() -> None:
    box = Sandbox()
    box.render("", {})
    child = box._child
    assert isinstance(child, subprocess.Popen)
    del box
    assert child.wait(timeout=5) is not None


def test_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    seen: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: seen.update({i: sandbox.render("{{ i }}", {"i": i})})) for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {i: str(i) for i in range(16)}


def test_a_request_larger_than_a_pipe_passes(sandbox: Sandbox) -> None:
    assert sandbox.render("{{ x | length }}", {"x": "y" * 3_000_000}) == "3000000"


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
