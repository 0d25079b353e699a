"""The rendering of a foreign chat template by Jinja's sandbox: for child processes only."""

from __future__ import annotations

import datetime
import json
from functools import cache, lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Moment:
    """The time that `strftime_now` shows."""

    now = datetime.datetime.min


_moment = _Moment()


class TemplateRefusal(Exception):
    """The template called `raise_exception`."""


class GenerationBlock(Extension):
    """`{% generation %}` marks the assistant's text for training (transformers); rendering passes it through."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's interface)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@cache
def template_environment() -> ImmutableSandboxedEnvironment:
    """The environment that transformers renders chat templates in (`utils/chat_template_utils.py`)."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = _to_json
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = lambda form: _moment.now.strftime(form)
    return env


def warm_templates(_: None) -> None:
    """Use Jinja once, in the fork server, so that every child finds it ready."""
    template_environment().from_string("{{ x }}").render(x="")


def render(payload: dict[str, Any]) -> list[dict[str, str]]:
    """For each set of variables of `batch`: `{"text"}` of the template, or `{"refused"}` by the template itself, or
    `{"error"}`. All see one moment of the clock."""
    _moment.now = datetime.datetime.now()
    return [_render(payload["template"], variables, payload["max_characters"]) for variables in payload["batch"]]


def literals(template: str) -> list[str]:
    """The string constants of a template's code, longest first."""
    tree = template_environment().parse(template)
    found = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return sorted(found, key=lambda word: (-len(word), word))


def _render(template: str, variables: dict[str, Any], most: int) -> dict[str, str]:
    pieces: list[str] = []
    room = most
    try:
        for piece in _compiled(template).generate(variables):
            room -= len(piece)
            if room < 0:
                return {"error": f"it wrote more than {most} characters"}
            pieces.append(piece)
    except TemplateRefusal as error:
        return {"refused": str(error)[:500]}
    except MemoryError:
        return {"error": "it ran out of memory"}
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {"text": "".join(pieces)}


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    return template_environment().from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(message)
