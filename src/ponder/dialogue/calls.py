"""How formats write a tool call between its open and close tokens: read whole, read as it is sampled, and spelled out
for a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ponder.dialogue.messages import ToolCall
from ponder.tokenizer import StreamDecoder, Tokenizer

CALL_SHAPE = re.compile(r'\s*\{"name": "(?:[^"\\]|\\.)*", "arguments": (.*)\}\s*', re.DOTALL)
CALL_HEAD = re.compile(r'[ \t\r\n]*\{"name": ("(?:[^"\\]|\\.)*"), "arguments": ', re.DOTALL)
LONGEST_HEAD = 4096  # characters in which a call's name must have come; bounds the work on one that never does


@dataclass(frozen=True, slots=True)
class CallFrame:
    """What a call of one name holds before and after its arguments: texts, and ids of control tokens."""

    before: tuple[str | int, ...]
    after: tuple[str | int, ...] = ()


class CallReader(Protocol):
    """Reads one call id by id, from after its open token."""

    name: str | None  # once it is certain; what follows are its arguments

    def feed(self, id: int) -> str:
        """The text of the arguments that this id lets out."""
        ...

    def finish(self) -> str:
        """What is left of the arguments: the call ends here."""
        ...


class CallSyntax(Protocol):
    """A format's way to write a call."""

    @property
    def separator(self) -> tuple[int, ...]:
        """Ids that may stand between two calls."""
        ...

    def read(self, ids: Sequence[int]) -> ToolCall | None:
        """The call that these ids write; None when they are not of that shape."""
        ...

    def reader(self) -> CallReader: ...

    def frame(self, name: str) -> CallFrame: ...


def declared_call(syntax: CallSyntax, ids: Sequence[int], declared: Collection[str]) -> ToolCall | None:
    """The call of a declared tool that ids write, cut off or broken as it may be: what follows the name are its
    arguments. None: they do not name one."""
    if not declared:
        return None
    reader = syntax.reader()
    arguments = "".join(map(reader.feed, ids)) + reader.finish()
    if reader.name is None or reader.name not in declared:
        return None
    return ToolCall(reader.name, arguments, ids=tuple(ids))


class SeparatedCalls:
    """Ponder's own: the name, a control token, the arguments."""

    separator: tuple[int, ...] = ()

    def __init__(self, tokenizer: Tokenizer, between: int) -> None:
        """between: the control token's id."""
        self._tokenizer = tokenizer
        self._between = between

    def read(self, ids: Sequence[int]) -> ToolCall | None:
        controls = [at for at, id in enumerate(ids) if self._tokenizer.is_control(id)]
        if len(controls) != 1 or ids[controls[0]] != self._between or not controls[0]:
            return None
        name, arguments = ids[: controls[0]], ids[controls[0] + 1 :]
        return ToolCall(self._tokenizer.decode(name), self._tokenizer.decode(arguments), ids=tuple(ids))

    def reader(self) -> CallReader:
        return _SeparatedReader(self._tokenizer, self._between)

    def frame(self, name: str) -> CallFrame:
        return CallFrame((name, self._between))


class _SeparatedReader:
    def __init__(self, tokenizer: Tokenizer, between: int) -> None:
        self.name: str | None = None
        self._tokenizer, self._between = tokenizer, between
        self._decoder = StreamDecoder(tokenizer)
        self._head: list[int] = []
        self._nameless = False  # another control token came first

    def feed(self, id: int) -> str:
        if self.name is not None:
            return self._decoder.feed(id)
        if id == self._between and self._head and not self._nameless:
            self.name = self._tokenizer.decode(self._head)
        elif self._tokenizer.is_control(id):
            self._nameless = True
        else:
            self._head.append(id)
        return ""

    def finish(self) -> str:
        return self._decoder.flush()


class JsonCalls:
    """`{"name": …, "arguments": …}` on a separate line, as Hermes and Qwen write it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.separator = tuple(tokenizer.encode("\n"))

    def read(self, ids: Sequence[int]) -> ToolCall | None:
        if any(map(self._tokenizer.is_control, ids)):
            return None
        call = json_call(self._tokenizer.decode(ids))
        return ToolCall(call.name, call.arguments, ids=tuple(ids)) if call else None

    def reader(self) -> CallReader:
        return _JsonReader(self._tokenizer)

    def frame(self, name: str) -> CallFrame:
        return CallFrame((f'\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": ',), ("}\n",))


class _JsonReader:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.name: str | None = None
        self._decoder = StreamDecoder(tokenizer)
        self._head = ""
        self._value = _JsonValue()

    def feed(self, id: int) -> str:
        return self._take(self._decoder.feed(id))

    def finish(self) -> str:
        return self._take(self._decoder.flush())

    def _take(self, text: str) -> str:
        if self.name is not None:
            return self._value.take(text)
        if len(self._head) > LONGEST_HEAD:
            return ""
        self._head += text
        found = CALL_HEAD.match(self._head)
        if found is None:
            return ""
        try:
            self.name = json.loads(found[1])
        except ValueError:
            return ""
        return self._value.take(self._head[found.end() :])


class _JsonValue:
    """Finds where a JSON value ends while it is being written. Nothing is checked but strings and brackets."""

    def __init__(self) -> None:
        self._depth = 0
        self._begun = self._in_string = self._escaped = self._over = False

    def take(self, text: str) -> str:
        """The part of `text` that belongs to the value."""
        begin = 0
        for at, character in enumerate(text):
            if self._over:
                return text[begin:at]
            if not self._begun and character in " \t\r\n":
                begin = at + 1
            elif not self._belongs(character):
                self._over = True
                return text[begin:at]
        return text[begin:] if self._begun else ""

    def _belongs(self, character: str) -> bool:
        """Follow one character; `_over` once the value is whole. False: the value ended before it."""
        self._begun = True
        if self._in_string:
            if self._escaped or character == "\\":
                self._escaped = not self._escaped
            elif character == '"':
                self._in_string = False
                self._over = not self._depth
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif not self._depth and character in "}], \t\r\n":
            return False
        elif character in "}]":
            self._depth -= 1
            self._over = not self._depth
        return True


def json_call(text: str) -> ToolCall | None:
    """Read `{"name": …, "arguments": …}`; None when it is not that. Arguments are kept as written if they can be."""
    try:
        call = json.loads(text)
        name, arguments = call["name"], call["arguments"]
        shape = CALL_SHAPE.fullmatch(text)
        as_written = shape is not None and json.loads(shape[1]) == arguments
        written = shape[1].strip() if shape and as_written else json.dumps(arguments, ensure_ascii=False)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return ToolCall(name, written) if isinstance(name, str) and name else None
