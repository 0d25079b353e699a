"""A conversation as a chat template is given it: its text, or placeholders for its text.

Where text is hidden, each field is replaced by an unguessable placeholder, so that what the template itself writes can
be told from what was said. White space at the ends of a field stays outside its placeholder, so a template's `trim`
works on it. A template that looks for certain words in the text can be shown these words, and nothing else of it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ponder.dialogue.interchange import to_dicts
from ponder.dialogue.messages import Conversation, Role
from ponder.dialogue.tools import Tool, tool_dict

PLACEHOLDER = re.compile(r'(\\?)"([0-9a-f]{32})\1"')
MOST_PIECES = 256  # of one field, between words that are shown
TOOL = "tool"
# Words of a tool's schema that a template may look at. None of them is text of the caller's.
SCHEMA_WORDS = frozenset(
    (
        *("type", "object", "array", "string", "number", "integer", "boolean", "null", "nullable"),
        *("properties", "required", "additionalProperties", "items", "enum", "const", "format", "default"),
        *("anyOf", "oneOf", "allOf", "title", "description"),
    )
)


@dataclass(frozen=True, slots=True)
class Hidden:
    """What a placeholder stands for: a piece of the text of a message's field."""

    message_index: int
    field: str
    text: str


def shown_words(words: Iterable[str], control: Iterable[str]) -> tuple[str, ...]:
    """The words that a template may be shown in a text: those with which no text can spell a control token, whatever
    stands beside them."""
    names = list(control)
    return tuple(word for word in words if word.strip() and not any(_overlap(word, name) for name in names))


def _overlap(word: str, name: str) -> bool:
    ends = range(1, min(len(word), len(name)))
    return word in name or name in word or any(word[-k:] == name[:k] or word[:k] == name[-k:] for k in ends)


class TemplateFields:
    """The text fields of one conversation."""

    def __init__(
        self,
        messages: Conversation,
        tools: Sequence[Tool],
        *,
        text_arguments: bool,
        hide: bool = True,
        words: Sequence[str] = (),
    ) -> None:
        """text_arguments: a tool call's arguments are one text; otherwise the object that it spells.
        hide: the text is replaced by placeholders. words: what of it is shown all the same, longest first
        (`shown_words`)."""
        self._text_arguments, self._hiding = text_arguments, hide
        self._words = re.compile(f"({'|'.join(map(re.escape, words))})") if words else None
        self.hidden: dict[str, Hidden] = {}  # by placeholder
        self._entries = [
            self._entry(index, entry) for index, message in enumerate(messages) for entry in to_dicts([message])
        ]
        self._tools = [{"type": "function", "function": self._tool(tool_dict(tool)["function"])} for tool in tools]

    @property
    def variables(self) -> dict[str, Any]:
        """What the template is given of them."""
        return {"messages": self._entries, "tools": self._tools or None}

    @property
    def has_calls(self) -> bool:
        return any("tool_calls" in entry for entry in self._entries)

    def pieces(self, rendered: str) -> Iterator[tuple[str, Hidden | None, str]]:
        """What a template wrote, in order: its own text, the placeholder after it (None at the end), and the text that
        this one stands for, as JSON where the template wrote it so."""
        at = 0
        for found in PLACEHOLDER.finditer(rendered):
            hidden = self.hidden.get(found[2])
            if hidden is not None:
                text = json.dumps(hidden.text, ensure_ascii=False)[1:-1] if found[1] else hidden.text
                yield rendered[at : found.start()], hidden, text
                at = found.end()
        yield rendered[at:], None, ""

    def filled(self, rendered: str) -> str:
        """What a template wrote, with the text in place of the placeholders."""
        return "".join(own + text for own, _, text in self.pieces(rendered))

    def _hide(self, index: int, field: str, text: str) -> str:
        if not self._hiding:
            return text
        pieces = self._words.split(text) if self._words else [text]  # every second one is a word to show
        if len(pieces) > 2 * MOST_PIECES:
            pieces = [text]
        return "".join(
            piece if place % 2 else self._placeholder(index, field, piece) for place, piece in enumerate(pieces)
        )

    def _placeholder(self, index: int, field: str, text: str) -> str:
        core = text.strip()
        if not core:
            return text
        key = secrets.token_hex(16)
        self.hidden[key] = Hidden(index, field, core)
        begin = text.index(core)
        return f'{text[:begin]}"{key}"{text[begin + len(core) :]}'

    def _entry(self, index: int, entry: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {"role": entry["role"]}
        for field in ("content", "name", "reasoning_content", "tool_call_id"):
            if field in entry:
                label = "tool name" if field == "name" and entry["role"] == Role.TOOL else field
                shown[field] = self._hide(index, label, entry[field])
        if "reasoning_content" in shown:
            shown["reasoning"] = shown["thinking"] = shown["reasoning_content"]
        if "tool_calls" in entry:
            shown["tool_calls"] = [self._call(index, call) for call in entry["tool_calls"]]
        return shown

    def _call(self, index: int, call: dict[str, Any]) -> dict[str, Any]:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        function = {"name": self._hide(index, "tool call name", name), "arguments": self._arguments(index, arguments)}
        shown = {"type": "function", "function": function}
        return shown if "id" not in call else {**shown, "id": self._hide(index, "id", call["id"])}

    def _arguments(self, index: int, arguments: str) -> Any:
        if not self._text_arguments:
            try:
                return self._hide_within(index, json.loads(arguments), "arguments")
            except (ValueError, RecursionError):
                pass
        return self._hide(index, "arguments", arguments)

    def _tool(self, function: dict[str, Any]) -> dict[str, Any]:
        return {key: self._hide_within(0, value, TOOL, SCHEMA_WORDS) for key, value in function.items()}

    def _hide_within(self, index: int, value: Any, field: str, shown: Collection[str] = ()) -> Any:
        """shown: words that stay as they are."""
        if isinstance(value, str):
            return value if value in shown else self._hide(index, field, value)
        if isinstance(value, list):
            return [self._hide_within(index, item, field, shown) for item in value]
        if isinstance(value, dict):
            return {
                self._hide_within(index, key, field, shown): self._hide_within(index, item, field, shown)
                for key, item in value.items()
            }
        return value
