"""Several voices in one context: which slot of a council is whose, from the ids alone.

A council stands within thinking: the token that spawns it, the number V of its voices, then what they say, step by
step. Each step holds one token of each voice that still speaks, in the order of the voices, in neighbouring slots: with
all V of them, token t of voice v stands V t + v slots after the first. The first step opens the lanes. A voice that
leaves has no slot in later steps. The council ends with the step in which a voice joins or the last one leaves, and
what follows is one voice again.

A slot is a position like any other, and attention is causal over slots: a voice hears all earlier steps of all voices
and, in its own step, the voices before it. Only the label of a slot differs: it is the next token of the same voice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ponder.types import CouncilTokens, FormatError


@dataclass(slots=True)
class Floor:
    """Who speaks in a council whose lanes are to be opened, or are open. `read` follows it token by token.

    speaking: the voices of the present step, in order.
    before: those of the step before it; empty while the lanes are opened.
    said: how many of `speaking` have said their token of this step.
    staying: those that have, and go on.
    joined: whether one of them ended the council.
    over: the council has ended.
    """

    tokens: CouncilTokens
    speaking: list[int]
    before: list[int] = field(default_factory=list)
    said: int = 0
    staying: list[int] = field(default_factory=list)
    joined: bool = False
    over: bool = False

    @property
    def voice(self) -> int:
        """Whose the next token is."""
        return self.speaking[self.said]

    def read(self, id: int) -> None:
        """Token `id` came next."""
        if id in self.tokens.closing:
            self.over = True
            return
        if id != self.tokens.leave:
            self.staying.append(self.voice)
        self.joined |= id == self.tokens.join
        self.said += 1
        if self.said == len(self.speaking):
            self.over = self.joined or not self.staying
            self.before, self.speaking, self.staying, self.said = self.speaking, self.staying, [], 0

    def copy(self) -> Floor:
        return replace(self, speaking=list(self.speaking), staying=list(self.staying))


def opened(ids: Sequence[int], tokens: CouncilTokens) -> int:
    """How many voices a council has whose lanes have just been opened at the end of `ids`. 0: none has."""
    count = 0
    while count < len(ids) and ids[-1 - count] == tokens.address:
        count += 1
    if not 0 < count <= len(tokens.numbers) or len(ids) < count + 2:
        return 0
    return count if (ids[-count - 2], ids[-count - 1]) == (tokens.spawn, tokens.numbers[count - 1]) else 0


def voices_of(ids: Sequence[int], tokens: CouncilTokens) -> list[int | None]:
    """Whose each slot of a context is, its lane's opening included. None: outside of councils.

    A council is one once all its lanes are open; before that its tokens are like any others.
    """
    return followed(ids, tokens)[0]


def followed(ids: Sequence[int], tokens: CouncilTokens) -> tuple[list[int | None], Floor | None]:
    """`voices_of`, and who speaks in the council at whose inside `ids` end. None: they end outside."""
    voices: list[int | None] = []
    floor: Floor | None = None
    for at, id in enumerate(ids):
        voices.append(None)
        if floor is not None and id not in tokens.closing:
            voices[at] = floor.voice
        if floor is not None:
            floor.read(id)
            floor = None if floor.over else floor
        elif id == tokens.address:
            most = len(tokens.numbers) + 2
            if count := opened(ids[max(0, at + 1 - most) : at + 1], tokens):
                voices[at + 1 - count :] = range(count)
                floor = Floor(tokens, list(range(count)), before=list(range(count)))
    return voices, floor


def targets_of(voices: Sequence[int | None]) -> list[int]:
    """For each slot, the slot of the token that is to be predicted from it. -1: there is none.

    voices: as `voices_of` gives them.

    Outside of councils it is the next slot, and for a voice its own next one. From a council's last slot it is the slot
    after the council. The tokens that open the lanes are put in; only the first is a target, of the number before it.
    """
    targets = [-1] * len(voices)
    last: dict[int, int] = {}
    for at, voice in enumerate(voices):
        if voice is None:
            last.clear()
            if at:
                targets[at - 1] = at
            continue
        if voice in last:
            targets[last[voice]] = at
        elif not last and at:
            targets[at - 1] = at
        last[voice] = at
    return targets


def interleave(lanes: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """(ids, voices): what each voice says, from the opening of its lane on, in the order of slots.

    Lane v holds a token for each step in which voice v speaks: the first ones, as many as it has.
    """
    ids: list[int] = []
    voices: list[int] = []
    for step in range(max(map(len, lanes), default=0)):
        for voice, lane in enumerate(lanes):
            if step < len(lane):
                ids.append(lane[step])
                voices.append(voice)
    return ids, voices


def separate(ids: Sequence[int], voices: Sequence[int | None]) -> list[list[int]]:
    """What each voice says: the inverse of `interleave`. Slots outside of councils are left out."""
    lanes: list[list[int]] = [[] for _ in range(1 + max((voice for voice in voices if voice is not None), default=-1))]
    for id, voice in zip(ids, voices, strict=True):
        if voice is not None:
            lanes[voice].append(id)
    return lanes


def spawned(lanes: Sequence[Sequence[int]], tokens: CouncilTokens) -> list[int]:
    """A whole council: the token that spawns it, the number, and the lanes, each from its opening to its end.

    Raises FormatError for lanes that no council can have: too many, or not in step with each other.
    """
    if not 1 <= len(lanes) <= len(tokens.numbers):
        raise FormatError(f"a council has from 1 to {len(tokens.numbers)} voices (got {len(lanes)})")
    ids, voices = interleave(lanes)
    whole = [tokens.spawn, tokens.numbers[len(lanes) - 1], *ids]
    if voices_of(whole, tokens)[2:] != voices:
        lengths = ", ".join(str(len(lane)) for lane in lanes)
        raise FormatError(
            f"the lanes of a council are out of step (tokens of each, ends included: {lengths}): a voice speaks until "
            "it leaves or, in the last step, joins, and one that does neither has a token for every step"
        )
    return whole
