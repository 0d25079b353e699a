"""Generated ids as the text of their phases, piece by piece, with stop strings found in the visible answer.

Joined by phase, the pieces equal the texts of the message that the format parses from the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ponder.dialogue import Message, Part, Text
from ponder.engine import TokenEvent
from ponder.tokenizer import StreamDecoder, Tokenizer
from ponder.types import Phase, PhaseTokens

Piece = tuple[Phase, str]


def cut_at_stop(message: Message, stops: Sequence[str]) -> Message | None:
    """`message` without the first stop string of its visible text and what follows; None: there is none.

    The text that is cut loses its ids: they spell more than it. What is no text stays: it was there before the stop
    string was whole.
    """
    position = first_stop(message.text, stops)
    if position is None:
        return None
    parts: list[Part] = []
    for part in message.parts:
        if not isinstance(part, Text) or len(part.text) <= position:
            parts.append(part)
        elif position >= 0:
            parts.append(Text(part.text[:position]))
        position -= len(part.text) if isinstance(part, Text) else 0
    return replace(message, parts=tuple(parts))


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the earliest stop string begins."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)


class VisibleText:
    """Follows one generation, token by token.

    Held back is whatever may not be shown after all: the beginning of a stop string, an unfinished character, and
    white space at the edge of a stretch of text, of which the format's parser decides whether it belongs to the text
    or to the format. A state of folded thinking comes as a whole with its fold; without one it is none, and the token
    that opened it is text. Tool calls are no text: they come with the message.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tokens: PhaseTokens,
        parse: Callable[[Sequence[int]], Message],
        *,
        start: Phase,
        stops: Sequence[str] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._parse = parse
        self._stops = tuple(stops)
        self._phase = start
        self._in_state = False
        self._ids: list[int] = []
        self._num_shown = {Phase.THINK: 0, Phase.ANSWER: 0}
        self.stopped = False  # whether a stop string was met
        self._begin_stretch()

    def feed(self, event: TokenEvent) -> list[Piece]:
        """The text that this token lets out. Once `stopped` is set, nothing more may be fed."""
        self._ids.append(event.id)
        if event.id in self._tokens.end:
            self._begin_stretch()
            return []
        if self._changes_phase(event) or self._folds(event.id):
            self._begin_stretch()
            return self._settle()
        if self._phase is Phase.TOOL or self._in_state:
            return []
        self._stretch.append(event.id)
        self._grow(self._decoder.feed(event.id))
        return self._release()

    def finish(self, message: Message) -> list[Piece]:
        """The pieces still owed, given the whole message."""
        return [*self._owed(Phase.THINK, message), *self._owed(Phase.ANSWER, message)]

    def _settle(self) -> list[Piece]:
        """What the end of a stretch lets out. Not where a call begins: it may turn out to be text."""
        if self._phase is Phase.TOOL:
            return []
        message = self._parse(self._ids)
        self.stopped = first_stop(message.text, self._stops) is not None
        return self._owed(Phase.THINK, message)

    def _owed(self, phase: Phase, message: Message) -> list[Piece]:
        whole = message.reasoning if phase is Phase.THINK else message.text
        owed = whole[self._num_shown[phase] :]
        self._num_shown[phase] += len(owed)
        return [(phase, owed)] if owed else []

    def _begin_stretch(self) -> None:
        self._decoder = StreamDecoder(self._tokenizer)
        self._stretch: list[int] = []
        self._lead = ""  # white space before the first visible character
        self._held: str | None = None  # text of this phase that is not shown yet; None before that character

    def _changes_phase(self, event: TokenEvent) -> bool:
        """Whether this token is the boundary of a phase, and so no text."""
        before, id = self._phase, event.id
        if before is not event.phase:  # the engine tags the token that opens a phase with that phase
            self._phase, self._in_state = event.phase, False
            return True
        if (before is Phase.THINK and id == self._tokens.think_close) or (
            before is Phase.TOOL and id == self._tokens.call_close
        ):
            self._phase, self._in_state = Phase.ANSWER, False
            return True
        return False

    def _folds(self, id: int) -> bool:
        """Whether this token closes a state. Follows where states begin."""
        if self._phase is not Phase.THINK:
            return False
        if self._in_state and id == self._tokens.fold:
            self._in_state = False
            return True
        self._in_state = self._in_state or id == self._tokens.state_open
        return False

    def _grow(self, text: str) -> None:
        if self._held is not None:
            self._held += text
            return
        self._lead += text
        blank = self._lead.isspace()
        if not self._lead or (blank and not self._stops_here()):
            return
        message = self._parse(self._ids)
        whole = message.reasoning if self._phase is Phase.THINK else message.text
        unfinished = len(self._tokenizer.decode(self._stretch)) - len(self._lead)
        whole = whole[: len(whole) - unfinished]
        if blank:
            if first_stop(whole, self._stops_here()) is not None:  # it is text already, and ends the answer
                self._held = whole[self._num_shown[self._phase] :]
            return
        edge = self._lead[len(self._lead.rstrip()) :]
        self._held = (whole.rstrip() + edge)[self._num_shown[self._phase] :]

    def _release(self) -> list[Piece]:
        if self._held is None:
            return []
        stops = self._stops_here()
        stop = first_stop(self._held, stops)
        if stop is None:
            safe = len(self._held) - max((_overlap(self._held, stop) for stop in stops), default=0)
            ready = self._held[:safe].rstrip()
        else:
            self.stopped = True
            ready = self._held[:stop]
        self._held = self._held[len(ready) :]
        self._num_shown[self._phase] += len(ready)
        return [(self._phase, ready)] if ready else []

    def _stops_here(self) -> tuple[str, ...]:
        return self._stops if self._phase is Phase.ANSWER else ()


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
