"""What a strategy is: `async (question, sampler, budget) -> Answer`. Strategies are interchangeable, so they nest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ponder.dialogue.messages import Conversation, ReasoningPolicy
from ponder.sampler.protocol import Grammar, NextTurn, Sampler, Truncation
from ponder.tasks.protocol import Grade
from ponder.types import Answer, Budget, InvalidRequest

Verifier = Callable[[str], Grade]
Same = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked. It never holds the gold answer.

    verifier: checks an answer, for strategies that choose by a check. same: whether two answers agree, for those that
    vote; None: the same text but for white space, or the same number. policy, truncation: how the conversation becomes
    a prompt. grammar: what every visible answer must match. next_turn: whether the conversation goes on behind the
    answer, for strategies whose answer is one sample.
    """

    conversation: Conversation
    verifier: Verifier | None = None
    same: Same | None = None
    policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN
    truncation: Truncation = Truncation.DISABLED
    grammar: Grammar | None = None
    next_turn: NextTurn = NextTurn.NONE


@runtime_checkable
class Strategy(Protocol):
    """Answers a question within a budget.

    Budget: `tokens` bounds all generated tokens (thinking and answers, every sample), `samples` the completions,
    `seconds` the wall time. Answers are anytime: out of time or cancelled, the best so far comes back, and its trace
    says `"cut": "seconds" | "cancelled"`. Where there is nothing yet, a cancellation stays a cancellation.
    """

    @property
    def name(self) -> str: ...

    async def __call__(self, question: Question, sampler: Sampler, budget: Budget) -> Answer: ...


def check_budget(budget: Budget) -> None:
    """Raises InvalidRequest on a budget that allows nothing."""
    for field in ("tokens", "samples", "seconds"):
        value = getattr(budget, field)
        if value is not None and value <= 0:
            raise InvalidRequest(f"a budget of {value} {field} allows nothing: give more, or None for no limit")
