"""Generated ids as pieces of text, of tool calls and of tokens, while they are sampled.

Joined, the pieces equal the texts and calls of the message that the format parses from the whole, given the same tools.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from ponder.dialogue import Message, Part, Reasoning, Text, ToolCall
from ponder.dialogue.calls import CallReader, CallSyntax
from ponder.engine import TokenEvent
from ponder.sampler.protocol import SampledToken
from ponder.tokenizer import StreamDecoder, Tokenizer
from ponder.types import Phase, PhaseTokens
from ponder.voices import Floor, opened


class Piece(NamedTuple):
    """A piece of text.

    state: it is a whole state of folded thinking.
    voice: whose it is, in a council.
    """

    phase: Phase
    text: str
    state: bool = False
    voice: int | None = None


CallPiece = tuple[int, str | None, str]  # the call's number, its name with its first piece, some of its arguments


def cut_at_stop(message: Message, stops: Sequence[str]) -> Message | None:
    """`message` without the first stop string of its visible text and what follows; None: there is none.

    The text that is cut loses its ids: they spell more than it. What is not text stays: it was there before the stop
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
    """The text of one generation, token by token, with stop strings found in the visible answer.

    What may turn out not to be text is held back: the beginning of a stop string, an unfinished character, and white
    space at the edge of a stretch of text. The format's parser decides whether such space is text. A state of
    folded thinking comes as a whole with its fold; without a fold it is not a state, and the token that opened it is
    text. So is what spawns a council, unless its lanes are opened; then each voice has pieces, as it speaks. Tool calls
    are not text: they come with the message.
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
        self._num_states = 0  # that were shown
        self._spawning: list[int] = []  # ids that may open a council
        self._floor: Floor | None = None  # of the council that is open
        self._lanes: list[StreamDecoder] = []  # one for each of its voices
        self.stopped = False  # whether a stop string was met
        self._begin_stretch()

    def feed(self, event: TokenEvent) -> list[Piece]:
        """The text that this token lets out. Once `stopped` is set, nothing more may be fed."""
        self._ids.append(event.id)
        if self._floor is not None and event.id not in self._floor.tokens.closing:
            return self._hear(self._floor, event.id)
        return [*self._end_lanes(), *self._follow(event)]

    def _follow(self, event: TokenEvent) -> list[Piece]:
        """What a token outside of councils lets out."""
        if event.id in self._tokens.end:
            self._begin_stretch()
            return []
        if self._changes_phase(event) or self._folds(event.id):
            self._begin_stretch()
            return self._settle()
        if self._phase is Phase.TOOL or self._in_state:
            return []
        if self._may_open(event.id):
            return self._open()
        for id in (*self._spawning, event.id):
            self._stretch.append(id)
            self._grow(self._decoder.feed(id))
        self._spawning = []
        return self._release()

    def finish(self, message: Message) -> list[Piece]:
        """The pieces still owed, given the whole message."""
        return [*self._end_lanes(), *self._owed_thoughts(message), *self._owed_answer(message)]

    def _may_open(self, id: int) -> bool:
        """Whether this token of a thought, with those before it, may open a council."""
        council, before = self._tokens.council, self._spawning
        if council is None or self._phase is not Phase.THINK:
            return False
        if not before:
            expected: tuple[int, ...] = (council.spawn,)
        else:
            expected = council.numbers if len(before) == 1 else (council.address,)
        if id in expected:
            before.append(id)
        return id in expected

    def _open(self) -> list[Piece]:
        """Where the lanes of a council are open: the rest of the thought before it."""
        council = self._tokens.council
        voices = 0 if council is None else opened(self._spawning, council)
        if council is None or not voices:
            return []
        everyone = list(range(voices))
        self._floor = Floor(council, everyone, before=everyone)
        self._lanes = [StreamDecoder(self._tokenizer) for _ in everyone]
        return self._owed_thoughts(self._parse(self._ids[: -len(self._spawning)]))

    def _hear(self, floor: Floor, id: int) -> list[Piece]:
        """What a voice lets out."""
        voice = floor.voice
        floor.read(id)
        text = "" if self._tokenizer.is_control(id) else self._lanes[voice].feed(id)  # a control token ends its lane
        pieces = [Piece(Phase.THINK, text, voice=voice)] if text else []
        return [*pieces, *self._end_lanes()] if floor.over else pieces

    def _end_lanes(self) -> list[Piece]:
        """What is left of the council that is open: characters that were not whole."""
        if self._floor is None:
            return []
        lanes, self._lanes, self._floor = self._lanes, [], None
        self._begin_stretch()
        rests = ((voice, decoder.flush()) for voice, decoder in enumerate(lanes))
        return [Piece(Phase.THINK, text, voice=voice) for voice, text in rests if text]

    def _settle(self) -> list[Piece]:
        """What the end of a stretch lets out. Not where a call begins: it may turn out to be text."""
        if self._phase is Phase.TOOL:
            return []
        message = self._parse(self._ids)
        self.stopped = first_stop(message.text, self._stops) is not None
        return self._owed_thoughts(message)

    def _owed_thoughts(self, message: Message) -> list[Piece]:
        """Thoughts and states apart."""
        pieces: list[Piece] = []
        shown, end, states = self._num_shown[Phase.THINK], 0, 0
        for part in message.parts:
            if not isinstance(part, Reasoning) or part.voices:  # voices have shown what they said
                continue
            text, end, states = part.text[max(0, shown - end) :], end + len(part.text), states + part.state
            if text or states > self._num_states:
                pieces.append(Piece(Phase.THINK, text, part.state))
            self._num_states = max(states, self._num_states)
        self._num_shown[Phase.THINK] = max(shown, end)
        return pieces

    def _owed_answer(self, message: Message) -> list[Piece]:
        owed = message.text[self._num_shown[Phase.ANSWER] :]
        self._num_shown[Phase.ANSWER] += len(owed)
        return [Piece(Phase.ANSWER, owed)] if owed else []

    def _begin_stretch(self) -> None:
        self._decoder = StreamDecoder(self._tokenizer)
        self._stretch: list[int] = []
        self._lead = ""  # white space before the first visible character
        self._spawning = []
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
        whole = _thoughts(message) if self._phase is Phase.THINK else message.text
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
        return [Piece(self._phase, ready)] if ready else []

    def _stops_here(self) -> tuple[str, ...]:
        return self._stops if self._phase is Phase.ANSWER else ()


def _thoughts(message: Message) -> str:
    """Its thinking, without councils."""
    return "".join(part.text for part in message.parts if isinstance(part, Reasoning) and not part.voices)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class CallText:
    """The tool calls of one generation, token by token.

    A call of a declared tool is shown from its name on, because it stays a call whatever follows. Any other is shown
    when it is closed and read, because until then it may turn out to be text.
    """

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


class AnswerTokens:
    """The tokens of an answer, each given out with the piece of text in which it begins."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._waiting: deque[tuple[int, SampledToken]] = deque()  # with the byte at which each begins
        self._sampled = 0  # bytes
        self._shown = 0

    def feed(self, token: SampledToken, phase: Phase) -> None:
        if phase is Phase.ANSWER and not self._tokenizer.is_control(token.id):
            self._waiting.append((self._sampled, token))
            self._sampled += len(self._tokenizer.token_bytes(token.id))

    def begun(self, text: str) -> tuple[SampledToken, ...]:
        """The tokens that begin in the next piece of the answer."""
        self._shown += len(text.encode())
        begun = []
        while self._waiting and self._waiting[0][0] < self._shown:
            begun.append(self._waiting.popleft()[1])
        return tuple(begun)
