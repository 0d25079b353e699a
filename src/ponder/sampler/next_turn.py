"""After-turn prefill: while an answer streams, the engine computes what the next turn's prompt will begin with.

A conversation goes on without the thoughts of this turn, so its next prompt does not continue what the engine has
computed. The format itself says what the prompt will be, by rendering the conversation with one more turn. The tokens
of the answer are guessed as they come, and the render at the end corrects a wrong guess, which costs compute only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponder.dialogue import (
    Conversation,
    Format,
    Message,
    ReasoningPolicy,
    Rendered,
    Role,
    Span,
    SpanKind,
    Start,
    Text,
    ToolCall,
)
from ponder.engine import Engine, FinishEvent, TokenEvent
from ponder.engine.requests import check_prompt
from ponder.sampler.protocol import NextTurn, Request
from ponder.tokenizer import GrowingText, Tokenizer
from ponder.types import FormatError, Phase, PonderError

_PROBE = "the"
_USER = Message.user("x")


@dataclass(slots=True)
class NextTurnCounts:
    """How many turns were prefilled for a next one, of those that were said to have one.

    kept: the next prompt's beginning is in the engine, or will be once it is idle.
    given_up: nothing was said, the request was aborted, or a tool was called (then the thoughts stay).
    skipped: the format cannot render the next turn, or the engine has no room for it.
    """

    kept: int = 0
    given_up: int = 0
    skipped: int = 0


class NextTurnPrefill:
    """The answer of one turn, prefilled as the prompt of the next will hold it."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        format: Format,
        request: Request,
        messages: Conversation,
        counts: NextTurnCounts,
    ) -> None:
        """messages: those that the prompt renders. Raises FormatError where the format refuses the probe."""
        self._engine = engine
        self._tokenizer = tokenizer
        self._format = format
        self._request = request
        self._messages = tuple(messages)
        self._counts = counts
        self._number: int | None = None
        self._over = False
        self._lead: list[int] | None = []  # answer ids before the first visible character; None after it
        self._thought = False
        self._growing = GrowingText(tokenizer)
        self._prefix, verbatim = self._before_answer()
        self._length = len(self._prefix)
        # Whether the answer is followed as text. Otherwise its ids stand in the next prompt as they were sampled.
        self.reads_text = request.next_turn is NextTurn.TEXT or not verbatim

    def feed(self, event: TokenEvent, text: str) -> None:
        """Follow one token.

        text: the visible text it let out, where text is followed.
        """
        self._thought = self._thought or event.phase is Phase.THINK
        if self._over:
            return
        if event.phase is Phase.TOOL:
            self._over = True  # a broken call becomes text: the last render knows
            return
        if self._engine.loaded:
            self._over = True  # nothing of it would be computed now; the last render says all of it
            return
        try:
            if self.reads_text:
                if text:
                    self._extend(self._growing.feed(text))
            elif event.phase is Phase.ANSWER and event.id not in self._format.phase_tokens.end:
                self._extend(self._visible(event.id))
        except PonderError:
            self._close()  # the render at the end is the last word

    def end(self, event: FinishEvent, message: Message) -> None:
        """The turn is over. Keep what the next prompt begins with, free the rest of this turn."""
        if not event.ids or any(isinstance(part, ToolCall) for part in message.parts):
            self.give_up()
            return
        if self._request.next_turn is NextTurn.TEXT:
            message = Message.assistant(message.text)
        try:
            ids = self._before_user(message)
            check_prompt(ids, self._engine.model.config.vocab_size, self._engine.window)
            if self._number is None:
                self._number = self._engine.open_next_turn(
                    ids, tenant=self._request.tenant, adapter=self._request.adapter
                )
            self._engine.close_next_turn(self._number, ids)
            self._number, self._over = None, True
        except PonderError:
            self._close()
            self._counts.skipped += 1
            return
        last = event.segment
        self._engine.end_turn(
            (*last.prompt_ids, *last.ids), ids, tenant=self._request.tenant, adapter=self._request.adapter
        )
        self._counts.kept += 1

    def give_up(self) -> None:
        """There is no next turn, or none that begins like this."""
        self._close()
        self._counts.given_up += 1

    def _close(self) -> None:
        self._over = True
        if self._number is not None:
            number, self._number = self._number, None
            self._engine.close_next_turn(number, None)

    def _extend(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        self._length += len(ids)
        if self._length >= self._engine.window:
            self._close()  # a prompt that begins like this has no room
        elif self._number is None:
            self._number = self._engine.open_next_turn((*self._prefix, *ids), tenant=self._request.tenant)
        else:
            self._engine.extend_next_turn(self._number, ids)

    def _visible(self, id: int) -> list[int]:
        """The ids of the answer that are settled with this one: none while it is not known which of the first ones
        stay. A format may count line breaks before the answer as its own."""
        if self._lead is None:
            return [id]
        self._lead.append(id)
        written = self._tokenizer.decode(self._lead)
        if not written.strip():
            return []
        lead, self._lead = self._lead, None
        close = self._format.phase_tokens.think_close
        if self._thought and close is not None:
            text = self._format.parse([close, *lead], start=Start.THINK).text
        else:
            text = self._format.parse(lead, start=Start.DIRECT).text
        kept = (lead[at:] for at in range(len(lead)) if self._tokenizer.decode(lead[at:]) == text)
        return next(kept, lead)

    def _before_answer(self) -> tuple[tuple[int, ...], bool]:
        """What the next prompt holds before this turn's answer, and whether an answer's own ids stand in it."""
        spelled = tuple(id for character in _PROBE for id in self._tokenizer.encode(character))
        rendered = self._rendered(Message(Role.ASSISTANT, (Text(_PROBE, spelled),)))
        span = _text_of(rendered, len(self._messages))
        return rendered.ids[: span.begin], rendered.ids[span.begin : span.end] == spelled

    def _before_user(self, message: Message) -> tuple[int, ...]:
        """What a prompt that goes on from `message`, this turn's, with a user's text holds before that text."""
        rendered = self._rendered(message)
        return rendered.ids[: _text_of(rendered, len(self._messages) + 1).begin]

    def _rendered(self, message: Message) -> Rendered:
        """The conversation with `message` and one more turn."""
        request = self._request
        return self._format.render((*self._messages, message, _USER), policy=request.policy, tools=request.tools)


def next_turn_prefill(
    engine: Engine,
    tokenizer: Tokenizer,
    format: Format,
    request: Request,
    messages: Conversation,
    counts: NextTurnCounts,
) -> NextTurnPrefill | None:
    """The prefill of a request's one answer. None: the prompt after it continues this one, or cannot be known."""
    if not messages or request.n > 1 or request.policy is ReasoningPolicy.ALL_TURNS:
        return None
    try:
        return NextTurnPrefill(engine, tokenizer, format, request, messages, counts)
    except PonderError:
        counts.skipped += 1
        return None


def _text_of(rendered: Rendered, index: int) -> Span:
    """Where the first text of message `index` stands."""
    for span in rendered.spans:
        if (span.message_index, span.kind) == (index, SpanKind.TEXT):
            return span
    raise FormatError(f"message {index}: the format does not render its text, so the next turn cannot be prepared")
