"""A strategy around another one: it recalls what the question is about, and notes the turn when it is answered.

What is recalled stands in the prompt of this turn alone, as reasoning does: the next turn recalls for itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from ponder.dialogue.messages import Conversation as Messages
from ponder.dialogue.messages import ToolCall
from ponder.sampler.protocol import BYTES_PER_TOKEN, Capabilities, NextTurn, Sampler
from ponder.think.ask import Ask
from ponder.think.events import Answered, Event, Noted, Recalled
from ponder.think.ledger import Ledger
from ponder.think.memory.memory import Remembers
from ponder.think.memory.notes import LEAST, MOST, Note, Recollection
from ponder.think.memory.quoting import HEAD, last_question, passages, quoted_block, quoted_note, with_block
from ponder.think.strategies.direct import direct
from ponder.think.strategy import Demand, Strategy, check_inner
from ponder.types import InvalidRequest

SHARE = 4  # recalled notes take at most this part of the window


@dataclass(frozen=True, slots=True)
class Remembering:
    """See `remembering`."""

    inner: Strategy
    memory: Remembers
    user: str
    source: str
    without: tuple[str, ...]
    most: int
    least: float

    @property
    def name(self) -> str:
        return self.inner.name

    def demand(self, ask: Ask) -> Demand:
        last_question(_messages(ask))
        return self.inner.demand(ask)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        messages = _messages(ask)
        question = messages[last_question(messages)].text
        found = await self.memory.recall_async(
            self.user, question, most=self.most + len(self.without) * self.most, least=self.least
        )
        others = [each for each in found if each.note.source not in self.without][: self.most]
        fitting = fitting_notes(others, sampler.capabilities)
        if fitting:
            yield Recalled(fitting, self.name)
            block = quoted_block([each.note for each in fitting])
            ask = replace(ask, prompt=with_block(messages, block), next_turn=NextTurn.NONE)
        async with aclosing(self.inner.stream(ask, sampler, ledger)) as events:
            async for event in events:
                if type(event) is Answered and not _calls(event):
                    turn = f"User: {question}\nAssistant: {event.answer.text}".strip()
                    yield Noted(tuple([await self._note(each) for each in passages(turn)]), self.name)
                yield event

    async def _note(self, text: str) -> Note:
        return await self.memory.note_async(self.user, text, source=self.source)


def remembering(
    inner: Strategy | None = None,
    *,
    memory: Remembers,
    user: str,
    source: str = "an earlier turn",
    without: tuple[str, ...] = (),
    most: int = MOST,
    least: float = LEAST,
) -> Remembering:
    """A strategy that recalls notes of `user` before `inner` answers, and notes question and answer after it.

    inner: None: one answer.
    source: of the notes that it makes.
    without: sources of notes that are not recalled, because the conversation still shows them.
    most, least: see `recall_notes`; together the notes take at most a quarter of the window, the best first.
    Raises InvalidRequest for something else than a strategy inside.
    """
    check_inner(inner)
    return Remembering(inner or direct(), memory, user, source, without, most, least)


def _messages(ask: Ask) -> Messages:
    if isinstance(ask.prompt[0], int):
        raise InvalidRequest("a memory recalls by the words of a conversation, and the prompt is ids: give messages")
    return cast(Messages, ask.prompt)


def _calls(event: Answered) -> bool:
    """Whether the turn goes on: the answer calls tools."""
    return any(isinstance(part, ToolCall) for part in event.answer.message.parts)


def fitting_notes(found: list[Recollection], capabilities: Capabilities) -> tuple[Recollection, ...]:
    """Those, the best first, that stay within their share of the window."""
    if capabilities.window is None:
        return tuple(found)
    room = capabilities.window // SHARE - text_tokens(HEAD, capabilities)
    fitting = []
    for each in found:
        size = text_tokens(quoted_note(each.note), capabilities) + 1
        if size <= room:
            room -= size
            fitting.append(each)
    return tuple(fitting)


def text_tokens(text: str, capabilities: Capabilities) -> int:
    """The tokens of a text; an estimate where the tokenizer is not here."""
    tokenizer = capabilities.tokenizer
    return len(text.encode()) // BYTES_PER_TOKEN if tokenizer is None else len(tokenizer.encode(text))
