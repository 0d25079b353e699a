"""The fallback for any other family: its own Jinja template, rendered in `sandbox/`, safe against injection.

The template never sees the messages' text. Each text field is replaced by an unguessable placeholder; what the template
writes around the placeholders is encoded with control tokens, what the placeholders stand for without. White space at
the ends of a field stays outside its placeholder, so a template's `trim` works on it; a field that a template drops
or rewrites in any other way is refused.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ponder.dialogue.calls import CallSyntax, JsonCalls
from ponder.dialogue.format import CONTINUATION, Builder, DroppedReasoning, Parsed, Rendered, SpanKind
from ponder.dialogue.interchange import to_dicts
from ponder.dialogue.messages import (
    Conversation,
    Message,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    check_conversation,
    check_no_states,
    check_result_names,
    first_kept_reasoning,
)
from ponder.dialogue.tools import Tool, check_tools, tool_dict
from ponder.dialogue.turn import parse_turn
from ponder.sandbox.templates import TemplateError, TemplateFailure, render_template
from ponder.tokenizer import Tokenizer
from ponder.types import FormatError, PhaseTokens

THINK_PAIRS = (("<think>", "</think>"), ("<|think|>", "<|/think|>"), ("[THINK]", "[/THINK]"))
CALL_PAIR = ("<tool_call>", "</tool_call>")
END_NAMES = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>", "</s>")
PLACEHOLDER = re.compile(r'(\\?)"([0-9a-f]{32})\1"')
# What a template may leave out: reasoning is reported as dropped, and the order of calls and results gives the others.
OPTIONAL_FIELDS = ("reasoning_content", "id", "tool_call_id", "tool name")
TOOL = "tool"
KINDS = {"reasoning_content": SpanKind.REASONING, TOOL: SpanKind.TOOLS}
# Words of a tool's schema that a template may look at. None of them is text of the caller's.
SCHEMA_WORDS = frozenset(
    (
        *("type", "object", "array", "string", "number", "integer", "boolean", "null", "nullable"),
        *("properties", "required", "additionalProperties", "items", "enum", "const", "format", "default"),
        *("anyOf", "oneOf", "allOf", "title", "description"),
    )
)


class JinjaFormat:
    """A conversation as the tokenizer's own chat template writes it."""

    name = "jinja"
    instructs_anywhere = False

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        self._template = template
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
            end=tokenizer.end_ids((self._special("eos_token"), *END_NAMES)),
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
        check_conversation(messages, start=start, train=train)
        if tools:
            check_tools(tools)
        check_result_names("a foreign template", messages)
        if train:
            raise FormatError("a foreign template does not say which ids the assistant samples: train a native format")
        if start is Start.THINK and self.phase_tokens.think_open is None:
            raise FormatError("this tokenizer has no tokens for thinking that Ponder knows: use Start.DIRECT")
        kept_from = first_kept_reasoning(messages, policy)
        shown = [
            message if index >= kept_from else _without_reasoning(message) for index, message in enumerate(messages)
        ]
        check_no_states("a foreign template", shown)
        text, fields = self._run(shown, start, tools)
        out = Builder(self._tokenizer)
        lost, last = self._write(out, text, fields, len(messages))
        self._prompt(out.mark(len(messages), None, SpanKind.PROMPT), start, last)
        for index, message in enumerate(messages):
            if message.reasoning and (index < kept_from or index in lost):
                out.dropped.append(DroppedReasoning(index, len(self._tokenizer.encode(message.reasoning))))
        return out.rendered()

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

    def _run(self, messages: Conversation, start: Start, tools: Sequence[Tool]) -> tuple[str, _Fields]:
        """The template's text over placeholders. It gets arguments as objects, or as text where it fails on those."""
        fields = _Fields(messages, tools, text_arguments=False)
        variables = {
            "add_generation_prompt": start is not Start.NONE,
            "enable_thinking": start is not Start.DIRECT,
            **{name: self._special(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
        }
        try:
            return render_template(self._template, fields.variables | variables), fields
        except TemplateError as error:
            if error.failure is not TemplateFailure.ERROR or not any("tool_calls" in entry for entry in fields.entries):
                raise
        fields = _Fields(messages, tools, text_arguments=True)
        return render_template(self._template, fields.variables | variables), fields

    def _write(self, out: Builder, text: str, fields: _Fields, num_messages: int) -> tuple[set[int], int | None]:
        """Ids of what the template wrote. Returns the messages whose reasoning it left out, and its last control id."""
        missing = dict(fields.hidden)
        at, message, last = 0, 0, None  # type: int, int, int | None
        for found in PLACEHOLDER.finditer(text):
            if found[2] not in fields.hidden:
                continue
            message, field, value = fields.hidden[found[2]]
            missing.pop(found[2], None)
            last = self._literal(out.mark(message, None, SpanKind.HEADER), text[at : found.start()], last)
            out.mark(message, None, KINDS.get(field, SpanKind.TEXT))
            out.text(json.dumps(value, ensure_ascii=False)[1:-1] if found[1] else value)
            at = found.end()
        last = self._literal(out.mark(max(num_messages - 1, 0), None, SpanKind.END), text[at:], last)
        for lost, field, value in missing.values():
            if field == TOOL:
                raise FormatError(
                    f"the chat template drops or rewrites a part of the tools ({value[:40]!r}); tools that need it "
                    "cannot be declared with this template"
                )
            if field not in OPTIONAL_FIELDS:
                raise FormatError(
                    f"message {lost}: the chat template drops or rewrites its {field} ({value[:40]!r}); "
                    "a conversation that needs it cannot be rendered with this template"
                )
        return {lost for lost, field, _ in missing.values() if field == "reasoning_content"}, last

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

    def _special(self, name: str) -> str:
        """The text of `bos_token` and the like in the tokenizer's config."""
        return self._tokenizer.special_name(name) or ""


class _Fields:
    """The text fields of one conversation, replaced by placeholders."""

    def __init__(self, messages: Conversation, tools: Sequence[Tool], *, text_arguments: bool) -> None:
        """text_arguments: a tool call's arguments are one text; otherwise the object that it spells."""
        self._text_arguments = text_arguments
        self.hidden: dict[str, tuple[int, str, str]] = {}  # key → (message, field, text)
        self.entries = [
            self._entry(index, entry) for index, message in enumerate(messages) for entry in to_dicts([message])
        ]
        self.tools = [{"type": "function", "function": self._tool(tool_dict(tool)["function"])} for tool in tools]

    @property
    def variables(self) -> dict[str, Any]:
        """What the template is given of them."""
        return {"messages": self.entries, **({"tools": self.tools} if self.tools else {})}

    def _hide(self, index: int, field: str, text: str) -> str:
        core = text.strip()
        if not core:
            return text
        key = secrets.token_hex(16)
        self.hidden[key] = (index, field, core)
        begin = text.index(core)
        return f'{text[:begin]}"{key}"{text[begin + len(core) :]}'

    def _entry(self, index: int, entry: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {"role": entry["role"]}
        for field in ("content", "name", "reasoning_content", "tool_call_id"):
            if field in entry:
                label = "tool name" if field == "name" and entry["role"] == Role.TOOL else field
                shown[field] = self._hide(index, label, entry[field])
        if "reasoning_content" in shown:
            shown["reasoning"] = shown["thinking"] = shown["reasoning_content"]
        if "tool_calls" in entry:
            shown["tool_calls"] = [self._call(index, call) for call in entry["tool_calls"]]
        return shown

    def _call(self, index: int, call: dict[str, Any]) -> dict[str, Any]:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        function = {"name": self._hide(index, "tool call name", name), "arguments": self._arguments(index, arguments)}
        shown = {"type": "function", "function": function}
        return shown if "id" not in call else {**shown, "id": self._hide(index, "id", call["id"])}

    def _arguments(self, index: int, arguments: str) -> Any:
        if not self._text_arguments:
            try:
                return self._hide_within(index, json.loads(arguments), "arguments")
            except (ValueError, RecursionError):
                pass
        return self._hide(index, "arguments", arguments)

    def _tool(self, function: dict[str, Any]) -> dict[str, Any]:
        return {key: self._hide_within(0, value, TOOL, SCHEMA_WORDS) for key, value in function.items()}

    def _hide_within(self, index: int, value: Any, field: str, shown: Collection[str] = ()) -> Any:
        """shown: words that stay as they are."""
        if isinstance(value, str):
            return value if value in shown else self._hide(index, field, value)
        if isinstance(value, list):
            return [self._hide_within(index, item, field, shown) for item in value]
        if isinstance(value, dict):
            return {
                self._hide_within(index, key, field, shown): self._hide_within(index, item, field, shown)
                for key, item in value.items()
            }
        return value


def _without_reasoning(message: Message) -> Message:
    return replace(message, parts=tuple(part for part in message.parts if not isinstance(part, Reasoning)))
