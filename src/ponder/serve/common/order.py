"""The pieces of one answer in an order in which clients can take them: each call whole before anything else begins."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ponder.sampler.protocol import CallDelta, Delta
from ponder.types import Phase

TextOrCall = Delta | CallDelta


def key_of(piece: TextOrCall) -> str:
    """What a piece is of: the reasoning, the message, or a call."""
    if isinstance(piece, CallDelta):
        return f"call {piece.call}"
    return "reasoning" if piece.phase is Phase.THINK else "message"


class WholeCalls:
    """Holds back what comes while the arguments of a call are not JSON yet, and is not a piece of that call. Servers
    may send the arguments of parallel calls in turns."""

    def __init__(self) -> None:
        self._open: str | None = None  # the key of the latest call
        self._arguments = ""  # of that call
        self._waiting: list[TextOrCall] = []

    def feed(self, piece: TextOrCall) -> Iterator[TextOrCall]:
        """The pieces that may be written now: this one, perhaps, and those that waited for it."""
        self._waiting.append(piece)
        pieces, self._waiting = self._waiting, []
        for each in pieces:
            if self._waits(each):
                self._waiting.append(each)
            else:
                yield from self._let(each)

    def rest(self) -> Iterator[TextOrCall]:
        """What still waits at the end, call by call."""
        pieces, self._waiting = self._waiting, []
        for key in dict.fromkeys(map(key_of, pieces)):
            yield from (each for each in pieces if key_of(each) == key)

    def _waits(self, piece: TextOrCall) -> bool:
        if self._open is None or key_of(piece) == self._open:
            return False
        try:
            json.loads(self._arguments)
        except ValueError:
            return True
        return False

    def _let(self, piece: TextOrCall) -> Iterator[TextOrCall]:
        if isinstance(piece, CallDelta):
            if key_of(piece) != self._open:
                self._open, self._arguments = key_of(piece), ""
            self._arguments += piece.arguments
        yield piece
