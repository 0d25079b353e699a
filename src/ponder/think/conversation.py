"""A dialogue of several turns, with an account of what each turn kept, discarded and found in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ponder.dialogue.messages import Message, ReasoningPolicy
from ponder.sampler.protocol import NextTurn, Truncation
from ponder.types import Answer

if TYPE_CHECKING:
    from ponder.think.reasoner import Reasoner


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAccount:
    """One turn in tokens.

    prompt_tokens: what the turn was given, earlier turns included; cached_tokens of these were not computed again.
    reasoning_tokens: thought in this turn; discarded when the next one begins, unless the policy is ALL_TURNS.
    answer_tokens: the visible answer; carried on to the next turn.
    dropped_messages: left out of the prompt because the window is full.
    """

    turn: int
    prompt_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    dropped_messages: int
    reasoning_discarded: bool


class Conversation:
    """Made by `Reasoner.conversation`. `say` adds a turn; a turn that fails leaves the conversation as it was."""

    def __init__(
        self,
        reasoner: Reasoner,
        *,
        system: str | None = None,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        truncation: Truncation = Truncation.DISABLED,
        settings: dict[str, Any],
    ) -> None:
        self.messages: list[Message] = [] if system is None else [Message.system(system)]
        self.policy = policy
        self.truncation = truncation
        self._reasoner = reasoner
        self._settings = settings
        self._turns: list[Answer] = []

    def say(self, text: str, **settings: Any) -> Answer:
        """Ask the next thing. `settings` are those of `Reasoner.ask`, for this turn."""
        answer = self._reasoner.ask(self._with(text), **self._call(settings))
        self.record(text, answer)
        return answer

    async def say_async(self, text: str, **settings: Any) -> Answer:
        """`say`, awaited."""
        answer = await self._reasoner.ask_async(self._with(text), **self._call(settings))
        self.record(text, answer)
        return answer

    def stream(self, text: str, **settings: Any) -> Any:
        """`say`, streamed: see `Reasoner.stream`. The turn counts once the stream has ended."""
        return self._reasoner.stream(
            self._with(text), **self._call(settings), on_answer=lambda answer: self.record(text, answer)
        )

    def record(self, text: str, answer: Answer) -> None:
        """Add a turn that was answered elsewhere."""
        message = answer.trace.get("message", Message.assistant(answer.text, answer.reasoning))
        self.messages = [*self._with(text), cast(Message, message)]
        self._turns.append(answer)

    @property
    def account(self) -> tuple[TurnAccount, ...]:
        """The turns so far, in tokens."""
        keeps = self.policy is ReasoningPolicy.ALL_TURNS
        return tuple(
            TurnAccount(
                turn=number,
                prompt_tokens=answer.usage.prompt_tokens,
                cached_tokens=answer.usage.cached_tokens,
                reasoning_tokens=answer.usage.reasoning_tokens,
                answer_tokens=answer.usage.completion_tokens - answer.usage.reasoning_tokens,
                dropped_messages=cast(int, answer.trace.get("dropped_turns", 0)),
                reasoning_discarded=not keeps and number < len(self._turns),
            )
            for number, answer in enumerate(self._turns, 1)
        )

    def _with(self, text: str) -> list[Message]:
        return [*self.messages, Message.user(text)]

    def _call(self, settings: dict[str, Any]) -> dict[str, Any]:
        ours = {"policy": self.policy, "truncation": self.truncation, "next_turn": NextTurn.VERBATIM}
        return {**ours, **self._settings, **settings}
