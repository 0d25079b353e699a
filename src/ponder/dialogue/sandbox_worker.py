"""The child process that renders foreign chat templates. Run as a script: it imports nothing of Ponder.

Requests and replies are lines of JSON on standard input and output. The process ends itself when a render outlasts its
deadline (SIGALRM, also without a parent) and cannot hold more memory than it was given.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class TemplateRefusal(Exception):
    """The template called `raise_exception`."""


class GenerationBlock(Extension):
    """`{% generation %}` marks the assistant's text for training (transformers); rendering passes it through."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's interface)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """The environment that transformers renders chat templates in (`utils/chat_template_utils.py`)."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = _to_json
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return env


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


def render(template: jinja2.Template, variables: dict[str, Any], max_characters: int) -> dict[str, str]:
    """{"text": …}, or {"refused": …} by the template itself, or {"error": …}. Any other end is the process's end."""
    pieces: list[str] = []
    room = max_characters
    try:
        for piece in template.generate(variables):
            room -= len(piece)
            if room < 0:
                return {"error": f"it wrote more than {max_characters} characters"}
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


def main(
    max_bytes: int, max_characters: int, seconds: float, read: Callable[[], str], write: Callable[[str], Any]
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, in the middle of anything
    env = environment()
    templates: dict[str, jinja2.Template] = {}
    while line := read():
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        source = request["template"]
        try:
            template = templates.get(source) or templates.setdefault(source, env.from_string(source))
        except (jinja2.TemplateError, MemoryError, RecursionError) as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        else:
            reply = render(template, request["variables"], max_characters)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write(json.dumps(reply) + "\n")


if __name__ == "__main__":

    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.stdin.readline, _write)
