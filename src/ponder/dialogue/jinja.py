"""The fallback for any other family: its own Jinja template, rendered in `sandbox/`, safe against injection.

What a template writes is known by rendering it twice: over the text itself, as transformers does, and over placeholders
for the text. What it writes around the placeholders is encoded with control tokens, what they stand for without. Where
the two differ, the template looks at what is said: it is then rendered over placeholders between which the words that
it can look for are shown. A conversation that still comes out otherwise than over its text is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from ponder.dialogue.calls import CallSyntax, JsonCalls
from ponder.dialogue.format import CONTINUATION, Builder, DroppedReasoning, Parsed, Rendered, SpanKind
from ponder.dialogue.messages import (
    INSTRUCTING,
    Conversation,
    Message,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    check_conversation,
    check_plain_thinking,
    check_result_names,
    first_kept_reasoning,
    is_structured,
)
from ponder.dialogue.placeholders import TOOL, Hidden, TemplateFields, shown_words
from ponder.dialogue.tools import Tool, check_tools
from ponder.dialogue.turn import parse_turn
from ponder.sandbox.templates import RENDER_SECONDS, TemplateError, TemplateFailure, render_each, template_words
from ponder.tokenizer import Tokenizer
from ponder.tokenizer.special import NAMED_TOKENS
from ponder.types import FormatError, PhaseTokens

THINK_PAIRS = (("<think>", "</think>"), ("<|think|>", "<|/think|>"), ("[THINK]", "[/THINK]"))
CALL_PAIR = ("<tool_call>", "</tool_call>")
END_NAMES = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>", "</s>")
# What a template may leave out: reasoning is reported as dropped, and the order of calls and results gives the others.
REASONING = "reasoning_content"
OPTIONAL_FIELDS = (REASONING, "id", "tool_call_id", "tool name")
KINDS = {REASONING: SpanKind.REASONING, TOOL: SpanKind.TOOLS}


class JinjaFormat:
    """A conversation as the tokenizer's own chat template writes it."""

    name = "jinja"
    instructs_anywhere = True  # as the template says: it is refused where the template has no place for them

    def __init__(self, tokenizer: Tokenizer, template: str, *, tool_use: str | None = None) -> None:
        """tool_use: the template to use where tools are declared; None: the same."""
        self._tokenizer = tokenizer
        self.source = template
        self._tool_use = tool_use or template
        self._words: dict[str, tuple[str, ...]] = {}  # by template
        control = tokenizer.control
        think = next((pair for pair in THINK_PAIRS if pair[0] in control and pair[1] in control), None)
        call = CALL_PAIR if CALL_PAIR[0] in control and CALL_PAIR[1] in control else None
        self.calls: CallSyntax | None = JsonCalls(tokenizer) if call else None
        self.phase_tokens = PhaseTokens(
            think_open=control[think[0]] if think else None,
            think_close=control[think[1]] if think else None,
            call_open=control[call[0]] if call else None,
            call_close=control[call[1]] if call else None,
            continuation=tuple(tokenizer.encode(CONTINUATION)) if think else (),
            end=tokenizer.end_ids((tokenizer.special_name("eos_token") or "", *END_NAMES)),
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
        """As `Format.render`. Raises TemplateError for what the template refuses, FormatError for a field it loses."""
        check_conversation(messages, start=start, train=train, instructs_anywhere=True)
        if tools:
            check_tools(tools)
        check_result_names("a foreign template", messages)
        if train:
            raise FormatError(
                "a foreign chat template does not say which ids the assistant samples, so it cannot be "
                "trained on: use a native format"
            )
        if start is Start.THINK and self.phase_tokens.think_open is None:
            raise FormatError("this tokenizer has no tokens for thinking that Ponder knows: use Start.DIRECT")
        kept_from = first_kept_reasoning(messages, policy)
        check_plain_thinking("a foreign template", messages[kept_from:])
        text, fields = self._drop_reasoning(messages, kept_from, start, tools)
        if any(message.role in INSTRUCTING for message in messages[1:]):
            _check_places(text, fields)
        out = Builder(self._tokenizer)
        last = self._write(out, text, fields, len(messages))
        self._prompt(out.mark(len(messages), None, SpanKind.PROMPT), start, last)
        lost = {each.message_index for each in self._missing(text, fields) if each.field == REASONING}
        for index, message in enumerate(messages):
            if message.reasoning and (index < kept_from or index in lost):
                out.dropped.append(DroppedReasoning(index, len(self._tokenizer.encode(message.reasoning))))
        return out.rendered()

    @cached_property
    def has_developer(self) -> bool:
        """Whether the template writes what a developer says."""
        try:
            self._run((Message(Role.DEVELOPER, (Text("d"),)), Message.user("u")), Start.NONE, ())
        except FormatError:
            return False
        return True

    def spell(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def _drop_reasoning(
        self, messages: Conversation, kept_from: int, start: Start, tools: Sequence[Tool]
    ) -> tuple[str, TemplateFields]:
        """The conversation without the reasoning before `kept_from`: dropped by the template's own rule, which may
        leave a trace of it, or, where the template keeps it, before the template sees it."""
        bare = [*map(_without_reasoning, messages[:kept_from]), *messages[kept_from:]]
        if any(message.reasoning for message in messages[:kept_from]):
            whole = [
                one if any(map(is_structured, many.parts)) else many for one, many in zip(bare, messages, strict=True)
            ]
            with suppress(FormatError):
                text, fields = self._run(whole, start, tools)
                written = (hidden for _, hidden, _ in fields.pieces(text) if hidden is not None)
                if not any(each.field == REASONING and each.message_index < kept_from for each in written):
                    return text, fields
        return self._run(bare, start, tools)

    def written(
        self, conversations: Sequence[Conversation], starts: Sequence[Start], tools: Sequence[Tool] = ()
    ) -> dict[tuple[int, Start], tuple[int, ...] | None]:
        """The ids that the template gives for each conversation (by its number) with each start, over the text itself.
        None: it gives none. For text that can be trusted. Raises TemplateError when the template does not end."""
        keys = [(number, start) for number in range(len(conversations)) for start in starts]
        shown = [TemplateFields(each, tools, text_arguments=False, hide=False) for each in conversations]
        variables = [shown[number].variables | self._variables(start) for number, start in keys]
        texts = render_each(self._chosen(tools), variables, seconds=2 * RENDER_SECONDS)
        return {key: self._ids(text, key[1]) for key, text in zip(keys, texts, strict=True)}

    def contexts(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        tools: Sequence[Tool] = (),
    ) -> tuple[Rendered, ...]:
        """Raises FormatError, as `render` does for a training example."""
        return (self.render(messages, policy=policy, train=True, tools=tools),)

    def parse(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Message:
        return self.parse_generated(ids, start=start, declared=declared).message

    def parse_generated(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Parsed:
        thinking = start is Start.THINK
        return parse_turn(
            self._tokenizer, ids, self.phase_tokens, thinking=thinking, calls=self.calls, declared=declared
        )

    def words(self, *, tools: bool = False) -> tuple[str, ...]:
        """What the template may look for in a text. tools: the template for tools. Raises TemplateError."""
        template = self._tool_use if tools else self.source
        if template not in self._words:
            self._words[template] = tuple(word for word in template_words(template) if word.strip())
        return self._words[template]

    def _chosen(self, tools: Sequence[Tool]) -> str:
        return self._tool_use if tools else self.source

    def _variables(self, start: Start) -> dict[str, Any]:
        """What transformers gives a template beside the messages and the tools, and whether to think."""
        named = {key: self._tokenizer.special_name(key) for key in NAMED_TOKENS}
        return {
            "documents": None,
            "add_generation_prompt": start is not Start.NONE,
            "enable_thinking": start is not Start.DIRECT,
            **{key: name for key, name in named.items() if name is not None},
        }

    def _run(self, messages: Conversation, start: Start, tools: Sequence[Tool]) -> tuple[str, TemplateFields]:
        """The template's text over placeholders which, filled, is its text over the conversation itself. It gets
        arguments as objects, or as text where it fails on those."""
        template, others = self._chosen(tools), self._variables(start)

        def fields(text_arguments: bool, **how: Any) -> TemplateFields:
            return TemplateFields(messages, tools, text_arguments=text_arguments, **how)

        for text_arguments in (False, True):
            real, hidden = fields(text_arguments, hide=False), fields(text_arguments)
            wanted, text = render_each(template, [each.variables | others for each in (real, hidden)])
            fails = isinstance(wanted, TemplateError) and wanted.failure is TemplateFailure.ERROR
            if not (fails and real.has_calls):
                break
        if isinstance(wanted, TemplateError):
            raise wanted
        if isinstance(text, str) and hidden.filled(text) == wanted:
            return self._whole(text, hidden), hidden
        if words := shown_words(self.words(tools=bool(tools)), self._tokenizer.control):
            partly = fields(text_arguments, words=words)
            (shown,) = render_each(template, [partly.variables | others])
            if isinstance(shown, str) and partly.filled(shown) == wanted:
                return self._whole(shown, partly), partly
        if isinstance(text, str):
            self._whole(text, hidden)
        seen = hidden.filled(text) if isinstance(text, str) else ""
        raise FormatError(
            "the chat template writes this conversation in a way that depends on what its messages say and cannot be "
            f"followed (near {_difference(wanted, seen)!r}): change the messages, or use a model whose format is known"
        )

    def _whole(self, text: str, fields: TemplateFields) -> str:
        """The text, which no field is missing from. Raises FormatError naming one that is."""
        for each in self._missing(text, fields):
            if each.field == TOOL:
                raise FormatError(
                    f"the chat template drops or rewrites a part of the tools ({each.text[:40]!r}); tools that need it "
                    "cannot be declared with this template"
                )
            if each.field not in OPTIONAL_FIELDS:
                raise FormatError(
                    f"message {each.message_index}: the chat template drops or rewrites its {each.field} "
                    f"({each.text[:40]!r}); a conversation that needs it cannot be rendered with this template"
                )
        return text

    def _missing(self, text: str, fields: TemplateFields) -> list[Hidden]:
        """What a template left out."""
        written = {id(hidden) for _, hidden, _ in fields.pieces(text)}
        return [hidden for hidden in fields.hidden.values() if id(hidden) not in written]

    def _ids(self, text: str | TemplateError, start: Start) -> tuple[int, ...] | None:
        if isinstance(text, TemplateError):
            return None
        out = Builder(self._tokenizer)
        self._prompt(out, start, self._literal(out, text, None))
        return out.rendered().ids

    def _write(self, out: Builder, text: str, fields: TemplateFields, num_messages: int) -> int | None:
        """Ids of what the template wrote. Returns its last control id."""
        message, last = 0, None  # type: int, int | None
        for own, hidden, said in fields.pieces(text):
            if hidden is None:
                last = self._literal(out.mark(max(num_messages - 1, 0), None, SpanKind.END), own, last)
            else:
                message = hidden.message_index
                last = self._literal(out.mark(message, None, SpanKind.HEADER), own, last)
                out.mark(message, None, KINDS.get(hidden.field, SpanKind.TEXT)).text(said)
        return last

    def _literal(self, out: Builder, text: str, last: int | None) -> int | None:
        """Template text: control tokens are control tokens here. Returns the last of them, or `last`."""
        for id, piece in self._tokenizer.split_control(text):
            if id is None:
                out.text(piece)
            else:
                out.ids((id,))
                last = id
        return last

    def _prompt(self, out: Builder, start: Start, last: int | None) -> None:
        """Make the prompt end in the phase that was asked for, where the template (last control id: `last`) did not."""
        opening, closing = self.phase_tokens.think_open, self.phase_tokens.think_close
        if opening is None or closing is None:
            return
        if start is Start.THINK and last != opening:
            out.ids((opening,)).text("\n")
        elif start is Start.DIRECT and last == opening:
            out.text("\n").ids((closing,)).text("\n\n")


def _check_places(text: str, fields: TemplateFields) -> None:
    """Raises FormatError where the template writes what is said in another order than it was said in."""
    last = 0
    for _, hidden, _ in fields.pieces(text):
        if hidden is not None and hidden.field == "content":
            if hidden.message_index < last:
                raise FormatError(
                    f"message {last}: the chat template does not write instructions where they stand; put them first"
                )
            last = hidden.message_index


def _difference(wanted: str, seen: str) -> str:
    """Where two texts part."""
    at = next((at for at, (a, b) in enumerate(zip(wanted, seen, strict=False)) if a != b), min(len(wanted), len(seen)))
    return wanted[max(at - 20, 0) : at + 20]


def _without_reasoning(message: Message) -> Message:
    return replace(message, parts=tuple(part for part in message.parts if not isinstance(part, Reasoning)))
