"""The front door's object: a sampler that is asked questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ponder.dialogue.messages import Message, ReasoningPolicy
from ponder.sampler.protocol import Delta, Grammar, NextTurn, Sampler, Truncation
from ponder.sampler.sync import run_sync
from ponder.think.conversation import Conversation
from ponder.think.direct import Direct
from ponder.think.effort import parse_effort
from ponder.think.parse import parse_strategy
from ponder.think.protocol import Question, Same, Strategy, Verifier
from ponder.think.streaming import AnswerStream
from ponder.types import Answer, Budget, Effort, InvalidRequest, Phase, ThinkingLimits

Asked = str | Message | Sequence[Message]


class Reasoner:
    """Asks a sampler, by a strategy. Every method works inside a running event loop too.

    Settings, the same everywhere:
    effort: how long to think (none, minimal, low, medium, high; medium unless said); thinking: the same in tokens, a
    cap on all THINK tokens of an answer, folded thoughts included. strategy: a name such as "consensus(samples=8)" or a
    `Strategy`, which then brings its own settings. max_tokens: of each completion, thinking
    included. temperature: 0 for one answer and 1 for a vote unless said. seed: of the first sample. budget: what the
    strategy may spend in all. grammar: a `JsonSchema` or `Regex` that the visible answer matches; thinking is free.
    same, verifier, policy, truncation, next_turn: see `Question`.
    Raises InvalidRequest for what cannot be served as asked, SamplerError when the sampler fails.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    @property
    def name(self) -> str:
        return self.sampler.name

    def ask(self, asked: Asked, **settings: Any) -> Answer:
        """The answer to a text or to a conversation."""
        return run_sync(self.ask_async(asked, **settings))

    def ask_many(self, asked: Sequence[Asked], *, concurrency: int = 64, **settings: Any) -> list[Answer]:
        """The answers to many questions, in their order, at most `concurrency` of them under way at once."""
        return run_sync(self.ask_many_async(asked, concurrency=concurrency, **settings))

    async def ask_async(
        self,
        asked: Asked,
        *,
        effort: Effort | str | None = None,
        thinking: ThinkingLimits | int | None = None,
        strategy: Strategy | str = "direct",
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        budget: Budget | None = None,
        same: Same | None = None,
        verifier: Verifier | None = None,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        truncation: Truncation = Truncation.DISABLED,
        grammar: Grammar | None = None,
        next_turn: NextTurn = NextTurn.NONE,
        listen: Callable[[Delta], None] | None = None,
    ) -> Answer:
        """`ask`, awaited. listen: is called with the pieces of the answer as they come."""
        question = Question(
            conversation=_conversation(asked),
            verifier=verifier,
            same=same,
            policy=policy,
            truncation=truncation,
            grammar=grammar,
            next_turn=next_turn,
        )
        settings = {
            "effort": effort,
            "thinking": thinking,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        chosen = _strategy(strategy, settings)
        if listen is None:
            return await chosen(question, self.sampler, budget or Budget())
        if isinstance(chosen, Direct):
            return await chosen.listened(question, self.sampler, budget or Budget(), listen)
        answer = await chosen(question, self.sampler, budget or Budget())
        for phase, text in ((Phase.THINK, answer.reasoning), (Phase.ANSWER, answer.text)):
            if text:
                listen(Delta(0, phase, text))
        return answer

    async def ask_many_async(self, asked: Sequence[Asked], *, concurrency: int = 64, **settings: Any) -> list[Answer]:
        """`ask_many`, awaited."""
        if concurrency < 1:
            raise InvalidRequest(f"concurrency is {concurrency}: allowed are integers of 1 or more")
        if isinstance(asked, str):
            raise InvalidRequest("ask_many takes a list of questions, not one text: use ask")
        gate = asyncio.Semaphore(concurrency)

        async def one(each: Asked) -> Answer:
            async with gate:
                return await self.ask_async(each, **settings)

        async with _group() as group:
            tasks = [group.create_task(one(each)) for each in asked]
        return [task.result() for task in tasks]

    def stream(
        self, asked: Asked, *, on_answer: Callable[[Answer], None] | None = None, **settings: Any
    ) -> AnswerStream:
        """The answer piece by piece: iterate over the `Delta`s, then read `.answer`. A strategy that votes has nothing
        to show before it is done, so its pieces come at the end. on_answer: is called with the whole answer."""
        return AnswerStream(lambda listen: self.ask_async(asked, **settings, listen=listen), on_answer)

    def conversation(
        self,
        *,
        system: str | None = None,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        truncation: Truncation = Truncation.DISABLED,
        **settings: Any,
    ) -> Conversation:
        """A dialogue of several turns; `settings` hold for all of them."""
        return Conversation(self, system=system, policy=policy, truncation=truncation, settings=settings)

    def close(self) -> None:
        """Free what the sampler holds."""
        run_sync(self.sampler.close())

    def __enter__(self) -> Reasoner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _group(asyncio.TaskGroup):
    """A task group that raises the first error itself, not a group of one."""

    async def __aexit__(self, *details: Any) -> None:
        try:
            await super().__aexit__(*details)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _conversation(asked: Asked) -> list[Message]:
    if isinstance(asked, str):
        return [Message.user(asked)]
    if isinstance(asked, Message):
        return [asked]
    messages = list(asked)
    if not messages or not all(isinstance(each, Message) for each in messages):
        raise InvalidRequest(f"a question is a text, a Message or a list of Messages with at least one, not {asked!r}")
    return messages


def _strategy(strategy: Strategy | str, settings: dict[str, Any]) -> Strategy:
    if isinstance(strategy, str):
        if settings["effort"] is not None:
            settings["effort"] = parse_effort(settings["effort"])
        return parse_strategy(strategy, **settings)
    extra = [name for name, value in settings.items() if value is not None]
    if extra:
        raise InvalidRequest(
            f"{', '.join(extra)} cannot be set beside a ready-made strategy: give them to the strategy"
        )
    return strategy
