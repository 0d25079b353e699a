"""What a sequence's next token is picked by, before the step, and what follows from it, behind the step.

Its phase's rules, its bias and its grammar decide what may come; the pick is made by `kernels` or by `sampling`.
"""

from __future__ import annotations

from ponder.engine.phases import Phases
from ponder.engine.sequence import Sequence
from ponder.types import Phase, PonderError


def ask(sequence: Sequence, phases: Phases) -> None:
    """Tell the pick of a sequence that is ready what may come. An error of its grammar is kept in `error`."""
    rule, allowed_V = phases.rule(sequence), None
    if sequence.constraint is not None and sequence.phase is not Phase.THINK and rule.forced is None:
        try:
            allowed_V = sequence.constraint.allowed()
        except PonderError as error:
            sequence.error = error
    sequence.pick.ask(sequence.num_generated, rule, allowed_V)


def heed(sequence: Sequence, phases: Phases) -> None:
    """Follow what was picked: what is put in next, the grammar, the confidence. The phase is still that of before."""
    pick = sequence.pick
    if pick.put_in:
        phases.put_in(sequence, pick.rule)
    if pick.allowed_V is not None:
        assert sequence.constraint is not None
        try:
            sequence.constraint.advance(pick.id)
        except PonderError as error:
            sequence.error = error
    stop = sequence.params.thinking.confidence
    if stop is not None and sequence.phase is Phase.THINK:
        sequence.confidences.append(pick.confidence)
        if len(sequence.confidences) > stop.window:
            sequence.confidences.popleft()
