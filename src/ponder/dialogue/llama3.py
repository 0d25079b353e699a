"""Llama 3's format (chat template of meta-llama/Meta-Llama-3-8B-Instruct). It has no names, no tools, no reasoning.

Llama 3.1 and later put a dated preamble into the system message; their own template runs through the Jinja fallback.
"""

from __future__ import annotations

from ponder.dialogue.format import Builder, DroppedReasoning, SpanKind, verbatim_ids
from ponder.dialogue.messages import Conversation, Message, Reasoning, Role, Start, Text
from ponder.dialogue.native import FamilyTokens, NativeFormat

BEGIN = "<|begin_of_text|>"
HEADER, END_HEADER = "<|start_header_id|>", "<|end_header_id|>"
END = "<|eot_id|>"


class Llama3Format(NativeFormat):
    """`<|start_header_id|>role<|end_header_id|>\\n\\n` text, trimmed, `<|eot_id|>`."""

    family = FamilyTokens(name="llama3", required=(BEGIN, HEADER, END_HEADER, END), end=(END, "<|end_of_text|>"))
    instructs_anywhere = True

    def _open(self, out: Builder) -> None:
        out.mark(0, None, SpanKind.HEADER).control(BEGIN)

    def _assistant(self, out: Builder, index: int, message: Message, *, kept: bool, last: bool) -> None:
        self._header(out, index, "assistant")
        thoughts = [part.text for part in message.parts if isinstance(part, Reasoning)]
        if thoughts:
            out.dropped.append(DroppedReasoning(index, sum(map(len, self._tokenizer.encode_batch(thoughts)))))
        own = not thoughts  # an answer that lost its reasoning is never sampled
        self._texts(out, index, message, own=own)
        out.mark(index, None, SpanKind.END, sampled=own).control(END)

    def _other(self, out: Builder, index: int, messages: Conversation) -> None:
        self._header(out, index, messages[index].role.value)
        self._texts(out, index, messages[index], own=False)
        out.mark(index, None, SpanKind.END).control(END)

    def _prompt(self, out: Builder, start: Start) -> None:
        out.control(HEADER).text("assistant").control(END_HEADER).text("\n\n")

    def _header(self, out: Builder, index: int, role: str) -> None:
        out.mark(index, None, SpanKind.HEADER).control(HEADER).text(role).control(END_HEADER).text("\n\n")

    def _texts(self, out: Builder, index: int, message: Message, *, own: bool) -> None:
        """The message's text, trimmed as a whole; sampled ids stand as they are."""
        parts = [(number, part) for number, part in enumerate(message.parts) if isinstance(part, Text)]
        before, whole = 0, message.text
        begin, end = len(whole) - len(whole.lstrip()), len(whole.rstrip())
        for number, part in parts:
            out.mark(index, number, SpanKind.TEXT, sampled=own)
            ids = verbatim_ids(self._tokenizer, part) if message.role is Role.ASSISTANT else None
            if ids is not None:
                out.ids(ids)
            else:
                out.text(part.text[max(begin - before, 0) : max(end - before, 0)])
            before += len(part.text)
