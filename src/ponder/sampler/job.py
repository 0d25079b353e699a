"""One completion in the making: from the engine's events to what its coroutine receives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ponder.dialogue import Format, Message, Start
from ponder.engine import FinishEvent, TokenEvent
from ponder.engine.constraint import Constraint
from ponder.sampler.answer_tokens import AnswerTokens
from ponder.sampler.call_text import CallPiece, CallText
from ponder.sampler.protocol import CallDelta, Completion, Delta, Done, Request, SampledToken, Streamed
from ponder.sampler.shadow import Shadow
from ponder.sampler.visible import Piece, VisibleText, cut_at_stop
from ponder.tokenizer import Tokenizer
from ponder.types import Phase, StopReason

Item = Streamed | BaseException


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids, the generation prompt they end in, the messages they render (none: they came as ids), and how many messages
    were dropped to make them fit."""

    ids: tuple[int, ...]
    start: Start
    messages: tuple[Message, ...] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Outlet:
    """Where the items of one request go: `put`, called in its event loop."""

    loop: asyncio.AbstractEventLoop
    put: Callable[[Item], None]


@dataclass(slots=True, eq=False, kw_only=True)
class Order:
    """One request, ready for the engine, and what came of it so far.

    deadline: on the clock of `time.monotonic`. shadow: of its one completion. open: the jobs that are not finished.
    """

    request: Request
    prompt: Prompt
    outlet: Outlet
    streamed: bool
    constraint: Constraint | None = None
    deadline: float | None = None
    shadow: Shadow | None = None
    open: set[Job] = field(default_factory=set)

    @property
    def start(self) -> Phase:
        return Phase.THINK if self.prompt.start is Start.THINK else Phase.ANSWER


class Mail:
    """Items on their way from the engine thread to event loops. Each loop is woken once for all that is there."""

    def __init__(self) -> None:
        self._bags: dict[asyncio.AbstractEventLoop, list[tuple[Outlet, Item]]] = {}

    def add(self, outlet: Outlet, item: Item) -> None:
        self._bags.setdefault(outlet.loop, []).append((outlet, item))

    def deliver(self) -> set[asyncio.AbstractEventLoop]:
        """Send everything. Returns the loops that were closed meanwhile: nobody waits there any more."""
        bags, self._bags = self._bags, {}
        closed = set()
        for loop, bag in bags.items():
            try:
                loop.call_soon_threadsafe(_unpack, bag)
            except RuntimeError:
                closed.add(loop)
        return closed


def _unpack(bag: list[tuple[Outlet, Item]]) -> None:
    for outlet, item in bag:
        outlet.put(item)


class Job:
    """Completion `index` of an order, request `number` of the engine."""

    def __init__(self, tokenizer: Tokenizer, format: Format, mail: Mail, order: Order, index: int, number: int) -> None:
        self.order = order
        self.number = number
        self._index = index
        self._format = format
        self._mail = mail
        self._text: VisibleText | None = None
        self._calls: CallText | None = None
        self._tokens = AnswerTokens(tokenizer) if order.streamed and order.request.logprobs else None
        self._declared = frozenset(tool.name for tool in order.request.tools)
        if order.streamed and format.calls is not None:
            self._calls = CallText(format.phase_tokens, format.calls, self._declared)
        stops, shadow = order.request.stop, order.shadow
        if order.streamed or stops or (shadow is not None and shadow.reads_text):
            self._text = VisibleText(tokenizer, format.phase_tokens, self._parse, start=order.start, stops=stops)

    def feed(self, event: TokenEvent) -> bool:
        """Follow one token. True when a stop string is met: nothing more may be sampled."""
        if self._tokens is not None:
            self._tokens.feed(SampledToken(event.id, event.logprob, event.top_logprobs), event.phase)
        pieces = [] if self._text is None else self._text.feed(event)
        self._send(pieces)
        if self._calls is not None:
            self._send_calls(self._calls.feed(event))
        if self.order.shadow is not None:
            self.order.shadow.feed(event, "".join(text for phase, text in pieces if phase is Phase.ANSWER))
        return self._text is not None and self._text.stopped

    def finish(self, event: FinishEvent) -> Completion:
        """Send what is still owed, then the completion."""
        message = self._parse(event.ids)
        cut = cut_at_stop(message, self.order.request.stop)
        message = cut or message
        if self._text is not None:
            self._send(self._text.finish(message))
        if self._calls is not None:
            self._send_calls(self._calls.finish(message))
        usage = event.usage if self._index == 0 else replace(event.usage, prompt_tokens=0, cached_tokens=0)
        completion = Completion(
            message=message,
            stop_reason=StopReason.STOP if cut else event.stop_reason,
            usage=usage,
            segments=event.segments,
            dropped_turns=self.order.prompt.dropped,
        )
        self.send(Done(self._index, completion))
        return completion

    def send(self, item: Item) -> None:
        self._mail.add(self.order.outlet, item)

    def _parse(self, ids: Sequence[int]) -> Message:
        return self._format.parse(ids, start=self.order.prompt.start, declared=self._declared)

    def _send(self, pieces: list[Piece]) -> None:
        if self.order.streamed:
            for phase, text in pieces:
                tokens = self._tokens.begun(text) if self._tokens is not None and phase is Phase.ANSWER else ()
                self.send(Delta(self._index, phase, text, tokens))

    def _send_calls(self, pieces: list[CallPiece]) -> None:
        for call, name, arguments in pieces:
            self.send(CallDelta(self._index, call, name, arguments))
