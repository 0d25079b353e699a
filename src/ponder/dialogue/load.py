"""The format that a tokenizer speaks, by its control tokens and its chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product

from ponder.dialogue.chatml import ChatMLFormat
from ponder.dialogue.control import CONTROL_TOKENS, END, ENDOFTEXT
from ponder.dialogue.deepseek_r1 import DeepSeekR1Format
from ponder.dialogue.format import Format
from ponder.dialogue.jinja import JinjaFormat
from ponder.dialogue.llama3 import Llama3Format
from ponder.dialogue.native import NativeFormat
from ponder.dialogue.ponder import PonderFormat
from ponder.dialogue.probes import Expected, writes_alike
from ponder.dialogue.template import ponder_template
from ponder.tokenizer import DEFAULT_TEMPLATE, Tokenizer
from ponder.types import FormatError

NATIVE: dict[str, type[NativeFormat]] = {
    "chatml": ChatMLFormat,
    "llama3": Llama3Format,
    "deepseek_r1": DeepSeekR1Format,
}
TOOL_TEMPLATE = "tool_use"  # the name under which transformers looks for a template where tools are declared
FORMATS: dict[str, Callable[[Tokenizer], Format]] = {"ponder": PonderFormat, **NATIVE}


def load_format(tokenizer: Tokenizer, name: str | None = None, chat_template: str | None = None) -> Format:
    """The format of a tokenizer.

    name: one of "ponder", "chatml", "llama3", "deepseek_r1", "jinja"; None: found as below.
    chat_template: instead of the tokenizer's own; a text, or the name of one of the tokenizer's templates.

    Without a name it is Ponder's own or a native format, when the tokenizer carries its control tokens *and* it writes
    the conversations of `probes.py` as the chat template does; tools are declared where the template does it alike.
    Else it is the template itself, run in the sandbox.
    Raises FormatError when nothing fits, TokenizerError when a named format's control tokens are missing, TemplateError
    when the template does not end.
    """
    if name in FORMATS:
        return FORMATS[name](tokenizer)
    if name not in (None, "jinja"):
        raise FormatError(f"no dialogue format is named {name!r}; known: {', '.join([*FORMATS, 'jinja'])}")
    template = _template(tokenizer, chat_template)
    for known in _known_formats(tokenizer) if name is None else ():
        if template is None or _speaks(known, template):
            return known
    if template is None:
        raise FormatError(
            "this tokenizer carries no chat template and no control tokens that Ponder knows; pass chat_template=…, "
            f"or name one of {', '.join(FORMATS)}"
        )
    return template


def _known_formats(tokenizer: Tokenizer) -> Iterator[PonderFormat | NativeFormat]:
    """The formats whose control tokens the tokenizer carries."""
    carried = set(tokenizer.control)
    if set(CONTROL_TOKENS) <= carried:
        yield PonderFormat(tokenizer)
    yield from (family(tokenizer) for family in NATIVE.values() if set(family.family.required) <= carried)


def _speaks(known: PonderFormat | NativeFormat, template: JinjaFormat) -> bool:
    """Whether a format writes what the template writes. What a native format leaves open it takes from the template."""
    if isinstance(known, PonderFormat):
        return template.source == ponder_template() or writes_alike(known, Expected(template))
    expected = Expected(template, reasoning=known.shows_reasoning)
    anywhere = (True, False) if known.instructs_anywhere else (False,)
    for known.reads_thinking, known.instructs_anywhere in product((False, True), anywhere):
        if writes_alike(known, expected):
            known.declares_tools = known.declares_tools and writes_alike(known, Expected(template, tools=True))
            return True
    return False


def _template(tokenizer: Tokenizer, given: str | None) -> JinjaFormat | None:
    """The chat template that was given, or the tokenizer's default; with its template for tools, if it has one."""
    named = tokenizer.chat_templates
    if given is not None and given not in named:
        return JinjaFormat(tokenizer, given)
    if not named:
        return None
    chosen = named.get(given or DEFAULT_TEMPLATE)
    if chosen is None:
        raise FormatError(
            f"this tokenizer has chat templates, but none is called {DEFAULT_TEMPLATE!r} (it has {', '.join(named)}): "
            "pass the name of one as chat_template=…"
        )
    return JinjaFormat(tokenizer, chosen, tool_use=named.get(TOOL_TEMPLATE) if given is None else None)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer for Ponder's own format. Saved, it carries the format's chat template and special tokens."""
    config = {"chat_template": ponder_template(), "eos_token": END, "pad_token": ENDOFTEXT}
    return Tokenizer.train(texts, vocab_size, CONTROL_TOKENS, config=config)
