"""Hostile chat templates: no side effect, stopped by the deadline, a typed error, and the next render works."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from ponder.sandbox import isolate
from ponder.sandbox.isolate import Variables, run_isolated
from ponder.sandbox.templates import TemplateError, TemplateFailure, render_template

pytestmark = pytest.mark.fault

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


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_reaches_nothing(payload: str, tmp_path: Path) -> None:
    """It ends in an error, or in nothing where what it asked for is undefined."""
    trace = tmp_path / "trace"
    try:
        shown = render_template(payload.replace("FILE", str(trace)), {"messages": [{"role": "user"}]})
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
def test_what_grows_without_bound_is_stopped(template: str) -> None:
    with pytest.raises(TemplateError):
        render_template(template, {}, seconds=1.0)
    assert render_template("still {{ x }}", {"x": "here"}) == "still here"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ ('a' * 9999) | replace('a', 'b' * 1000) | list | sort | join | length }}" * 2000,
    ],
)
def test_the_deadline_really_stops(template: str) -> None:
    before = time.monotonic()
    with pytest.raises(TemplateError, match=r"stopped: it ran longer than 0\.5 s") as caught:
        render_template(template, {}, seconds=0.5)
    assert caught.value.failure is TemplateFailure.DEADLINE
    assert time.monotonic() - before < 2


def test_a_killed_server_is_replaced() -> None:
    assert render_template("a", {}) == "a"
    isolate._server(Variables.NONE)._process.kill()
    isolate._server(Variables.NONE)._process.wait()
    with contextlib.suppress(TemplateError):  # a call that was lost with it
        render_template("b", {})
    assert render_template("c", {}) == "c"


def test_a_template_starts_without_what_another_one_left() -> None:
    assert render_template("{% set x = 1 %}{{ x }}", {}) == "1"
    assert render_template("{{ x }}", {}) == ""


def test_a_template_cannot_find_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process itself has none, so even code that escapes Jinja's sandbox finds none."""
    monkeypatch.setenv("PONDER_API_KEY", "secret")
    isolate.shut_down()
    code = "open('/proc/self/environ').read() + repr(dict(__import__('os').environ))"
    seen = {each: run_isolated("builtins:eval", code, variables=each).value for each in Variables}
    isolate.shut_down()
    assert "secret" in seen[Variables.INHERITED]
    assert "secret" not in seen[Variables.NONE]
    assert os.environ["PATH"] not in seen[Variables.NONE]


def test_threads_render_at_once() -> None:
    seen: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: seen.update({i: render_template("{{ i }}", {"i": i})})) for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {i: str(i) for i in range(16)}


def test_a_request_larger_than_a_socket_s_buffer_passes() -> None:
    assert render_template("{{ x | length }}", {"x": "y" * 3_000_000}) == "3000000"


def test_a_text_larger_than_a_socket_s_buffer_passes() -> None:
    assert render_template("{{ x }}", {"x": "y" * 3_000_000}) == "y" * 3_000_000


def test_a_longer_text_than_is_allowed_is_an_error() -> None:
    with pytest.raises(TemplateError, match="more than 100 characters") as caught:
        render_template("{{ 'x' * 101 }}", {}, max_characters=100)
    assert caught.value.failure is TemplateFailure.ERROR


def test_hundreds_of_renders_are_quick() -> None:
    began = time.monotonic()
    for i in range(300):  # more than one child's worth
        assert render_template("{{ i }}", {"i": i}) == str(i)
    assert time.monotonic() - began < 10
