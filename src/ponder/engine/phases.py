"""Thinking under control: which phase a token belongs to, and what the limits demand of the next one.

The rules, in order of precedence, while a sequence thinks: at the last THINK token allowed the close is forced; a
continuation that has begun is finished; below the floor a wish to close becomes the continuation.
"""

from __future__ import annotations

from typing import NamedTuple

from ponder.engine.sequence import Sequence
from ponder.types import Phase, PhaseTokens


class Rule(NamedTuple):
    """What the limits demand of one token.

    forced: this id, whatever the model would say. banned: ids that may not be sampled.
    closing, instead: when one of `closing` is sampled, `instead` takes its place.
    """

    forced: int | None = None
    banned: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    instead: int | None = None


class Phases:
    """The phase rules of one dialogue format."""

    def __init__(self, tokens: PhaseTokens) -> None:
        self.tokens = tokens
        close = () if tokens.think_close is None else (tokens.think_close,)
        self._no_open = Rule(banned=() if tokens.think_open is None else (tokens.think_open,))
        self._closing = (*close, *tokens.end)
        self._no_close = Rule(banned=self._closing)

    def rule(self, sequence: Sequence) -> Rule | None:
        """The demand on the next token of `sequence`; None: none."""
        if sequence.phase is Phase.THINK:
            return self._thinking_rule(sequence)
        if sequence.phase is Phase.ANSWER:
            left = think_left(sequence)
            if left is not None and left < 2:
                return self._no_open
        return None

    def _thinking_rule(self, sequence: Sequence) -> Rule | None:
        if think_left(sequence) == 1:
            sequence.pending.clear()
            return Rule(forced=self.tokens.think_close)
        if sequence.pending:
            return Rule(forced=sequence.pending[0])
        if sequence.num_think + 1 < sequence.params.thinking.floor:
            if not self.tokens.continuation:
                return self._no_close
            return Rule(closing=self._closing, instead=self.tokens.continuation[0])
        return None

    def resolve(self, sequence: Sequence, rule: Rule, sampled: int) -> int | None:
        """The id that the rule puts in place of `sampled`, or None when what was sampled stands."""
        if rule.forced is not None:
            if sequence.pending:
                sequence.pending.popleft()
            return rule.forced
        if sampled in rule.closing:
            sequence.pending.extend(self.tokens.continuation[1:])
            return rule.instead
        return None

    def advance(self, sequence: Sequence, id: int) -> Phase:
        """The phase that token `id` belongs to; the sequence moves on to the phase of the token after it."""
        phase, tokens = sequence.phase, self.tokens
        if phase is Phase.THINK:
            if id == tokens.think_close:
                sequence.phase = Phase.ANSWER
        elif phase is Phase.TOOL:
            if id == tokens.call_close:
                sequence.phase = Phase.ANSWER
        elif id == tokens.think_open:
            phase = sequence.phase = Phase.THINK
        elif id == tokens.call_open:
            phase = sequence.phase = Phase.TOOL
        return phase


def think_left(sequence: Sequence) -> int | None:
    """How many THINK tokens may still come, the close included. None: no limit.

    Thinking may not eat into the answer room: it ends where `limit - answer_room` tokens are generated.
    """
    params = sequence.params
    cap, room = params.thinking.cap, params.answer_room
    if room:
        left = sequence.limit - room - sequence.num_generated
        return left if cap is None else min(left, cap - sequence.num_think)
    return None if cap is None else cap - sequence.num_think
