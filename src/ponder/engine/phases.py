"""Thinking under control: which phase a token belongs to, and what the limits demand of the next one.

The rules, in order of precedence, while a sequence thinks: at the last THINK token allowed the close is forced; a
continuation that has begun is finished; below the floor a wish to close becomes the continuation; where the model's
confidence stays low the close is forced.
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
    """The phase rules of one dialogue format. window: tokens that one context may hold."""

    def __init__(self, tokens: PhaseTokens, window: int) -> None:
        self.tokens = tokens
        self._window = window
        close = () if tokens.think_close is None else (tokens.think_close,)
        self._no_open = Rule(banned=_present(tokens.think_open))
        self._closing = (*close, *tokens.end)
        self._no_state = _present(tokens.state_open)
        self._no_fold = _present(tokens.fold)

    def rule(self, sequence: Sequence) -> Rule | None:
        """The demand on the next token of `sequence`; None: none."""
        if sequence.phase is Phase.THINK:
            return self._thinking_rule(sequence)
        if sequence.phase is Phase.ANSWER:
            if sequence.pending:
                return Rule(forced=sequence.pending[0])
            left = self.think_left(sequence)
            if left is not None and left < 2:
                return self._no_open
        return None

    def _thinking_rule(self, sequence: Sequence) -> Rule | None:
        if self.think_left(sequence) == 1:
            sequence.pending.clear()
            return Rule(forced=self.tokens.think_close)
        if sequence.pending:
            return Rule(forced=sequence.pending[0])
        misplaced = self._no_fold if sequence.state_at is None else self._no_state
        if sequence.num_think + 1 < sequence.params.thinking.floor:
            if not self.tokens.continuation:
                return Rule(banned=(*self._closing, *misplaced))
            return Rule(banned=misplaced, closing=self._closing, instead=self.tokens.continuation[0])
        if self._is_lost(sequence):
            return Rule(forced=self.tokens.think_close)
        return Rule(banned=misplaced) if misplaced else None

    def _is_lost(self, sequence: Sequence) -> bool:
        stop, confidences = sequence.params.thinking.confidence, sequence.confidences
        if stop is None or self.tokens.think_close is None or len(confidences) < stop.window:
            return False
        return sum(confidences) / stop.window < stop.threshold

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
                sequence.state_at = None  # a state that was not folded is a thought like any other
                sequence.confidences.clear()
                if sequence.constraint is not None:
                    sequence.pending.extend(tokens.lead)
            elif id == tokens.state_open and sequence.state_at is None:
                sequence.state_at = len(sequence.tokens)
        elif phase is Phase.TOOL:
            if id == tokens.call_close:
                sequence.phase = Phase.ANSWER
        elif id == tokens.think_open:
            phase = sequence.phase = Phase.THINK
            sequence.think_at = len(sequence.tokens) + 1
        elif id == tokens.call_open:
            phase = sequence.phase = Phase.TOOL
        return phase

    def think_left(self, sequence: Sequence) -> int | None:
        """How many THINK tokens may still come, the close included. None: no limit.

        Thinking may not eat into the answer room: it ends where so many tokens of the limit and of the window are left.
        """
        params = sequence.params
        cap, room = params.thinking.cap, params.answer_room
        left = None if cap is None else cap - sequence.num_think
        if room:
            free = min(sequence.limit - sequence.num_generated, self._window - len(sequence.tokens)) - room
            left = free if left is None else min(left, free)
        return left


def _present(id: int | None) -> tuple[int, ...]:
    return () if id is None else (id,)
