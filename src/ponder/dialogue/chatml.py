"""ChatML as Qwen3 uses it (chat template of Qwen/Qwen3-8B, `tokenizer_config.json`).

Its rule for reasoning: a think block stands in the assistant turns after the last user message, empty in the last
turn when there was no reasoning; earlier turns have none. `enable_thinking=False` is an empty block in the prompt. The
thinking prompt is the template's own plus `<think>\\n`, which the model writes first of all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ponder.dialogue.format import Builder, SpanKind
from ponder.dialogue.messages import (
    Conversation,
    Message,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    ToolCall,
    ToolResult,
)
from ponder.dialogue.native import LEAD, FamilyTokens, Texts, ThinkingFormat, Thought, is_json
from ponder.dialogue.tools import Tool, function_line
from ponder.types import FormatError

OPEN, END = "<|im_start|>", "<|im_end|>"
THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"
RESULT, END_RESULT = "<tool_response>", "</tool_response>"
TOOLS = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
CALLING = """
</tools>

For each function call, return a json object with function name and arguments within """
CALL_EXAMPLE = '\n{"name": <function-name>, "arguments": <args-json-object>}\n'


class ChatMLFormat(ThinkingFormat):
    """`<|im_start|>role\\n` … `<|im_end|>\\n`."""

    family = FamilyTokens(
        name="chatml",
        required=(OPEN, END, THINK, END_THINK, CALL, END_CALL, RESULT, END_RESULT),
        end=(END, "<|endoftext|>"),
        think=(THINK, END_THINK),
        call=(CALL, END_CALL),
    )
    instructs_anywhere = True

    def _first_kept(self, messages: Conversation, policy: ReasoningPolicy) -> int:
        """As the template counts: without a question nothing is kept, and a user message that is the result of a tool
        (where that is read from the text) is not one."""
        if policy is ReasoningPolicy.ALL_TURNS:
            return 0
        questions = (i for i, message in enumerate(messages) if message.role is Role.USER and not self._result(message))
        return max(questions, default=len(messages))

    def _result(self, message: Message) -> bool:
        return self.reads_thinking and message.text.startswith(RESULT) and message.text.endswith(END_RESULT)

    def _read_thinking(self, reasoning: Thought, texts: Texts) -> tuple[Thought, Texts]:
        whole = "".join(part.text for _, part in texts)
        if reasoning is not None or END_THINK not in whole:
            return reasoning, texts
        number, blocks = texts[0][0], whole.split(END_THINK)
        thought = blocks[0].rstrip("\n").split(THINK)[-1].lstrip("\n")
        return (number, Reasoning(thought)) if thought else None, ((number, Text(blocks[-1].lstrip("\n"))),)

    def _declare(self, out: Builder, messages: Conversation, tools: Sequence[Tool]) -> int:
        out.mark(0, None, SpanKind.HEADER).control(OPEN).text("system\n")
        written = int(bool(messages) and messages[0].role is Role.SYSTEM)
        if written:
            for number, part in enumerate(messages[0].parts):
                out.mark(0, number, SpanKind.TEXT).text(getattr(part, "text", ""))
            out.mark(0, None, SpanKind.TOOLS).text("\n\n")
        out.mark(0, None, SpanKind.TOOLS).text(TOOLS).text("\n".join(map(function_line, tools))).text(CALLING)
        out.control(CALL, END_CALL).text(" XML tags:\n").control(CALL).text(CALL_EXAMPLE).control(END_CALL)
        out.mark(0, None, SpanKind.END).control(END).text("\n")
        return written

    def _assistant(self, out: Builder, index: int, message: Message, *, kept: bool, last: bool) -> None:
        turn = self._turn(index, message)
        out.mark(index, None, SpanKind.HEADER).control(OPEN).text("assistant\n")
        block = kept and (last or turn.reasoning is not None)
        sampled_block = self._block(out, index, turn) if block else False
        own = block or turn.reasoning is None  # an answer that lost its reasoning is never sampled
        if turn.reasoning is not None and not block:
            self._drop(out, index, turn.reasoning[1])
        self._texts(out, index, turn, trim=block, sampled_block=sampled_block, own=own)
        content_ids = self._sampled(turn.texts[-1][1]) if turn.texts else None
        for place, (number, call) in enumerate(turn.calls):
            line_break = bool(place) or (any(text.text for _, text in turn.texts) and content_ids is None)
            self._call(out, index, number, call, line_break=line_break, own=own)
        out.mark(index, None, SpanKind.END, sampled=own).control(END)
        out.mark(index, None, SpanKind.END).text("\n")

    def _call(self, out: Builder, index: int, number: int, call: ToolCall, *, line_break: bool, own: bool) -> None:
        if not is_json(call.arguments):
            raise FormatError(f"message {index} (assistant), part {number}: chatml can only express arguments in JSON")
        out.mark(index, number, SpanKind.CALL, sampled=own).text("\n" if line_break else "").control(CALL)
        sampled = self.calls.read(call.ids) if self.calls is not None and call.ids is not None else None
        if call.ids is not None and sampled and (sampled.name, sampled.arguments) == (call.name, call.arguments):
            out.ids(call.ids)
        else:
            name = json.dumps(call.name, ensure_ascii=False)
            out.text(f'\n{{"name": {name}, "arguments": {call.arguments}}}\n')
        out.control(END_CALL)

    def _other(self, out: Builder, index: int, messages: Conversation) -> None:
        message = messages[index]
        if message.role is not Role.TOOL:
            out.mark(index, None, SpanKind.HEADER).control(OPEN).text(f"{message.role.value}\n")
            for number, part in enumerate(message.parts):
                out.mark(index, number, SpanKind.TEXT).text(getattr(part, "text", ""))
            out.mark(index, None, SpanKind.END).control(END).text("\n")
            return
        if index == 0 or messages[index - 1].role is not Role.TOOL:  # results in a row share one turn
            out.mark(index, None, SpanKind.HEADER).control(OPEN).text("user")
        for number, part in enumerate(message.parts):
            assert isinstance(part, ToolResult)
            out.mark(index, number, SpanKind.RESULT).text("\n").control(RESULT)
            out.text("\n").text(part.content).text("\n").control(END_RESULT)
        if index + 1 == len(messages) or messages[index + 1].role is not Role.TOOL:
            out.mark(index, None, SpanKind.END).control(END).text("\n")

    def _prompt(self, out: Builder, start: Start) -> None:
        out.control(OPEN).text("assistant\n").control(THINK)
        if start is Start.THINK:
            out.text("\n")
        else:
            out.text("\n\n").control(END_THINK).text(LEAD)
