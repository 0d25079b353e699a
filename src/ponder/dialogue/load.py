"""The format that a tokenizer speaks, by its control tokens and its chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ponder.dialogue.chatml import ChatMLFormat
from ponder.dialogue.control import CONTROL_TOKENS, END, ENDOFTEXT
from ponder.dialogue.deepseek_r1 import DeepSeekR1Format
from ponder.dialogue.format import Format
from ponder.dialogue.jinja import JinjaFormat
from ponder.dialogue.llama3 import Llama3Format
from ponder.dialogue.messages import Message, Start
from ponder.dialogue.native import NativeFormat
from ponder.dialogue.ponder import PonderFormat
from ponder.dialogue.template import ponder_template
from ponder.dialogue.tools import Tool
from ponder.tokenizer import DEFAULT_TEMPLATE, Tokenizer
from ponder.types import FormatError

NATIVE: dict[str, type[NativeFormat]] = {
    "chatml": ChatMLFormat,
    "llama3": Llama3Format,
    "deepseek_r1": DeepSeekR1Format,
}
FORMATS: dict[str, Callable[[Tokenizer], Format]] = {"ponder": PonderFormat, **NATIVE}
# Distinguishes the families' templates: a system message, an answer in the middle, text that begins with white space.
PROBE = (Message.system("S."), Message.user("a\nb"), Message.assistant("c."), Message.user("d 1"))
PROBE_TOOLS = (Tool("f", "é", '{"type": "object", "properties": {"x": {"type": "string"}}}'), Tool("g"))


def load_format(tokenizer: Tokenizer, name: str | None = None, chat_template: str | None = None) -> Format:
    """The format of a tokenizer.

    name: one of "ponder", "chatml", "llama3", "deepseek_r1", "jinja"; None: Ponder's own when the tokenizer carries its
    control tokens, else the native format whose tokens it carries *and* whose output on a probe equals that of the
    chat template, else the sandboxed fallback on that template. A native format found so declares tools where the
    template declares them alike. chat_template: instead of the tokenizer's own.
    Raises FormatError when nothing fits, TokenizerError when a named format's control tokens are missing.
    """
    template = chat_template if chat_template is not None else tokenizer.chat_template
    if name in FORMATS:
        return FORMATS[name](tokenizer)
    if name not in (None, "jinja"):
        raise FormatError(f"no dialogue format is named {name!r}; known: {', '.join([*FORMATS, 'jinja'])}")
    if name is None and set(CONTROL_TOKENS) <= set(tokenizer.control):
        return PonderFormat(tokenizer)
    if template is None and tokenizer.chat_templates:
        raise FormatError(
            f"this tokenizer has chat templates, but none of them is called {DEFAULT_TEMPLATE!r} "
            f"({', '.join(tokenizer.chat_templates)}): pass one of them as chat_template=…"
        )
    fallback = JinjaFormat(tokenizer, template) if template is not None else None
    for family in NATIVE.values() if name is None else ():
        if set(family.family.required) <= set(tokenizer.control):
            native = family(tokenizer)
            if fallback is None or _same(native, fallback):
                if fallback is not None and native.declares_tools:
                    native.declares_tools = _same(native, fallback, PROBE_TOOLS)
                return native
    if fallback is None:
        raise FormatError(
            "this tokenizer carries no chat template and no control tokens that Ponder knows; pass chat_template=…, "
            f"or name one of {', '.join(FORMATS)}"
        )
    return fallback


def _same(native: NativeFormat, fallback: JinjaFormat, tools: Sequence[Tool] = ()) -> bool:
    """Whether both write the probe alike, without and with each generation prompt."""
    starts = [Start.NONE, Start.DIRECT, *([Start.THINK] if native.family.think else [])]
    try:
        return all(
            native.render(probe, start=start, tools=tools).ids == fallback.render(probe, start=start, tools=tools).ids
            for start in starts
            for probe in ((PROBE, PROBE[1:]) if tools else (PROBE,))
        )
    except FormatError:
        return False


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer for Ponder's own format. Saved, it carries the format's chat template and special tokens."""
    config = {"chat_template": ponder_template(), "eos_token": END, "pad_token": ENDOFTEXT}
    return Tokenizer.train(texts, vocab_size, CONTROL_TOKENS, config=config)
