"""One completion in the making: from the engine's events to what its coroutine receives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ponder.dialogue import Format, Start
from ponder.engine import FinishEvent, TokenEvent
from ponder.sampler.protocol import Completion, Delta, Done
from ponder.sampler.visible import Piece, VisibleText, cut_at_stop
from ponder.tokenizer import Tokenizer
from ponder.types import Phase, StopReason

Item = Delta | Done | BaseException


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids, the generation prompt they end in, and how many messages were dropped to make them fit."""

    ids: tuple[int, ...]
    start: Start
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where items go: `put` of a loop, called from whichever thread drives the engine."""

    loop: asyncio.AbstractEventLoop
    put: Callable[[Item], None]
    thread: int = field(default_factory=threading.get_ident)

    def send(self, item: Item) -> None:
        if threading.get_ident() == self.thread:
            self.put(item)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.put, item)


class Job:
    """Completion `index` of a request, request `number` of the engine."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        format: Format,
        number: int,
        index: int,
        stops: tuple[str, ...],
        prompt: Prompt,
        outlet: Outlet,
        *,
        streamed: bool,
    ) -> None:
        self.number = number
        self.outlet = outlet
        self._format = format
        self._index = index
        self._stops = stops
        self._prompt = prompt
        self._streamed = streamed
        self._text: VisibleText | None = None
        if streamed or stops:
            phase = Phase.THINK if prompt.start is Start.THINK else Phase.ANSWER
            self._text = VisibleText(
                tokenizer,
                format.phase_tokens,
                lambda ids: format.parse(ids, start=prompt.start),
                start=phase,
                stops=stops,
            )

    def feed(self, event: TokenEvent) -> bool:
        """Follow one token. True when a stop string is met: nothing more may be sampled."""
        if self._text is None:
            return False
        self._send(self._text.feed(event))
        return self._text.stopped

    def finish(self, event: FinishEvent) -> None:
        """Send what is still owed, then the completion."""
        message = self._format.parse(event.ids, start=self._prompt.start)
        cut = cut_at_stop(message, self._stops)
        message = cut or message
        if self._text is not None:
            self._send(self._text.finish(message))
        usage = event.usage if self._index == 0 else replace(event.usage, prompt_tokens=0, cached_tokens=0)
        completion = Completion(
            message=message,
            stop_reason=StopReason.STOP if cut else event.stop_reason,
            usage=usage,
            segments=event.segments,
            dropped_turns=self._prompt.dropped,
        )
        self.outlet.send(Done(self._index, completion))

    def _send(self, pieces: list[Piece]) -> None:
        if self._streamed:
            for phase, text in pieces:
                self.outlet.send(Delta(self._index, phase, text))
