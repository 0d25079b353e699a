"""The tool calls of one generation, piece by piece.

A call of a declared tool is shown from its name on, for it stays one whatever follows. Any other is shown when it is
closed and read, because until then it may turn out to be text. Joined, the pieces equal the calls of the message that
the format parses from the whole, told the same tools.
"""

from __future__ import annotations

from collections.abc import Collection

from ponder.dialogue import Message, ToolCall
from ponder.dialogue.calls import CallReader, CallSyntax
from ponder.engine import TokenEvent
from ponder.types import Phase, PhaseTokens

CallPiece = tuple[int, str | None, str]  # the call's number, its name with its first piece, some of its arguments


class CallText:
    """Follows one generation, token by token."""

    def __init__(self, tokens: PhaseTokens, syntax: CallSyntax, declared: Collection[str]) -> None:
        self._tokens, self._syntax, self._declared = tokens, syntax, declared
        self._number = 0  # of the next call, or of the one that is open and shown
        self._reader: CallReader | None = None  # of the call that is open
        self._ids: list[int] = []
        self._shown: int | None = None  # characters of the open call's arguments; None while its name is not shown

    def feed(self, event: TokenEvent) -> list[CallPiece]:
        """The pieces that this token lets out."""
        if event.phase is not Phase.TOOL or event.id in self._tokens.end:
            return []
        if self._reader is None:
            self._reader, self._ids = self._syntax.reader(), []
            return []
        if event.id == self._tokens.call_close:
            return self._close()
        self._ids.append(event.id)
        arguments = self._reader.feed(event.id)
        if self._reader.name is None or self._reader.name not in self._declared:
            return []
        return self._show(self._reader.name, arguments)

    def finish(self, message: Message) -> list[CallPiece]:
        """The pieces still owed, given the whole message."""
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        if self._number == len(calls):
            return []
        call = calls[self._number]  # cut off: at most this one is not shown whole
        return self._show(call.name, call.arguments[self._shown or 0 :])

    def _close(self) -> list[CallPiece]:
        assert self._reader is not None
        pieces: list[CallPiece] = []
        if self._shown is not None:
            pieces = self._show(self._reader.name, self._reader.finish())
        elif (call := self._syntax.read(self._ids)) is not None:
            pieces = self._show(call.name, call.arguments)
        self._number += self._shown is not None
        self._reader, self._shown = None, None
        return pieces

    def _show(self, name: str | None, arguments: str) -> list[CallPiece]:
        first = self._shown is None
        self._shown = (self._shown or 0) + len(arguments)
        return [(self._number, name if first else None, arguments)] if first or arguments else []
