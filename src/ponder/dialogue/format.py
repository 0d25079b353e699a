"""The interface of a dialogue format, and Ponder's own (`docs/format.md`): render and parse, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ponder.dialogue import control
from ponder.dialogue.messages import (
    Conversation,
    Message,
    Part,
    Reasoning,
    ReasoningPolicy,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from ponder.dialogue.rendered import (
    Builder,
    DroppedReasoning,
    Parsed,
    Rendered,
    SpanKind,
    Start,
    verbatim_ids,
)
from ponder.dialogue.rules import check_conversation, first_kept_reasoning
from ponder.dialogue.turn import parse_turn
from ponder.tokenizer import Tokenizer
from ponder.types import PhaseTokens

CONTINUATION = "Wait"


@runtime_checkable
class Format(Protocol):
    """How conversations become ids, and generated ids messages."""

    @property
    def name(self) -> str: ...

    @property
    def phase_tokens(self) -> PhaseTokens: ...

    def render(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        start: Start = Start.NONE,
        train: bool = False,
    ) -> Rendered:
        """The conversation as ids, then the generation prompt of `start`.

        train: a supervised example; the conversation must end with the assistant and take no generation prompt.
        Raises FormatError for what the format cannot express.
        """
        ...

    def parse(self, ids: Sequence[int], *, start: Start) -> Message:
        """The message of ids that were generated after the prompt of `start`. Never raises on sampled ids."""
        ...

    def parse_generated(self, ids: Sequence[int], *, start: Start) -> Parsed:
        """`parse`, with how the ids ended."""
        ...


class PonderFormat:
    """Ponder's own format: a role token opens a turn, `<|end|>` closes it, and nothing but tokens and text between."""

    name = "ponder"

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises TokenizerError when the tokenizer lacks one of the control tokens."""
        self._tokenizer = tokenizer
        ids = {name: tokenizer.control_id(name) for name in control.CONTROL_TOKENS}
        self._args_id = ids[control.ARGS]
        self.phase_tokens = PhaseTokens(
            think_open=ids[control.THINK],
            think_close=ids[control.END_THINK],
            call_open=ids[control.CALL],
            call_close=ids[control.END_CALL],
            continuation=tuple(tokenizer.encode(CONTINUATION)),
            end=(ids[control.END], ids[control.ENDOFTEXT]),
        )

    def render(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        start: Start = Start.NONE,
        train: bool = False,
    ) -> Rendered:
        check_conversation(messages, start=start, train=train)
        kept_from = first_kept_reasoning(messages, policy)
        out = Builder(self._tokenizer)
        for index, message in enumerate(messages):
            self._message(out, index, message, keep_reasoning=index >= kept_from)
        if start is not Start.NONE:
            out.mark(len(messages), None, SpanKind.PROMPT).control(control.ASSISTANT)
            if start is Start.THINK:
                out.control(control.THINK)
        return out.rendered()

    def _message(self, out: Builder, index: int, message: Message, *, keep_reasoning: bool) -> None:
        whole = keep_reasoning or not any(isinstance(part, Reasoning) for part in message.parts)
        own = message.role is Role.ASSISTANT and whole  # nobody samples an answer that lost its reasoning
        out.mark(index, None, SpanKind.HEADER).control(control.ROLE_TOKENS[message.role])
        if message.name is not None:
            out.control(control.NAME).text(message.name).control(control.BODY)
        header, saved = len(out), 0
        for number, part in enumerate(message.parts):
            if isinstance(part, Reasoning) and not keep_reasoning:
                saved += 2 + len(verbatim_ids(self._tokenizer, part) or self._tokenizer.encode(part.text))
            else:
                self._part(out, index, number, part, own=own, first=len(out) == header)
        if saved:
            out.dropped.append(DroppedReasoning(index, saved))
        out.mark(index, None, SpanKind.END, sampled=own).control(control.END)

    def _part(self, out: Builder, index: int, number: int, part: Part, *, own: bool, first: bool) -> None:
        match part:
            case Text():
                out.mark(index, number, SpanKind.TEXT, sampled=own)
                self._verbatim_or_text(out, part)
            case Reasoning():
                # The open token right behind the header belongs to the generation prompt; a later one is sampled.
                out.mark(index, number, SpanKind.OPEN, sampled=not first).control(control.THINK)
                out.mark(index, number, SpanKind.REASONING, sampled=True)
                self._verbatim_or_text(out, part)
                out.mark(index, number, SpanKind.CLOSE, sampled=True).control(control.END_THINK)
            case ToolCall():
                out.mark(index, number, SpanKind.CALL, sampled=own).control(control.CALL)
                sampled = self._read_call(part.ids) if part.ids is not None else None
                if sampled and (sampled.name, sampled.arguments) == (part.name, part.arguments):
                    out.ids(part.ids or ())
                else:
                    out.text(part.name).control(control.ARGS).text(part.arguments)
                out.control(control.END_CALL)
            case ToolResult():
                out.mark(index, number, SpanKind.RESULT).control(control.RESULT).text(part.name)
                out.control(control.BODY).text(part.content).control(control.END_RESULT)

    def _verbatim_or_text(self, out: Builder, part: Text | Reasoning) -> None:
        ids = verbatim_ids(self._tokenizer, part)
        if ids is None:
            out.text(part.text)
        else:
            out.ids(ids)

    def parse(self, ids: Sequence[int], *, start: Start) -> Message:
        return self.parse_generated(ids, start=start).message

    def parse_generated(self, ids: Sequence[int], *, start: Start) -> Parsed:
        return parse_turn(
            self._tokenizer, ids, self.phase_tokens, thinking=start is Start.THINK, read_call=self._read_call
        )

    def _read_call(self, ids: Sequence[int]) -> ToolCall | None:
        """name <|args|> arguments; None when the ids are not of that shape."""
        separators = [at for at, id in enumerate(ids) if self._tokenizer.is_control(id)]
        if len(separators) != 1 or ids[separators[0]] != self._args_id or not separators[0]:
            return None
        name, arguments = ids[: separators[0]], ids[separators[0] + 1 :]
        return ToolCall(self._tokenizer.decode(name), self._tokenizer.decode(arguments), ids=tuple(ids))
