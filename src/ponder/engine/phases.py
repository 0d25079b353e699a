"""Thinking under control: the phase of each token, and what limits and grammars accept next.

The rules, in order of precedence, while a sequence thinks: at the last THINK token allowed the close is forced; a
continuation that has begun is finished; below the floor a wish to close becomes the continuation; where the model's
confidence stays low the close is forced.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from functools import cached_property

from ponder.engine.council import Councils
from ponder.engine.repeats import EVERY, TIMES, repeats_itself
from ponder.engine.sequence import OpenCouncil, Sequence
from ponder.kernels.sampling import NO_RULE, Pick, Rule
from ponder.types import Phase, PhaseTokens, PonderError, StopReason


class Phases:
    """The phase rules of one dialogue format.

    window: tokens that one context may hold.
    """

    def __init__(self, tokens: PhaseTokens, window: int, vocab_size: int) -> None:
        self.tokens = tokens
        self.councils = Councils(tokens, vocab_size)
        self._window = window
        self._no_open = _ban(tokens.think_open)
        self._close = Rule(forced=tokens.think_close)
        # While a sequence thinks: without councils, where one may begin, and where none may.
        spawn, *inside = self.councils.control or (None,)
        self._thinking = tuple(self._rules(banned) for banned in ((), tuple(inside), (spawn, *inside)))

    def _rules(self, others: tuple[int | None, ...]) -> tuple[tuple[Rule, Rule, Rule], ...]:
        """Outside and inside a state: without further demands, under the floor, and with a constraint.

        others: banned besides.
        """
        banned = [
            tuple(id for id in (mark, *others) if id is not None) for mark in (self.tokens.fold, self.tokens.state_open)
        ]
        plain, floor = [Rule(banned=ids) if ids else NO_RULE for ids in banned], map(self._under_floor, banned)
        # Where a constraint governs the answer, the turn cannot end before there is one.
        constrained = [Rule(banned=(*ids, *self.tokens.end)) for ids in banned]
        return tuple(zip(plain, floor, constrained, strict=True))

    @cached_property
    def control(self) -> frozenset[int]:
        """The ids of the format, which no penalty touches: a turn must be able to end, and thinking to close."""
        tokens = self.tokens
        thinking = (tokens.think_open, tokens.think_close, tokens.state_open, tokens.fold)
        marks = (*thinking, tokens.call_open, tokens.call_close, *self.councils.control, *tokens.end)
        return frozenset(id for id in marks if id is not None)

    def _under_floor(self, banned: tuple[int, ...]) -> Rule:
        tokens = self.tokens
        closing = tokens.end if tokens.think_close is None else (tokens.think_close, *tokens.end)
        if tokens.continuation:
            return Rule(banned=banned, closing=closing, instead=tokens.continuation[0])
        return Rule(banned=(*closing, *banned))

    def think_at(self, prompt_ids: Ids, start: Phase) -> int:
        """Where in a sequence with this prompt the present thinking begins. A prompt may end inside a thought, of which
        a fold keeps nothing but the state."""
        thought = len(prompt_ids)
        if start is not Phase.THINK or self.tokens.fold is None:
            return thought
        for place in reversed(range(thought)):
            if prompt_ids[place] == self.tokens.think_open:
                return place + 1
            if prompt_ids[place] == self.tokens.think_close:
                break
        return thought

    def rule(self, sequence: Sequence) -> Rule:
        """The demand on the next token of `sequence`."""
        if sequence.phase is Phase.THINK:
            return self._thinking_rule(sequence)
        if sequence.phase is Phase.ANSWER:
            if sequence.pending:
                return Rule(forced=sequence.pending[0])
            left = self.think_left(sequence)
            if left is not None and left < 2:
                return self._no_open
        return NO_RULE

    def _thinking_rule(self, sequence: Sequence) -> Rule:
        if self.think_left(sequence) == 1:
            sequence.pending.clear()
            return self._close
        if sequence.pending:
            return Rule(forced=sequence.pending[0])
        banned = self.councils.banned(sequence, self.think_left(sequence))
        plain, floor, constrained = self._thinking[banned][sequence.state_at is not None]
        if sequence.num_think + 1 < sequence.params.thinking.floor:
            return floor
        if self._is_lost(sequence):
            return self._close
        return plain if sequence.constraint is None else constrained

    def _is_lost(self, sequence: Sequence) -> bool:
        stop, confidences = sequence.params.thinking.confidence, sequence.confidences
        if stop is None or self.tokens.think_close is None or len(confidences) < stop.window:
            return False
        return sum(confidences) / stop.window < stop.threshold

    def constrain(self, sequence: Sequence) -> None:
        """Before the step: give the picks of a sequence that is ready what may come next, by phase, bias and grammar.
        An error of its grammar is kept in `error`."""
        if sequence.council is not None:
            self.councils.constrain(sequence, self.think_left(sequence), self._is_lost(sequence))
            return
        rule, allowed_V = self.rule(sequence), None
        if sequence.constraint is not None and sequence.phase is not Phase.THINK and rule.forced is None:
            try:
                allowed_V = sequence.constraint.allowed()
            except PonderError as error:
                sequence.error = error
        sequence.pick.constrain(sequence.num_generated, rule, allowed_V)

    def follow(self, sequence: Sequence, pick: Pick) -> None:
        """After the step: move the forced ids, the grammar and the confidence on. The phase is still that of before.

        pick: of the sequence, or of one of its voices.
        """
        if pick.penalises and pick.id not in self.control:
            for each in (sequence.pick, *sequence.others):
                each.said(pick.id)
        if pick.put_in:
            self._put_in(sequence, pick.rule)
        if pick.allowed_V is not None and sequence.constraint is not None and sequence.phase is not Phase.THINK:
            try:
                sequence.constraint.advance(pick.id)
            except PonderError as error:
                sequence.error = error
        stop = sequence.params.thinking.confidence
        if stop is not None and sequence.phase is Phase.THINK:
            sequence.confidences.append(pick.confidence)
            if len(sequence.confidences) > stop.window:
                sequence.confidences.popleft()

    def _put_in(self, sequence: Sequence, rule: Rule) -> None:
        """An id was forced, or took the place of what was sampled, by this rule."""
        if rule.forced is None:
            sequence.pending.extend(self.tokens.continuation[1:])
        elif sequence.pending:
            sequence.pending.popleft()

    def advance(self, sequence: Sequence, id: int) -> Phase:
        """The phase that token `id` belongs to; the sequence moves on to the phase of the token after it."""
        phase, tokens = sequence.phase, self.tokens
        if sequence.council is not None:
            self.councils.advance(sequence, id)
        elif phase is Phase.THINK:
            if id == tokens.think_close:
                sequence.phase = Phase.ANSWER
                sequence.state_at = None  # a state that was not folded is a thought like any other
                sequence.confidences.clear()
                if sequence.constraint is not None:
                    sequence.pending.extend(tokens.lead)
            elif id == tokens.state_open and sequence.state_at is None:
                sequence.state_at = len(sequence.tokens)
            elif self.councils.spawns(sequence, id):
                sequence.council = OpenCouncil()
        elif phase is Phase.TOOL:
            if id == tokens.call_close:
                sequence.phase = Phase.ANSWER
        elif id == tokens.think_open:
            phase = sequence.phase = Phase.THINK
            sequence.think_at = len(sequence.tokens) + 1
        elif id == tokens.call_open:
            phase = sequence.phase = Phase.TOOL
        return phase

    def ending(self, sequence: Sequence, id: int) -> StopReason | None:
        """Why `id`, its last token, ends the sequence; None: it goes on."""
        if id in self.tokens.end:
            return StopReason.END
        if id in sequence.params.stop_ids:
            return StopReason.STOP
        if sequence.num_generated == sequence.limit:
            return StopReason.LENGTH
        if sequence.params.repeats and self._repeats(sequence, id):
            return StopReason.REPEATED
        full = len(sequence.tokens) == self._window and not self.folds(sequence, id)
        return StopReason.LENGTH if full else None

    def folds(self, sequence: Sequence, id: int) -> bool:
        """Whether `id`, its last token, closes a state."""
        return sequence.state_at is not None and id == self.tokens.fold

    def _repeats(self, sequence: Sequence, id: int) -> bool:
        """Whether the sequence goes round in circles. A state is looked at when it is folded."""
        if self.folds(sequence, id):
            state = tuple(sequence.tokens[sequence.state_at :])
            sequence.states[state] += 1
            return sequence.states[state] == TIMES
        looks = sequence.num_generated % EVERY == 0
        return looks and repeats_itself(sequence.tokens, sequence.num_prompt, sequence.params.repeats)

    def think_left(self, sequence: Sequence) -> int | None:
        """How many THINK tokens may still come, the close included. None: no limit.

        Thinking may not use the answer room: it ends where that many tokens of the limit and of the window are left.
        """
        params = sequence.params
        cap, room = params.thinking.cap, params.answer_room
        left = None if cap is None else cap - sequence.num_think
        if room:
            free = min(sequence.limit - sequence.num_generated, self._window - len(sequence.tokens)) - room
            left = free if left is None else min(left, free)
        return left


def _ban(id: int | None) -> Rule:
    return NO_RULE if id is None else Rule(banned=(id,))
