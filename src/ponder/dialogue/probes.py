"""Whether a format writes what a chat template writes: both get the same conversations, and must give the same ids."""

from __future__ import annotations

from collections.abc import Sequence

from ponder.dialogue.format import Format
from ponder.dialogue.jinja import JinjaFormat
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
    first_kept_reasoning,
)
from ponder.dialogue.tools import Tool
from ponder.types import FormatError

MOST_WORDS = 64  # of a template, that are tried one by one
S, U, A = Message.system, Message.user, Message.assistant
TOOLS = (Tool("f", "é", '{"type": "object", "properties": {"x": {"type": "string"}}}'), Tool("g"))


def _called(*parts: Reasoning | Text) -> list[Message]:
    """A turn with two calls and their results."""
    calls = (ToolCall("f", '{"x": "y", "n": 1}'), ToolCall("g", "{}"))
    results = (Message(Role.TOOL, (ToolResult(name, f" {name}\n"),)) for name in "fg")
    return [U("q"), Message(Role.ASSISTANT, (*parts, *calls)), *results]


# Who speaks, in which order; text with white space around it; no text; thinking, in the last turn and before it; calls.
PROBES: tuple[Conversation, ...] = (
    (S("S."), U("a\nb"), A("c."), U("d 1")),
    (U("a"),),
    (S("s"),),
    (S("s"), A("a")),
    (S(" \n s\t\n"), U("\n\n u \n"), A(" \n\n a \n"), U("  u")),
    (S(""), U(""), A(""), U("")),
    (U("a"), A("b")),
    (S("s"), U("a"), A("\n\nb\n")),
    (S("s"), A("b"), U("c")),
    (U("a"), U("b"), A("c"), A("d"), U("e")),
    (U("a", "bob"), A("b"), U("c", "eve")),
    (Message(Role.DEVELOPER, (Text("d"),)), U("a")),
    (S("s"), U("a"), A("b"), S(" t\n"), U("c")),
    (U("a"), S("s"), A("b")),
    (U("a"), A("b"), S("s")),
    (U("a"), A("b", "hm"), U("c")),
    (U("a"), A("b"), U("c"), A("d", "hm\nhm")),
    (U("a"), A("\n\nb\n", "\n\nhm\n\n")),
    _called(),
    _called(Text("t\n")),
    _called(Reasoning("hm"), Text("\nt")),
    (*_called(Reasoning("hm"), Text("t")), A("u", "so")),
    (*_called(Text("t")), A("u"), U("v")),
    (S("s"), *_called(Reasoning("hm")), A("u"), *_called(Reasoning("hm2"))),
)


# Text that a template for models that think may look at. Compared as text: a format never makes control tokens of it.
LOOKED_AT: tuple[Conversation, ...] = (
    *((U("a"), A(f"{text}b"), U("c"), A(f"{text}d"), U("e")) for text in ("x</think>", "<think>\nx\n</think>\n\n")),
    *((U("a"), A(text)) for text in ("x</think>y</think>z", "</think>b", "b<think>c", "x</think>")),
    (U("a"), A("b", "hm"), U("<tool_response>\nr\n</tool_response>"), A("c")),
    (S("<think>x</think>y"), U("<think>x</think>y"), A("b", "x</think>y"), U("/no_think")),
    _called(Text("x</think>t")),
    _called(Text("x</think>")),
)


class Expected:
    """What a chat template writes for each probe and each start, over the text itself."""

    def __init__(self, template: JinjaFormat, *, tools: bool = False, reasoning: bool = True) -> None:
        """tools: with tools declared. reasoning: False leaves out probes with reasoning in the last turn. Raises
        TemplateError when the template does not end."""
        self.tools = TOOLS if tools else ()
        words = template.words(tools=tools)[:MOST_WORDS]
        looking = [
            *LOOKED_AT,
            *((S(f"a {word} b"), U(f"{word} a"), A(f"b {word}"), U(f"c {word} d")) for word in words),
            *((U(f"a {word}"),) for word in words),
        ]
        self.exact = [probe for probe in PROBES if reasoning or not _shows_reasoning(probe)]
        self.probes = self.exact + [probe for probe in looking if reasoning or not _shows_reasoning(probe)]
        self.starts = (Start.NONE, Start.DIRECT, Start.THINK)
        self.written = template.written(self.probes, self.starts, self.tools)
        self.spell = template.spell


def writes_alike(known: Format, expected: Expected) -> bool:
    """Whether `known` gives the template's ids for every probe that it can express, and its text for those in which
    the template may look for something. A template may refuse what `known` refuses."""
    thinks = known.phase_tokens.think_open is not None
    for number, probe in enumerate(expected.probes):
        for start in expected.starts[: 2 + thinks]:
            ours, theirs = _ids(known, probe, start, expected.tools), expected.written[number, start]
            if ours is None or ours == theirs:
                continue
            if theirs is None or number < len(expected.exact) or expected.spell(ours) != expected.spell(theirs):
                return False
    return True


def _shows_reasoning(probe: Conversation) -> bool:
    return any(message.reasoning for message in probe[first_kept_reasoning(probe, ReasoningPolicy.CURRENT_TURN) :])


def _ids(known: Format, probe: Conversation, start: Start, tools: Sequence[Tool]) -> tuple[int, ...] | None:
    """None: `known` refuses it."""
    try:
        return known.render(probe, start=start, tools=tools).ids
    except FormatError:
        return None
