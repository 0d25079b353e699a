"""One generation: from the engine's events to the items that its request's coroutine receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ponder.dialogue import Format, Message, Start
from ponder.engine import FinishEvent, TokenEvent
from ponder.engine.sequence import Constraint
from ponder.sampler.next_turn import NextTurnPrefill
from ponder.sampler.protocol import CallDelta, Completion, Delta, Done, Request, SampledToken, Streamed
from ponder.sampler.threads import DeliveryQueue, Sink
from ponder.sampler.visible import AnswerTokens, CallPiece, CallText, Piece, VisibleText, cut_at_stop
from ponder.tokenizer import Tokenizer
from ponder.types import Phase, StopReason

Delivered = Streamed | BaseException


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as ids.

    start: the generation prompt that they end in.
    messages: those that they render; empty where the prompt came as ids.
    dropped: how many messages were left out to make it fit.
    """

    ids: tuple[int, ...]
    start: Start
    messages: tuple[Message, ...] = ()
    dropped: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Submission:
    """One request, ready for the engine, and its generations.

    start: the phase that the prompt ends in.
    deadline: on the clock of `time.monotonic`.
    prefill: of the next turn, after its one completion.
    open: the generations that are not finished.
    """

    request: Request
    prompt: RenderedPrompt
    start: Phase
    sink: Sink[Delivered]
    streamed: bool
    constraint: Constraint | None = None
    deadline: float | None = None
    prefill: NextTurnPrefill | None = None
    open: set[Generation] = field(default_factory=set)


class Generation:
    """Completion `index` of a submission: request `number` of the engine, followed token by token."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        format: Format,
        deliveries: DeliveryQueue[Delivered],
        submission: Submission,
        index: int,
        number: int,
    ) -> None:
        self.submission = submission
        self.number = number
        self._index = index
        self._format = format
        self._deliveries = deliveries
        self._text: VisibleText | None = None
        self._calls: CallText | None = None
        self._tokens = AnswerTokens(tokenizer) if submission.streamed and submission.request.logprobs else None
        self._declared = frozenset(tool.name for tool in submission.request.tools)
        if submission.streamed and format.calls is not None:
            self._calls = CallText(format.phase_tokens, format.calls, self._declared)
        stops, prefill = submission.request.stop, submission.prefill
        if submission.streamed or stops or (prefill is not None and prefill.reads_text):
            self._text = VisibleText(tokenizer, format.phase_tokens, self._parse, start=submission.start, stops=stops)

    def feed(self, event: TokenEvent) -> bool:
        """Follow one token. True when a stop string is met: nothing more may be sampled."""
        if self._tokens is not None:
            self._tokens.feed(SampledToken(event.id, event.logprob, event.top_logprobs), event.phase)
        pieces = [] if self._text is None else self._text.feed(event)
        self._send(pieces)
        if self._calls is not None:
            self._send_calls(self._calls.feed(event))
        if self.submission.prefill is not None:
            self.submission.prefill.feed(event, "".join(each.text for each in pieces if each.phase is Phase.ANSWER))
        return self._text is not None and self._text.stopped

    def finish(self, event: FinishEvent) -> Completion:
        """Send what is still owed, then the completion."""
        message = self._parse(event.ids)
        cut = cut_at_stop(message, self.submission.request.stop)
        message = cut or message
        if self._text is not None:
            self._send(self._text.finish(message))
        if self._calls is not None:
            self._send_calls(self._calls.finish(message))
        completion = self._completion(event, message, StopReason.STOP if cut else event.stop_reason)
        self.send(Done(self._index, completion))
        return completion

    def aborted(self, event: FinishEvent) -> Done:
        """The end of a generation whose caller is gone."""
        return Done(self._index, self._completion(event, self._parse(event.ids), event.stop_reason))

    def _completion(self, event: FinishEvent, message: Message, reason: StopReason) -> Completion:
        usage = event.usage if self._index == 0 else replace(event.usage, prompt_tokens=0, cached_tokens=0)
        return Completion(
            message=message,
            stop_reason=reason,
            usage=usage,
            segments=event.segments,
            dropped_turns=self.submission.prompt.dropped,
        )

    def send(self, item: Delivered) -> None:
        self._deliveries.add(self.submission.sink, item)

    def _parse(self, ids: Sequence[int]) -> Message:
        return self._format.parse(ids, start=self.submission.prompt.start, declared=self._declared)

    def _send(self, pieces: list[Piece]) -> None:
        if self.submission.streamed:
            for phase, text, state, voice in pieces:
                tokens = self._tokens.begun(text) if self._tokens is not None and phase is Phase.ANSWER else ()
                self.send(Delta(self._index, phase, text, tokens, state, voice=voice))

    def _send_calls(self, pieces: list[CallPiece]) -> None:
        for call, name, arguments in pieces:
            self.send(CallDelta(self._index, call, name, arguments))
