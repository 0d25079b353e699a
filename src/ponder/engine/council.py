"""Councils: several voices of one sequence, each with its own row and pick in every step (`ponder.voices`).

The rules of a lane: its voice may say what belongs into a thought, leave or join, and nothing else. Where the limits on
thinking leave no further step, the first voice that speaks is made to join, so that thinking can be closed after it.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ponder.engine.sequence import OpenCouncil, Sequence, another_pick
from ponder.kernels.sampling import NO_RULE, Pick, Rule
from ponder.types import CouncilTokens, InvalidRequest, PhaseTokens, ThinkingLimits
from ponder.voices import Floor, followed


class Councils:
    """The councils of one format.

    vocab_size: of the model.
    """

    def __init__(self, tokens: PhaseTokens, vocab_size: int) -> None:
        self._tokens = tokens.council
        self._vocab_size = vocab_size
        self._numbers: dict[int, Tensor] = {}

    @property
    def control(self) -> tuple[int, ...]:
        """The ids that structure a council, without the numbers."""
        tokens = self._tokens
        return () if tokens is None else (tokens.spawn, tokens.address, tokens.leave, tokens.join)

    def voices(self, limits: ThinkingLimits, taught: int) -> int:
        """How many voices a council may have; 1: there are no councils. taught: how many the model thinks in."""
        most = 1 if self._tokens is None else len(self._tokens.numbers)
        return max(1, min(most, taught)) if limits.voices is None else limits.voices

    def banned(self, sequence: Sequence, left: int | None) -> int:
        """What one voice that thinks may not say of `control`: 0: nothing is banned, 1: what stands inside councils,
        2: all of it.

        left: THINK tokens that may still come.
        """
        if self._tokens is None or sequence.voices < 2:
            return 0
        room = left is None or _most_voices(left - 1) >= 2
        return 1 if room and sequence.state_at is None else 2

    def spawns(self, sequence: Sequence, id: int) -> bool:
        """Whether `id`, said in a thought, opens a council."""
        return self._tokens is not None and id == self._tokens.spawn and self.banned(sequence, None) == 1

    def begin(self, sequence: Sequence, left: int | None) -> None:
        """The prompt of a sequence that thinks may end inside a council.

        left: THINK tokens that may come.
        Raises InvalidRequest for one that the limits do not allow.
        """
        tokens, prompt = self._tokens, sequence.tokens
        if tokens is None or tokens.spawn not in prompt:
            return
        _, floor = followed(prompt, tokens)
        if floor is None:
            floor = _numbered(prompt, tokens)
            if floor is None:
                if prompt[-1] == tokens.spawn and sequence.voices > 1:
                    sequence.council = OpenCouncil()
                return
        _check_prompt_council(floor, sequence.voices, left)
        sequence.council = OpenCouncil(floor)
        self._seat(sequence, len(floor.speaking))
        if floor.before:
            sequence.width = len(floor.before)
            sequence.sources = _sources(floor)

    def constrain(self, sequence: Sequence, left: int | None, lost: bool) -> None:
        """What may come next, into the picks of a sequence that is in a council.

        left: THINK tokens that may still come.
        lost: thinking is to be closed.
        """
        council, tokens, index = sequence.council, self._tokens, sequence.num_generated
        assert council is not None
        assert tokens is not None
        floor = council.floor
        if floor is None:
            most = min(sequence.voices, len(tokens.numbers))
            if left is not None:
                most = max(1, min(most, _most_voices(left)))
            sequence.pick.constrain(index, NO_RULE, self._allowed(most, tokens))
        elif not floor.before:
            sequence.pick.constrain(index, self._open)
        else:
            last = left is not None and left <= 2 * len(floor.speaking)
            for at, pick in enumerate(sequence.picks):
                pick.constrain(index + at, self._join if at == 0 and (last or lost) else self._lane)

    def said(self, sequence: Sequence) -> list[tuple[Pick, int | None]]:
        """The picks of a step, in the order of their slots, each with its voice. One pick opens all lanes."""
        council = sequence.council
        if council is None or council.floor is None:
            return [(sequence.pick, None)]
        floor = council.floor
        if not floor.before:
            return [(sequence.pick, voice) for voice in floor.speaking]
        return list(zip(sequence.picks, floor.speaking, strict=True))

    def advance(self, sequence: Sequence, id: int) -> None:
        """Token `id` was said while `sequence` is in a council."""
        council, tokens = sequence.council, self._tokens
        assert council is not None
        assert tokens is not None
        if council.floor is None:
            voices = 1 + tokens.numbers.index(id)
            council.floor = Floor(tokens, list(range(voices)))
            self._seat(sequence, voices)
            return
        council.floor.read(id)
        if council.floor.over:
            sequence.council = None

    def stepped(self, sequence: Sequence, width: int) -> None:
        """A step of `width` tokens is over: which rows the next picks are made from."""
        council = sequence.council
        sequence.width = width
        floor = None if council is None else council.floor
        sequence.sources = [0] if floor is None or not floor.before else _sources(floor)

    def _seat(self, sequence: Sequence, voices: int) -> None:
        """A pick for each voice, with the random numbers of the sequence: each draws by its slot."""
        wanted = voices - 1 - len(sequence.others)
        sequence.others += [another_pick(sequence, sequence.pick.seed) for _ in range(wanted)]

    def _allowed(self, most: int, tokens: CouncilTokens) -> Tensor:
        """allowed_V: the numbers up to `most`."""
        if most not in self._numbers:
            allowed_V = torch.zeros(self._vocab_size, dtype=torch.bool)
            allowed_V[list(tokens.numbers[:most])] = True
            self._numbers[most] = allowed_V
        return self._numbers[most]

    @cached_property
    def _open(self) -> Rule:
        assert self._tokens is not None
        return Rule(forced=self._tokens.address)

    @cached_property
    def _join(self) -> Rule:
        assert self._tokens is not None
        return Rule(forced=self._tokens.join)

    @cached_property
    def _lane(self) -> Rule:
        assert self._tokens is not None
        return Rule(banned=self._tokens.banned)


def _numbered(prompt: list[int], tokens: CouncilTokens) -> Floor | None:
    """The council that a prompt ends in whose lanes are still to be opened; None where it does not end so."""
    if len(prompt) < 2 or prompt[-2] != tokens.spawn or prompt[-1] not in tokens.numbers:
        return None
    return Floor(tokens, list(range(1 + tokens.numbers.index(prompt[-1]))))


def _sources(floor: Floor) -> list[int]:
    """How far before the last token of a step those stand whose voices go on."""
    return [len(floor.before) - 1 - floor.before.index(voice) for voice in floor.speaking]


def _most_voices(left: int) -> int:
    """How many voices fit where the number is to come and `left` THINK tokens may: itself, the openings, a step in
    which one voice joins, and the close."""
    return (left - 2) // 2


def _check_prompt_council(floor: Floor, most: int, left: int | None) -> None:
    """Raises InvalidRequest."""
    voices = len(floor.speaking)
    if voices > most:
        raise InvalidRequest(
            f"the prompt ends in a council of {voices} voices, but thinking.voices allows {most}: allow as many"
        )
    if floor.said:
        raise InvalidRequest(
            f"the prompt ends inside a step of a council ({floor.said} of {voices} voices have spoken): cut it before"
        )
    needed = voices + 1 + (0 if floor.before else voices)
    if left is not None and left < needed:
        raise InvalidRequest(
            f"the prompt ends in a council of {voices} voices, which needs {needed} THINK tokens to end, but {left} "
            "are allowed: raise thinking.cap, or lower answer_room"
        )
