"""Foreign chat templates, rendered in a child process that is limited in time, memory and output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from ponder.sandbox.isolate import CallOutcome, Variables, run_isolated
from ponder.types import FormatError

RENDER_SECONDS = 5.0  # of wall time: a busy machine must not refuse what would take milliseconds
RENDER_BYTES = 1 << 29
MAX_CHARACTERS = 1 << 22


class TemplateFailure(StrEnum):
    """Why a template gave no text."""

    REFUSED = "refused"  # it called raise_exception
    ERROR = "error"  # it is malformed, forbidden, or too large
    DEADLINE = "deadline"


class TemplateError(FormatError):
    """A chat template that cannot be rendered."""

    def __init__(self, message: str, failure: TemplateFailure) -> None:
        super().__init__(message)
        self.failure = failure


def render_template(
    template: str,
    variables: Mapping[str, Any],
    *,
    seconds: float = RENDER_SECONDS,
    memory: int = RENDER_BYTES,
    max_characters: int = MAX_CHARACTERS,
) -> str:
    """The text of a Jinja template. Raises TemplateError.

    seconds: of wall time, then the render is killed.
    memory: bytes that the render may take.
    max_characters: of the text.
    """
    (text,) = render_each(template, [variables], seconds=seconds, memory=memory, max_characters=max_characters)
    if isinstance(text, TemplateError):
        raise text
    return text


def render_each(
    template: str,
    batch: Sequence[Mapping[str, Any]],
    *,
    seconds: float = RENDER_SECONDS,
    memory: int = RENDER_BYTES,
    max_characters: int = MAX_CHARACTERS,
) -> list[str | TemplateError]:
    """The text of a Jinja template for each of several sets of variables, at one moment of the clock. Limits, of all
    together, as in `render_template`. Raises TemplateError only where a limit stopped them all."""
    done = run_isolated(
        "ponder.sandbox.template_child:render",
        {"template": template, "batch": [dict(variables) for variables in batch], "max_characters": max_characters},
        timeout=seconds,
        memory=memory,
        warm=("ponder.sandbox.template_child:warm_templates", None),
        share=f"template {hash(template)}",
        variables=Variables.NONE,
    )
    if done.outcome is CallOutcome.RAISED:
        raise TemplateError(f"the chat template cannot be rendered: {done.why}", TemplateFailure.ERROR)
    if done.outcome is not CallOutcome.DONE:
        raise TemplateError(
            f"the chat template was stopped: it ran longer than {seconds} s or out of memory; use a template "
            "that is linear in the conversation",
            TemplateFailure.DEADLINE,
        )
    return [_text_or_error(each) for each in done.value]


def template_words(template: str) -> list[str]:
    """The string constants of a Jinja template's code, longest first: what it can look for in a text. Raises
    TemplateError."""
    done = run_isolated(
        "ponder.sandbox.template_child:literals",
        template,
        timeout=RENDER_SECONDS,
        memory=RENDER_BYTES,
        warm=("ponder.sandbox.template_child:warm_templates", None),
        variables=Variables.NONE,
    )
    if done.outcome is not CallOutcome.DONE:
        raise TemplateError(f"the chat template cannot be read: {done.why}", TemplateFailure.ERROR)
    words: list[str] = done.value
    return words


def _text_or_error(rendered: Mapping[str, str]) -> str | TemplateError:
    if "refused" in rendered:
        return TemplateError(
            f"the chat template refuses this conversation: {rendered['refused']}", TemplateFailure.REFUSED
        )
    if "error" in rendered:
        return TemplateError(f"the chat template cannot be rendered: {rendered['error']}", TemplateFailure.ERROR)
    return rendered["text"]
