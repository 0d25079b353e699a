"""The pieces of one answer in an order in which clients can take them: each call whole before anything else begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

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
    may send the arguments of parallel calls in turns. A council is held back until it is over: then it comes as one
    piece, what each voice said below the other."""

    def __init__(self) -> None:
        self._open: str | None = None  # the key of the latest call
        self._arguments = ""  # of that call
        self._waiting: list[TextOrCall] = []
        self._lanes: dict[int, Delta] = {}  # what each voice of the council that is open has said

    def feed(self, piece: TextOrCall) -> Iterator[TextOrCall]:
        """The pieces that may be written now: this one, perhaps, and those that waited for it."""
        if isinstance(piece, Delta) and piece.voice is not None:
            said = self._lanes.get(piece.voice)
            text = piece.text if said is None else said.text + piece.text
            self._lanes[piece.voice] = replace(piece, text=text)
            return
        self._end_council()
        self._waiting.append(piece)
        pieces, self._waiting = self._waiting, []
        for each in pieces:
            if self._waits(each):
                self._waiting.append(each)
            else:
                yield from self._let(each)

    def rest(self) -> Iterator[TextOrCall]:
        """What still waits at the end, call by call."""
        self._end_council()
        pieces, self._waiting = self._waiting, []
        for key in dict.fromkeys(map(key_of, pieces)):
            yield from (each for each in pieces if key_of(each) == key)

    def _end_council(self) -> None:
        if self._lanes:
            lanes = [self._lanes[voice] for voice in sorted(self._lanes)]
            text = "\n".join(lane.text for lane in lanes)
            self._waiting.append(replace(lanes[0], text=text, voice=None))
            self._lanes = {}

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
