"""DeepSeek-R1's format (chat template of deepseek-ai/DeepSeek-R1, `tokenizer_config.json`, and of its distillations).

The template opens `<think>\\n` in the prompt and takes the reasoning out of every earlier answer. Ponder keeps it in
the current turn, which the template never shows. The direct prompt is the empty block in which, by the model card, R1
itself skips thinking. Tool calls are refused: the template loses the opening token of every round but the first.
"""

from __future__ import annotations

from ponder.dialogue.format import Builder, SpanKind
from ponder.dialogue.messages import Conversation, Message, Role, Start, Text
from ponder.dialogue.native import LEAD, FamilyTokens, Texts, ThinkingFormat, Thought

BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"


class DeepSeekR1Format(ThinkingFormat):
    """System text, then `<｜User｜>` text and `<｜Assistant｜>` text `<｜end▁of▁sentence｜>` in turn."""

    family = FamilyTokens(
        name="deepseek_r1",
        required=(BEGIN, END, USER, ASSISTANT, THINK, END_THINK),
        end=(END,),
        think=(THINK, END_THINK),
    )
    shows_reasoning = False

    def _open(self, out: Builder) -> None:
        out.mark(0, None, SpanKind.HEADER).control(BEGIN)

    def _assistant(self, out: Builder, index: int, message: Message, *, kept: bool, last: bool) -> None:
        turn = self._turn(index, message)
        out.mark(index, None, SpanKind.HEADER).control(ASSISTANT)
        block = kept and turn.reasoning is not None
        sampled_block = self._block(out, index, turn) if block else False
        own = block or turn.reasoning is None  # an answer that lost its reasoning is never sampled
        if turn.reasoning is not None and not block:
            self._drop(out, index, turn.reasoning[1])
        self._texts(out, index, turn, trim=block, sampled_block=sampled_block, own=own)
        out.mark(index, None, SpanKind.END, sampled=own).control(END)

    def _read_thinking(self, reasoning: Thought, texts: Texts) -> tuple[Thought, Texts]:
        whole = "".join(part.text for _, part in texts)
        return reasoning, ((texts[0][0], Text(whole.split(END_THINK)[-1])),) if END_THINK in whole else texts

    def _other(self, out: Builder, index: int, messages: Conversation) -> None:
        message = messages[index]
        if message.role is Role.USER:
            out.mark(index, None, SpanKind.HEADER).control(USER)
        for number, part in enumerate(message.parts):
            out.mark(index, number, SpanKind.TEXT).text(getattr(part, "text", ""))

    def _prompt(self, out: Builder, start: Start) -> None:
        out.control(ASSISTANT, THINK)
        if start is Start.THINK:
            out.text("\n")
        else:
            out.text("\n\n").control(END_THINK).text(LEAD)
