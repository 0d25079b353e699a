"""The base of other model families' formats: refusals, the order of a turn, think blocks and their line breaks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from ponder.dialogue.calls import CallSyntax, JsonCalls
from ponder.dialogue.format import CONTINUATION, Builder, DroppedReasoning, Parsed, Rendered, SpanKind
from ponder.dialogue.messages import (
    Conversation,
    Message,
    Part,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    ToolCall,
    ToolResult,
    check_conversation,
    check_plain_thinking,
    check_result_names,
    first_kept_reasoning,
)
from ponder.dialogue.tools import Tool, check_tools
from ponder.dialogue.turn import parse_turn
from ponder.tokenizer import Tokenizer
from ponder.types import FormatError, PhaseTokens

LEAD = "\n\n"  # what families that think write between the close of thinking and the answer


@dataclass(frozen=True, slots=True)
class FamilyTokens:
    """The control tokens of a family, and what its format has words for."""

    name: str
    required: tuple[str, ...]
    end: tuple[str, ...]
    think: tuple[str, str] | None = None
    call: tuple[str, str] | None = None


Thought = tuple[int, Reasoning] | None
Texts = tuple[tuple[int, Text], ...]


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """An assistant's parts with their numbers, in the one order that families write: reasoning, text, calls."""

    reasoning: Thought
    texts: Texts
    calls: tuple[tuple[int, ToolCall], ...]


class NativeFormat:
    """The base of the families' formats. A family writes one message; the rest is here."""

    family: FamilyTokens
    has_developer = False

    instructs_anywhere = False
    """Instructions after the first message stand there as the first ones do."""

    shows_reasoning = True
    """The family's template shows the reasoning of the last turn."""

    reads_thinking = False
    """Thinking that stands in an answer's text, between spelled tokens, is read as the family's template reads it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises TokenizerError when the tokenizer lacks a control token of the family."""
        self._tokenizer = tokenizer
        for name in self.family.required:
            tokenizer.control_id(name)
        think, call = self.family.think or (None, None), self.family.call or (None, None)
        self.calls: CallSyntax | None = JsonCalls(tokenizer) if self.family.call else None
        self.declares_tools = self.family.call is not None
        self.phase_tokens = PhaseTokens(
            think_open=self._id(think[0]),
            think_close=self._id(think[1]),
            call_open=self._id(call[0]),
            call_close=self._id(call[1]),
            continuation=tuple(tokenizer.encode(CONTINUATION)) if self.family.think else (),
            lead=tuple(tokenizer.encode(LEAD)) if self.family.think else (),
            end=tokenizer.end_ids(self.family.end),
        )

    @property
    def name(self) -> str:
        return self.family.name

    def render(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        start: Start = Start.NONE,
        train: bool = False,
        tools: Sequence[Tool] = (),
    ) -> Rendered:
        check_conversation(messages, start=start, train=train, instructs_anywhere=self.instructs_anywhere)
        if tools:
            check_tools(tools)
        if tools and not self.declares_tools:
            raise FormatError(f"{self._refusal_of_tools()}: leave the tools out")
        check_plain_thinking(self.name, messages)
        kept_from = self._first_kept(messages, policy)
        for index, message in enumerate(messages):
            self._refuse(index, message, reasoning_kept=index >= kept_from)
        if self.family.think is None and start is Start.THINK:
            raise FormatError(f"{self.name} has no tokens for thinking: use Start.DIRECT")
        if self.family.call is not None:
            check_result_names(self.name, messages)
        out = Builder(self._tokenizer)
        self._open(out)
        written = self._declare(out, messages, tools) if tools else 0
        for index, message in enumerate(messages):
            if index < written:
                continue
            if message.role is Role.ASSISTANT:
                self._assistant(out, index, message, kept=index >= kept_from, last=index == len(messages) - 1)
            else:
                self._other(out, index, messages)
        if start is not Start.NONE:
            out.mark(len(messages), None, SpanKind.PROMPT)
            self._prompt(out, start)
        return out.rendered()

    def contexts(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        tools: Sequence[Tool] = (),
    ) -> tuple[Rendered, ...]:
        """As `Format.contexts`: one, because nothing is folded here."""
        return (self.render(messages, policy=policy, train=True, tools=tools).with_loss_on(len(messages) - 1),)

    def parse(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Message:
        return self.parse_generated(ids, start=start, declared=declared).message

    def parse_generated(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Parsed:
        thinking = start is Start.THINK
        parsed = parse_turn(
            self._tokenizer, ids, self.phase_tokens, thinking=thinking, calls=self.calls, declared=declared
        )
        return replace(parsed, message=replace(parsed.message, parts=tuple(self._tidy(parsed.message.parts))))

    # What a family writes -------------------------------------------------------------------------------------------

    def _first_kept(self, messages: Conversation, policy: ReasoningPolicy) -> int:
        """The index of the first message whose reasoning is rendered."""
        return first_kept_reasoning(messages, policy)

    def _open(self, out: Builder) -> None:
        """What stands before the first message."""

    def _declare(self, out: Builder, messages: Conversation, tools: Sequence[Tool]) -> int:
        """Declare the tools, with the instruction where there is one. Returns how many messages that wrote."""
        raise NotImplementedError

    def _assistant(self, out: Builder, index: int, message: Message, *, kept: bool, last: bool) -> None:
        raise NotImplementedError

    def _other(self, out: Builder, index: int, messages: Conversation) -> None:
        raise NotImplementedError

    def _prompt(self, out: Builder, start: Start) -> None:
        raise NotImplementedError

    def _tidy(self, parts: Sequence[Part]) -> Iterator[Part]:
        """Parsed parts without the white space that the format itself writes."""
        yield from parts

    # Helpers --------------------------------------------------------------------------------------------------------

    def _id(self, name: str | None) -> int | None:
        return None if name is None else self._tokenizer.control_id(name)

    def _refusal_of_tools(self) -> str:
        if self.family.call is None:
            return f"{self.name} cannot declare tools"
        return f"this tokenizer's chat template does not declare tools as {self.name} does"

    def _refuse(self, index: int, message: Message, *, reasoning_kept: bool) -> None:
        """Raises FormatError for what the family has no words for."""
        where = f"message {index} ({message.role.value})"
        if message.name is not None:
            raise FormatError(f"{where}: {self.name} cannot express a speaker's name ({message.name!r}); leave it out")
        if message.role is Role.DEVELOPER:
            raise FormatError(f"{where}: {self.name} has no developer role; use a system message")
        for number, part in enumerate(message.parts):
            if isinstance(part, ToolCall | ToolResult) and self.family.call is None:
                raise FormatError(f"{where}, part {number}: {self.name} cannot express tool calls and results")
            if isinstance(part, Reasoning) and reasoning_kept and self.family.think is None:
                raise FormatError(f"{where}, part {number}: {self.name} cannot express reasoning; leave it out")

    def _turn(self, index: int, message: Message) -> AssistantTurn:
        """Raises FormatError when the parts are not in the order reasoning, text, calls."""
        order = [(Reasoning, Text, ToolCall).index(type(part)) for part in message.parts]
        if order != sorted(order) or order.count(0) > 1:
            raise FormatError(
                f"message {index} (assistant): {self.name} writes a turn as one reasoning, then text, then tool calls; "
                f"it cannot express {[type(part).__name__ for part in message.parts]}"
            )
        numbered = list(enumerate(message.parts))
        reasoning = next(((number, part) for number, part in numbered if isinstance(part, Reasoning)), None)
        texts = tuple((number, part) for number, part in numbered if isinstance(part, Text))
        if self.reads_thinking:
            reasoning, texts = self._read_thinking(reasoning, texts)
        return AssistantTurn(
            reasoning, texts, tuple((number, part) for number, part in numbered if isinstance(part, ToolCall))
        )

    def _read_thinking(self, reasoning: Thought, texts: Texts) -> tuple[Thought, Texts]:
        """Reasoning and texts of a turn whose texts may hold thinking."""
        return reasoning, texts


class ThinkingFormat(NativeFormat):
    """Families that write `<think>\\n` reasoning `\\n</think>\\n\\n` answer, as DeepSeek-R1 and Qwen3 do.

    The line breaks are the format's: parsing takes them off a part's text but leaves them in its ids, and rendering
    adds them where a part has no ids.
    """

    def _block(self, out: Builder, index: int, turn: AssistantTurn) -> bool:
        """Write the think block. True when it was sampled: then what follows brings its own line breaks."""
        assert self.family.think is not None
        opening, closing = self.family.think
        number, part = turn.reasoning or (None, Reasoning(""))
        ids = self._sampled(part)
        empty = not part.text and not ids  # the block of a direct prompt
        out.mark(index, number, SpanKind.OPEN).control(opening).text("\n")
        if not empty:
            out.seam().mark(index, number, SpanKind.REASONING, sampled=True)
        if ids is not None and not empty:
            out.ids(ids)
        else:
            out.text(part.text.strip("\n")).text("\n")
        out.mark(index, number, SpanKind.CLOSE, sampled=not empty).control(closing)
        if empty:
            out.text(LEAD).seam()
            return False
        if ids is not None and turn.texts and self._sampled(turn.texts[0][1]) is not None:
            return True
        out.mark(index, turn.texts[0][0] if turn.texts else None, SpanKind.TEXT, sampled=True).text(LEAD)
        return ids is not None

    def _texts(
        self, out: Builder, index: int, turn: AssistantTurn, *, trim: bool, sampled_block: bool, own: bool
    ) -> None:
        """The visible text. trim: without its leading line breaks. sampled_block: ids stand as they were sampled.
        own: the assistant would have sampled it here."""
        written = False
        for number, part in turn.texts:
            text = part.text.lstrip("\n") if trim and not written else part.text
            out.mark(index, number, SpanKind.TEXT, sampled=own)
            ids = self._sampled(part)
            if ids is not None and not (sampled_block or written):
                ids = self._without_line_breaks(ids)
            if ids:
                out.ids(ids)
            else:
                out.text(text)
            written = written or bool(ids or text)

    def _drop(self, out: Builder, index: int, part: Reasoning) -> None:
        """Report the block that is not written: `<think>\\n`, the reasoning, `</think>\\n\\n`."""
        ids = self._sampled(part) or self._tokenizer.encode(part.text.strip("\n") + "\n")
        around = 2 + len(self._tokenizer.encode("\n")) + len(self.phase_tokens.lead)
        out.dropped.append(DroppedReasoning(index, len(ids) + around))

    def _sampled(self, part: Text | Reasoning) -> tuple[int, ...] | None:
        """As `verbatim_ids`, but the text may lack the line breaks around it."""
        if part.ids is None or any(map(self._tokenizer.is_control, part.ids)):
            return None
        return part.ids if self._tokenizer.decode(part.ids).strip("\n") == part.text.strip("\n") else None

    def _without_line_breaks(self, ids: tuple[int, ...]) -> tuple[int, ...] | None:
        """The ids after the leading line breaks; None where a token holds both line breaks and text."""
        at = 0
        while at < len(ids) and not self._tokenizer.decode(ids[at : at + 1]).strip("\n"):
            at += 1
        return None if self._tokenizer.decode(ids[at : at + 1]).startswith("\n") else ids[at:]

    def _tidy(self, parts: Sequence[Part]) -> Iterator[Part]:
        for number, part in enumerate(parts):
            if isinstance(part, Reasoning):
                yield replace(part, text=part.text.strip("\n"))
            elif isinstance(part, Text):
                text = part.text.lstrip("\n") if number and isinstance(parts[number - 1], Reasoning) else part.text
                if number + 1 < len(parts) and isinstance(parts[number + 1], ToolCall):
                    text = text.removesuffix("\n")
                if text.strip("\n") or not (number or len(parts) > 1):
                    yield replace(part, text=text)
            else:
                yield part


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
