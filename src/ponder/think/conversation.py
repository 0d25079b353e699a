"""A dialogue of several turns, with an account of what each turn kept, discarded and found in the cache."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Unpack

from ponder.dialogue.messages import Message, ReasoningPolicy
from ponder.sampler.protocol import NextTurn, Truncation
from ponder.think.ask import Asked
from ponder.think.events import Answer
from ponder.think.memory.layer import remembering
from ponder.think.memory.memory import Remembers
from ponder.think.registry import parse_strategy
from ponder.think.strategy import RunSettings
from ponder.think.streaming import AnswerStream
from ponder.types import InvalidRequest

IN_VIEW = 2  # turns that the window still shows, so that nothing of them is recalled


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


class Asking(Protocol):
    """What a conversation asks: a `Reasoner`."""

    def ask(self, asked: Asked, **settings: Unpack[RunSettings]) -> Answer: ...

    async def ask_async(self, asked: Asked, **settings: Unpack[RunSettings]) -> Answer: ...

    def stream(
        self, asked: Asked, *, on_answer: Callable[[Answer], None] | None = None, **settings: Unpack[RunSettings]
    ) -> AnswerStream: ...


class Conversation:
    """Made by `Reasoner.conversation`. `say` adds a turn; a turn that fails leaves the conversation as it was."""

    def __init__(
        self,
        reasoner: Asking,
        *,
        system: str | None = None,
        memory: Remembers | None = None,
        user: str | None = None,
        settings: RunSettings,
    ) -> None:
        if (memory is None) != (user is None):
            raise InvalidRequest("memory and user go together: say whose notes the memory is asked for")
        self._memory = None if memory is None or user is None else (memory, user)
        self._name = secrets.token_hex(4)
        if memory is not None:
            settings = {"truncation": Truncation.AUTO, **settings}
        self.messages: list[Message] = [] if system is None else [Message.system(system)]
        self._reasoner = reasoner
        self._settings: RunSettings = {"next_turn": NextTurn.VERBATIM, **settings}
        self._turns: list[Answer] = []

    def say(self, text: str, **settings: Unpack[RunSettings]) -> Answer:
        """Ask the next thing. `settings` are those of `Reasoner.ask`, for this turn."""
        answer = self._reasoner.ask(self._with(text), **self._call(settings))
        self.record(text, answer)
        return answer

    async def say_async(self, text: str, **settings: Unpack[RunSettings]) -> Answer:
        """`say`, awaited."""
        answer = await self._reasoner.ask_async(self._with(text), **self._call(settings))
        self.record(text, answer)
        return answer

    def stream(self, text: str, **settings: Unpack[RunSettings]) -> AnswerStream:
        """`say`, streamed: see `Reasoner.stream`. The turn counts once the stream has ended."""
        return self._reasoner.stream(
            self._with(text), on_answer=lambda answer: self.record(text, answer), **self._call(settings)
        )

    def record(self, text: str, answer: Answer) -> None:
        """Add a turn that was answered elsewhere."""
        self.messages = [*self._with(text), answer.message]
        self._turns.append(answer)

    @property
    def account(self) -> tuple[TurnAccount, ...]:
        """The turns so far, in tokens."""
        keeps = self._settings.get("policy") is ReasoningPolicy.ALL_TURNS
        return tuple(
            TurnAccount(
                turn=number,
                prompt_tokens=answer.usage.prompt_tokens,
                cached_tokens=answer.usage.cached_tokens,
                reasoning_tokens=answer.usage.reasoning_tokens,
                answer_tokens=answer.usage.completion_tokens - answer.usage.reasoning_tokens,
                dropped_messages=answer.dropped_turns,
                reasoning_discarded=not keeps and number < len(self._turns),
            )
            for number, answer in enumerate(self._turns, 1)
        )

    def _with(self, text: str) -> list[Message]:
        return [*self.messages, Message.user(text)]

    def _call(self, settings: RunSettings) -> RunSettings:
        """The conversation's settings and the turn's. An effort of the turn's replaces a cap of the conversation's, and
        the other way round."""
        ours = self._settings.copy()
        if settings.get("effort") is not None or settings.get("thinking") is not None:
            ours.pop("effort", None)
            ours.pop("thinking", None)
        return self._remembering({**ours, **settings})

    def _remembering(self, settings: RunSettings) -> RunSettings:
        """The settings, with the memory around the strategy where the conversation has one."""
        if self._memory is None:
            return settings
        memory, user = self._memory
        strategy = settings.get("strategy")
        inner = parse_strategy(strategy) if isinstance(strategy, str) else strategy
        turn = len(self._turns) + 1
        source, *recent = (f"conversation {self._name}, turn {turn - ago}" for ago in range(IN_VIEW + 1))
        around = remembering(inner, memory=memory, user=user, source=source, without=tuple(recent))
        return {**settings, "strategy": around}
