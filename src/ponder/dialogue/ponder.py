"""Ponder's own format (`docs/format.md`): render and parse, side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ponder.dialogue import control
from ponder.dialogue.calls import CallSyntax, SeparatedCalls
from ponder.dialogue.format import (
    CONTINUATION,
    Builder,
    DroppedReasoning,
    Parsed,
    Rendered,
    SpanKind,
    verbatim_ids,
)
from ponder.dialogue.messages import (
    INSTRUCTING,
    Conversation,
    LaneEnd,
    Message,
    Part,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    ToolCall,
    ToolResult,
    Voice,
    check_conversation,
    first_kept_reasoning,
    is_state,
    think_blocks,
)
from ponder.dialogue.tools import Tool, check_tools, declaration_line
from ponder.dialogue.turn import parse_turn
from ponder.tokenizer import Tokenizer
from ponder.types import CouncilTokens, PhaseTokens
from ponder.voices import spawned

MOST_VOICES = 8


class PonderFormat:
    """Ponder's own format: a role token opens a turn, `<|end|>` closes it, and nothing but tokens and text between."""

    name = "ponder"
    instructs_anywhere = True
    has_developer = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises TokenizerError when the tokenizer lacks one of the control tokens."""
        self._tokenizer = tokenizer
        ids = {name: tokenizer.control_id(name) for name in control.CONTROL_TOKENS}
        self.calls: CallSyntax = SeparatedCalls(tokenizer, ids[control.ARGS])
        ends = tokenizer.end_ids((control.END, control.ENDOFTEXT))
        self._council = CouncilTokens(
            spawn=ids[control.SPAWN],
            numbers=tuple(tokenizer.encode("".join(map(str, range(1, MOST_VOICES + 1))))),
            address=ids[control.TO],
            leave=ids[control.LEAVE],
            join=ids[control.JOIN],
            closing=(ids[control.END_THINK], *ends),
            banned=tuple(sorted({*tokenizer.control.values()} - {ids[control.LEAVE], ids[control.JOIN]})),
        )
        self.phase_tokens = PhaseTokens(
            think_open=ids[control.THINK],
            think_close=ids[control.END_THINK],
            state_open=ids[control.STATE],
            fold=ids[control.FOLD],
            call_open=ids[control.CALL],
            call_close=ids[control.END_CALL],
            continuation=tuple(tokenizer.encode(CONTINUATION)),
            council=self._council,
            end=ends,
        )

    def render(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        start: Start = Start.NONE,
        train: bool = False,
        tools: Sequence[Tool] = (),
    ) -> Rendered:
        check_conversation(messages, start=start, train=train, instructs_anywhere=True)
        out = self._conversation(messages, policy, tools)
        if start is not Start.NONE:
            out.mark(len(messages), None, SpanKind.PROMPT).control(control.ASSISTANT)
            if start is Start.THINK:
                out.control(control.THINK)
        return out.rendered()

    def contexts(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        tools: Sequence[Tool] = (),
    ) -> tuple[Rendered, ...]:
        check_conversation(messages, start=Start.NONE, train=True, instructs_anywhere=True)
        states = [number for number, part in enumerate(messages[-1].parts) if is_state(part)]
        return tuple(
            self._conversation(messages, policy, tools, fold).rendered().with_loss_on(len(messages) - 1)
            for fold in (*states, None)
        )

    def _conversation(
        self, messages: Conversation, policy: ReasoningPolicy, tools: Sequence[Tool], fold: int | None = None
    ) -> Builder:
        """fold: part of the last message, a state at whose close the rendering ends."""
        if tools:
            check_tools(tools)
        kept_from = first_kept_reasoning(messages, policy)
        out = Builder(self._tokenizer)
        if tools and not (messages and messages[0].role in INSTRUCTING):
            self._message(out, 0, Message(Role.SYSTEM, ()), tools)
            tools = ()
        for index, message in enumerate(messages):
            last = index == len(messages) - 1
            kept, declared = index >= kept_from, tools if index == 0 else ()
            self._message(out, index, message, declared, keep_reasoning=kept, fold=fold if last else None)
        return out

    def _message(
        self,
        out: Builder,
        index: int,
        message: Message,
        tools: Sequence[Tool] = (),
        *,
        keep_reasoning: bool = True,
        fold: int | None = None,
    ) -> None:
        parts = message.parts if fold is None else message.parts[: fold + 1]
        whole = keep_reasoning or not any(isinstance(part, Reasoning) for part in parts)
        own = message.role is Role.ASSISTANT and whole  # an answer that lost its reasoning is never sampled
        # Up to its last state (of those before `fold`) the turn was sampled in earlier contexts.
        states = [number for number, part in enumerate(message.parts[:fold]) if is_state(part)]
        earlier = max(states, default=-1)
        shown = [
            range(max((state for state in states if state in block), default=block.start), block.stop)
            for block in think_blocks(parts)
        ]
        out.mark(index, None, SpanKind.HEADER).control(control.ROLE_TOKENS[message.role])
        if message.name is not None:
            out.control(control.NAME).text(message.name).control(control.BODY)
        header, dropped, folded = len(out), 0, 0
        for number, part in enumerate(parts):
            sampled = own and number > earlier
            block = next((block for block in shown if number in block), None)
            if not isinstance(part, Reasoning):
                self._part(out, index, number, part, sampled=sampled)
            elif block is None:
                folded += self._length(part)
            elif not keep_reasoning:
                dropped += self._length(part) + (2 if number == block[0] else 0)
            else:
                if number == block[0]:
                    # The open token right after the header belongs to the generation prompt; a later one is sampled.
                    opened = sampled and len(out) > header
                    out.mark(index, number, SpanKind.OPEN, sampled=opened).control(control.THINK)
                self._part(out, index, number, part, sampled=sampled)
                if number == block[-1] and number != fold:
                    out.mark(index, number, SpanKind.CLOSE, sampled=own and number >= earlier)
                    out.control(control.END_THINK)
        if dropped:
            out.dropped.append(DroppedReasoning(index, dropped))
        if folded:
            out.folded.append(DroppedReasoning(index, folded))
        if tools:
            out.mark(index, None, SpanKind.TOOLS).control(control.TOOL).text("\n".join(map(declaration_line, tools)))
        if fold is None:
            out.mark(index, None, SpanKind.END, sampled=own).control(control.END)

    def _length(self, part: Reasoning) -> int:
        """How many ids a part of a think block takes, those that open and close a state or a council included."""
        if part.voices:
            return len(spawned(self._lanes(part), self._council))
        ids = verbatim_ids(self._tokenizer, part)
        return len(self._tokenizer.encode(part.text) if ids is None else ids) + (2 if part.state else 0)

    def _part(self, out: Builder, index: int, number: int, part: Part, *, sampled: bool) -> None:
        match part:
            case Text():
                out.mark(index, number, SpanKind.TEXT, sampled=sampled)
                self._verbatim_or_text(out, part)
            case Reasoning(state=True):
                out.mark(index, number, SpanKind.STATE, sampled=sampled).control(control.STATE)
                self._verbatim_or_text(out, part)
                out.control(control.FOLD)
            case Reasoning() if part.voices:
                ids, opening = tuple(spawned(self._lanes(part), self._council)), 2 + len(part.voices)
                out.mark(index, number, SpanKind.COUNCIL, sampled=sampled).ids(ids[:2])
                out.mark(index, number, SpanKind.COUNCIL).ids(ids[2:opening])  # put in, not sampled
                out.mark(index, number, SpanKind.COUNCIL, sampled=sampled).ids(ids[opening:])
            case Reasoning():
                out.mark(index, number, SpanKind.REASONING, sampled=sampled)
                self._verbatim_or_text(out, part)
            case ToolCall():
                out.mark(index, number, SpanKind.CALL, sampled=sampled).control(control.CALL)
                read = self.calls.read(part.ids) if part.ids is not None else None
                if read and (read.name, read.arguments) == (part.name, part.arguments):
                    out.ids(part.ids or ())
                else:
                    out.text(part.name).control(control.ARGS).text(part.arguments)
                out.control(control.END_CALL)
            case ToolResult():
                out.mark(index, number, SpanKind.RESULT).control(control.RESULT).text(part.name)
                out.control(control.BODY).text(part.content).control(control.END_RESULT)

    def _lanes(self, part: Reasoning) -> list[list[int]]:
        """What each voice of a council says, with the tokens that open and end its lane."""
        tokens = self._council
        ends = {LaneEnd.LEFT: [tokens.leave], LaneEnd.JOINED: [tokens.join], LaneEnd.CUT: []}

        def said(voice: Voice) -> Sequence[int]:
            ids = verbatim_ids(self._tokenizer, voice)
            return self._tokenizer.encode(voice.text) if ids is None else ids

        return [[tokens.address, *said(voice), *ends[voice.end]] for voice in part.voices]

    def _verbatim_or_text(self, out: Builder, part: Text | Reasoning) -> None:
        ids = verbatim_ids(self._tokenizer, part)
        if ids is None:
            out.text(part.text)
        else:
            out.ids(ids)

    def parse(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Message:
        return self.parse_generated(ids, start=start, declared=declared).message

    def parse_generated(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Parsed:
        thinking = start is Start.THINK
        return parse_turn(
            self._tokenizer, ids, self.phase_tokens, thinking=thinking, calls=self.calls, declared=declared
        )
