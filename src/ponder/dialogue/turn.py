"""The one parser of generated turns. A format says which tokens open and close, and how it writes a call."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ponder.dialogue.calls import CallSyntax, declared_call
from ponder.dialogue.format import Parsed, ParseStatus
from ponder.dialogue.messages import LaneEnd, Message, Part, Reasoning, Role, Text, ToolCall, Voice
from ponder.tokenizer import Tokenizer
from ponder.types import CouncilTokens, Phase, PhaseTokens
from ponder.voices import Floor, opened


def parse_turn(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    tokens: PhaseTokens,
    *,
    thinking: bool,
    calls: CallSyntax | None,
    declared: Collection[str] = (),
) -> Parsed:
    """Read what an assistant generated after its generation prompt.

    thinking: the prompt left thinking open.
    calls: how a call is written between its open and close tokens.
    declared: names of tools; a call is one of theirs from its name on, also where it is cut off or broken.

    Nothing is lost and nothing raises: what the grammar has no place for stays as spelled text without ids, so that
    rendering it again makes ordinary tokens of it.
    """
    reader = _Turn(tokenizer, tokens, calls, declared, Phase.THINK if thinking else Phase.ANSWER)
    for at, id in enumerate(ids):
        reader.read(at, id)
    return reader.finish(len(ids))


class _Turn:
    def __init__(
        self,
        tokenizer: Tokenizer,
        tokens: PhaseTokens,
        calls: CallSyntax | None,
        declared: Collection[str],
        phase: Phase,
    ) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._calls = calls
        self._declared = declared
        self._phase = phase
        self._parts: list[Part] = []
        self._buffer: list[int] = []
        self._call_open_at = 0
        self._state_open_at: int | None = None  # position of the token that opened a state
        self._state_begin = 0  # where in the buffer it stands
        self._spawning: list[int] = []  # positions of tokens that may open a council
        self._council: _Council | None = None
        self._stray: list[int] = []
        self._ending: ParseStatus | None = None

    def read(self, at: int, id: int) -> None:
        if self._ending is not None:  # nothing has a place after the end of the turn
            self._stray.append(at)
            self._buffer.append(id)
        elif self._council is not None and id not in self._council.tokens.closing:
            self._buffer.append(id)
            if self._tokenizer.is_control(id) and id not in self._council.ends:
                self._council.stray.append(at)
            self._council.read(id)
            if self._council.floor.over:
                self._end_council()
        elif id in self._tokens.end:
            self._close(at)
        elif not self._tokenizer.is_control(id):
            self._buffer.append(id)
        elif self._phase is Phase.THINK and id == self._tokens.think_close:
            if self._state_open_at is not None:  # a state that was not closed is not a state
                self._stray.append(self._state_open_at)
            self._stray += self._spawning  # nor is a council whose lanes were not opened one
            self._end_council()
            self._flush()
            self._phase = Phase.ANSWER
        elif self._phase is Phase.THINK and id == self._tokens.state_open and self._state_open_at is None:
            self._state_open_at, self._state_begin = at, len(self._buffer)
            self._buffer.append(id)
        elif self._phase is Phase.THINK and id == self._tokens.fold and self._state_open_at is not None:
            self._fold()
        elif self._opens_council(at, id):
            pass
        elif self._phase is Phase.ANSWER and id == self._tokens.think_open:
            self._flush()
            self._phase = Phase.THINK
        elif self._phase is Phase.ANSWER and id == self._tokens.call_open:
            self._flush()
            self._phase, self._call_open_at = Phase.TOOL, at
        elif self._phase is Phase.TOOL:
            self._buffer.append(id)
            if id == self._tokens.call_close:
                whole = None if self._calls is None else self._calls.read(self._buffer[:-1])
                if whole is None:
                    self._stray += [self._call_open_at, at]
                self._end_call(self._buffer[:-1], whole)
        else:
            self._stray.append(at)
            self._buffer.append(id)

    def finish(self, end: int) -> Parsed:
        if self._ending is None:
            self._close(end)
            if self._ending is ParseStatus.COMPLETE:
                self._ending = ParseStatus.NO_END
        else:
            self._flush()
        status = ParseStatus.STRAY_CONTROL if self._stray else self._ending
        assert status is not None
        return Parsed(Message(Role.ASSISTANT, tuple(self._parts)), status, tuple(sorted(self._stray)))

    def _close(self, at: int) -> None:
        """The turn ends here, by its end token or because the ids are over."""
        phase = self._phase
        if phase is Phase.TOOL:
            self._end_call(self._buffer, None)
        self._end_council()
        self._flush()
        self._phase = Phase.ANSWER
        self._ending = {
            Phase.THINK: ParseStatus.OPEN_THINK,
            Phase.ANSWER: ParseStatus.COMPLETE,
            Phase.TOOL: ParseStatus.OPEN_CALL,
        }[phase]

    def _fold(self) -> None:
        """The thought before the state, then the state; another thought follows, which may be empty."""
        begin = self._state_begin
        state, self._buffer = self._buffer[begin + 1 :], self._buffer[:begin]
        self._stray += self._spawning
        self._flush()
        self._parts.append(Reasoning(self._tokenizer.decode(state), self._plain(state), state=True))

    def _opens_council(self, at: int, id: int) -> bool:
        """Take a token that may open a council. False: it has no place here."""
        tokens = self._tokens.council
        if tokens is None or self._phase is not Phase.THINK or self._state_open_at is not None:
            return False
        if id != tokens.spawn and not (id == tokens.address and self._spawning):
            return False
        self._buffer.append(id)
        self._spawning.append(at)
        if voices := opened(self._buffer[-len(tokens.numbers) - 2 :], tokens):
            self._stray += self._spawning[: -voices - 1]
            self._spawning = []
            self._council = _Council(tokens, voices, len(self._buffer) - voices - 2)
        return True

    def _end_council(self) -> None:
        """The thought before the council, then the council. One with a stray token stays spelled text of the thought,
        because lanes that are encoded again may be out of step."""
        if self._council is None:
            return
        ended, self._council = self._council, None
        self._stray += ended.stray
        if ended.stray:
            return
        self._buffer = self._buffer[: ended.begin]
        self._flush()
        voices = (Voice(self._tokenizer.decode(ids), end, tuple(ids)) for ids, end in ended.lanes)
        self._parts.append(Reasoning.council(tuple(voices)))

    def _end_call(self, ids: Sequence[int], whole: ToolCall | None) -> None:
        """ids: what the call holds. whole: a closed call, read. A broken call becomes text again, its
        tokens spelled."""
        assert self._tokens.call_open is not None
        self._phase = Phase.ANSWER
        call = whole if self._calls is None else declared_call(self._calls, ids, self._declared) or whole
        if call is None:
            self._buffer.insert(0, self._tokens.call_open)
            self._flush()
        else:
            self._parts.append(call)
            self._buffer = []

    def _flush(self) -> None:
        buffer, self._buffer, self._state_open_at, self._spawning = self._buffer, [], None, []
        ids = self._plain(buffer)
        if self._phase is Phase.THINK:
            self._parts.append(Reasoning(self._tokenizer.decode(buffer), ids))
        elif buffer:
            self._parts.append(Text(self._tokenizer.decode(buffer), ids))

    def _plain(self, ids: Sequence[int]) -> tuple[int, ...] | None:
        """The ids, when a rendering may use them as they are: without control tokens."""
        return None if any(map(self._tokenizer.is_control, ids)) else tuple(ids)


class _Council:
    """A council whose lanes are open.

    begin: where in the thought it begins.
    floor: who speaks next.
    lanes: what each voice said, and how its lane ended.
    ends: how tokens end a lane.
    stray: positions of tokens that have no place in a lane.
    """

    def __init__(self, tokens: CouncilTokens, voices: int, begin: int) -> None:
        self.tokens, self.begin = tokens, begin
        self.floor = Floor(tokens, list(range(voices)))
        self.lanes: list[tuple[list[int], LaneEnd]] = [([], LaneEnd.CUT) for _ in range(voices)]
        self.ends = {tokens.leave: LaneEnd.LEFT, tokens.join: LaneEnd.JOINED}
        self.stray: list[int] = []

    def read(self, id: int) -> None:
        voice = self.floor.voice
        said, end = self.lanes[voice]
        if id in self.ends:
            end = self.ends[id]
        else:
            said.append(id)
        self.lanes[voice] = said, end
        self.floor.read(id)
