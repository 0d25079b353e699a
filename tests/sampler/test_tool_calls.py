"""Calls as they are streamed equal the calls of the message, whatever is sampled and wherever it is cut; and whatever
is sampled under a choice of tools keeps to it."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.dialogue import Arguments, Message, Start, Tool, ToolCall, load_format
from ponder.dialogue.calls import json_call
from ponder.dialogue.format import ParseStatus
from ponder.dialogue.load import train_tokenizer
from ponder.engine import TokenEvent
from ponder.engine.blocks import CacheKey
from ponder.engine.phases import Phases
from ponder.engine.sequence import Sequence
from ponder.kernels import Pick
from ponder.sampler.calling import compile_calling
from ponder.sampler.protocol import JsonSchema, NamedTool, ParallelCalls, Request, ToolChoice
from ponder.sampler.visible import CallText, VisibleText, cut_at_stop
from ponder.testing.tiny import ByteTokenizer
from ponder.tokenizer import Tokenizer
from ponder.types import Origin, Phase, SamplingParams

pytestmark = pytest.mark.property

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
FAMILIES = Path(__file__).parents[1] / "golden" / "families"
WORDS = '{"name": "f", "arguments": {"x": [1, -2], "y": "value"}} true false null hello get_weather'
TOKENIZERS = {
    "ponder": ByteTokenizer(),
    "chatml": ByteTokenizer((*CHATML, *CALLS), 288),
    "ponder-trained": train_tokenizer([WORDS] * 50, 512),
    "qwen3": Tokenizer.load(FAMILIES / "qwen3"),
}
FORMATS = {name: load_format(tokenizer) for name, tokenizer in TOKENIZERS.items()}


# Streaming ------------------------------------------------------------------------------------------------------------

HEADS = ["f", "g", "fg", "", '{"name": "f", "arguments": ', '\n{"name": "g", "arguments": ', '{"name":"f","arguments":']
PIECES = [
    "a",
    " ",
    "\n",
    "é",
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    "1",
    '{"x": "}"}',
    "}\n",
    ', "arguments": 2}',
    "null",
]


@st.composite
def generations(draw, name):
    """Ids as a model might babble them: text, calls whole, broken and cut, control tokens anywhere."""
    tokenizer, tokens = TOKENIZERS[name], FORMATS[name].phase_tokens
    args = [tokenizer.control_id("<|args|>")] if "<|args|>" in tokenizer.control else []
    stray = [[id] for id in (tokens.think_open, tokens.think_close, tokens.call_open, tokens.call_close, tokens.end[0])]
    half = [[id] for id in tokenizer.encode("é好")]
    text = st.sampled_from(PIECES).map(tokenizer.encode) | st.sampled_from([*half, *stray, args])

    def call(head, body, close):
        written = [*tokenizer.encode(head), *args, *(id for piece in body for id in piece)]
        return [tokens.call_open, *written, *([tokens.call_close] if close else [])]

    calls = st.builds(call, st.sampled_from(HEADS), st.lists(text, max_size=6), st.booleans())
    return [id for piece in draw(st.lists(text | calls, max_size=10)) for id in piece]


def tagged(ids, tokens, start):
    """The events an engine would emit for these ids, up to the end token."""
    params = SamplingParams()
    sequence = Sequence(
        request=0, prompt_ids=(0,), params=params, pick=Pick(params, 0), limit=len(ids), phase=start, key=CacheKey(),
        tokens=[0],
    )  # fmt: skip
    phases = Phases(tokens, window=1 << 20, vocab_size=320)
    for index, id in enumerate(ids):
        yield TokenEvent(0, index, id, phases.advance(sequence, id), Origin.SAMPLED, 0.0)
        if id in tokens.end:
            return


def streamed(name, ids, start, stops, declared):
    """(the message, its texts by phase and its calls as the pieces give them, the calls' pieces)."""
    format, prompt = FORMATS[name], Start.THINK if start is Phase.THINK else Start.DIRECT

    def parse(ids):
        return format.parse(ids, start=prompt, declared=declared)

    visible = VisibleText(TOKENIZERS[name], format.phase_tokens, parse, start=start, stops=stops)
    calls = CallText(format.phase_tokens, format.calls, declared)
    fed, pieces, called = [], [], []
    for event in tagged(ids, format.phase_tokens, start):
        fed.append(event.id)
        pieces += visible.feed(event)
        called += calls.feed(event)
        if visible.stopped:
            break
    whole = parse(fed)
    message = cut_at_stop(whole, stops) or whole
    pieces += visible.finish(message)
    called += calls.finish(message)
    texts = {phase: "".join(text for p, text, *_ in pieces if p is phase) for phase in (Phase.THINK, Phase.ANSWER)}
    return message, texts, called


def joined(pieces):
    """The calls that pieces give: a name with the first piece only, numbers from 0 on, one call after the other."""
    calls = []
    for number, name, arguments in pieces:
        if name is not None:
            assert number == len(calls), "numbered as they begin"
            calls.append((name, arguments))
        else:
            assert number == len(calls) - 1, "a call's pieces come together, the name with the first"
            calls[-1] = (calls[-1][0], calls[-1][1] + arguments)
    return calls


def called_in(message):
    return [(part.name, part.arguments) for part in message.parts if isinstance(part, ToolCall)]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_joined_the_pieces_are_the_message_wherever_it_is_cut(name, data):
    ids = data.draw(generations(name))
    start = data.draw(st.sampled_from([Phase.THINK, Phase.ANSWER]))
    declared = data.draw(st.sampled_from([(), ("f",), ("f", "g", "fg")]))
    stops = data.draw(st.sampled_from([(), (), ("a",), ("1a", "}\n")]))
    for cut in {data.draw(st.integers(0, len(ids))), len(ids)}:
        message, texts, pieces = streamed(name, ids[:cut], start, stops, declared)
        assert texts == {Phase.THINK: message.reasoning, Phase.ANSWER: message.text}
        assert joined(pieces) == called_in(message)
        assert all(first or arguments for _, first, arguments in pieces), "no piece is empty"


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_declared_changes_nothing_for_whole_calls(name, data):
    """A whole call says the same whether its tool is declared or not."""
    format, ids = FORMATS[name], data.draw(generations(name))
    plain = format.parse_generated(ids, start=Start.DIRECT)
    told = format.parse_generated(ids, start=Start.DIRECT, declared=("f", "g"))
    assert told.status == plain.status
    assert told.stray == plain.stray
    if plain.status in (ParseStatus.COMPLETE, ParseStatus.NO_END):
        assert told.message == plain.message


def said(name, text):
    """The ids of a call in the format's own words: (name, arguments), closed unless the text ends in `…`."""
    tokenizer, format = TOKENIZERS[name], FORMATS[name]
    frame, arguments = format.calls.frame(text[0]), text[1]
    ids = [format.phase_tokens.call_open]
    for piece in (*frame.before, arguments.removesuffix("…"), *(() if arguments.endswith("…") else frame.after)):
        ids += [piece] if isinstance(piece, int) else tokenizer.encode(piece)
    return ids if arguments.endswith("…") else [*ids, format.phase_tokens.call_close]


@pytest.mark.parametrize("name", FORMATS)
def test_a_declared_call_is_streamed_before_it_closes(name):
    message, _, pieces = streamed(name, said(name, ("f", '{"x": "long value"}')), Phase.ANSWER, (), ("f",))
    assert called_in(message) == [("f", '{"x": "long value"}')]
    assert pieces[0] == (0, "f", "")
    assert len(pieces) > 4


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_of_another_name_comes_whole_or_is_text(name):
    _, _, pieces = streamed(name, said(name, ("other", "{}")), Phase.ANSWER, (), ("f",))
    assert pieces == [(0, "other", "{}")]
    message, _, pieces = streamed(name, said(name, ("other", '{"x"…')), Phase.ANSWER, (), ("f",))
    assert pieces == []
    assert "other" in message.text


@pytest.mark.parametrize("name", FORMATS)
def test_a_declared_call_that_is_cut_off_keeps_what_was_streamed(name):
    ids = said(name, ("f", '{"x": "lo…'))
    message, _, pieces = streamed(name, ids, Phase.ANSWER, (), ("f",))
    assert joined(pieces) == called_in(message) == [("f", '{"x": "lo')]
    assert message.text == ""
    assert FORMATS[name].parse_generated(ids, start=Start.DIRECT, declared=("f",)).status is ParseStatus.OPEN_CALL


def test_a_stop_string_around_a_call_leaves_the_call():
    """It was streamed before the stop string was whole."""
    tokenizer = TOKENIZERS["ponder"]
    ids = [*tokenizer.encode("a"), *said("ponder", ("f", "{}")), *tokenizer.encode("bc")]
    message, texts, pieces = streamed("ponder", ids, Phase.ANSWER, ("ab",), ("f",))
    assert joined(pieces) == called_in(message) == [("f", "{}")]
    assert texts[Phase.ANSWER] == message.text == ""


@pytest.mark.parametrize("name", ["chatml", "qwen3"])
@settings(max_examples=100, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    indent=st.sampled_from([None, 0, 2]),
    space=st.sampled_from(["", " ", "\n"]),
)
def test_any_json_is_found_to_its_end(name, value, indent, space):
    arguments = json.dumps(value, indent=indent)
    text = f'\n{{"name": "f", "arguments": {space}{arguments}{space}}}\n'
    tokens = FORMATS[name].phase_tokens
    ids = [tokens.call_open, *TOKENIZERS[name].encode(text), tokens.call_close]
    message, _, pieces = streamed(name, ids, Phase.ANSWER, (), ("f",))
    assert joined(pieces) == called_in(message) == [("f", arguments)]
    assert json_call(text).arguments == arguments


# Choices --------------------------------------------------------------------------------------------------------------

INTEGER = {"type": "integer", "minimum": -20, "maximum": 99}
SCHEMAS = {
    "f": {"type": "object", "properties": {"x": INTEGER}, "required": ["x"], "additionalProperties": False},
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 4}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
    'odd "näme"\n<|end|>': {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = tuple(Tool(name, "", json.dumps(schema)) for name, schema in SCHEMAS.items())
STRICT = tuple(Tool(tool.name, "", tool.parameters, Arguments.STRICT) for tool in TOOLS)


def fits(name, arguments):
    """Whether a tool's arguments are what its schema says, written out by hand."""
    value = json.loads(arguments)
    if name == "f":
        return value.keys() == {"x"} and type(value["x"]) is int and -20 <= value["x"] <= 99
    if name == "get_weather":
        return value.keys() == {"city", "unit"} and len(value["city"]) <= 4 and value["unit"] in ("C", "F")
    return value == {}


def walk(name, seed, longest=300, **fields):
    """The message of ids drawn at random from the allowed, with how it ended; control tokens are drawn more often."""
    tokenizer, format, rng = TOKENIZERS[name], FORMATS[name], random.Random(seed)
    request = Request(prompt=(Message.user("q"),), **fields)
    size = tokenizer.vocab_size + 7
    constraint = compile_calling(request, tokenizer, format, vocab_size=size)
    tokens, ids = format.phase_tokens, []
    likely = {tokens.call_open, tokens.call_close, tokens.end[0], *tokenizer.encode('"}')}
    while len(ids) < longest:
        allowed = range(size) if constraint is None else constraint.allowed().nonzero().flatten().tolist()
        choices = [id for id in allowed if id < tokenizer.vocab_size and id != tokens.think_open]
        assert choices, "at least one id is always allowed"
        liked = [id for id in choices if id in likely]
        id = rng.choice(liked if liked and rng.random() < 0.4 else choices)
        if constraint is not None:
            constraint.advance(id)
            if rng.random() < 0.05:
                constraint = constraint.fork()
        ids.append(id)
        if id in tokens.end:
            break
    else:
        return None
    return format.parse_generated(ids, start=Start.DIRECT, declared=tuple(tool.name for tool in request.tools))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("calls", ParallelCalls)
def test_required_calls_are_made_of_declared_tools_and_fit_their_schemas(name, calls):
    counts = set()
    for seed in range(30):
        parsed = walk(name, seed, 1000, tools=TOOLS, tool_choice=ToolChoice.REQUIRED, parallel_calls=calls)
        assert parsed is not None
        assert parsed.status is ParseStatus.COMPLETE
        made = called_in(parsed.message)
        assert len(made) == len(parsed.message.parts) >= 1, "nothing but calls"
        assert all(fits(*call) for call in made), made
        counts.add(len(made))
    assert counts == {1} if calls is ParallelCalls.ONE else max(counts) > 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tool", SCHEMAS)
def test_a_named_tool_is_called_once(name, tool):
    for seed in range(8):
        parsed = walk(name, seed, tools=TOOLS, tool_choice=NamedTool(tool))
        assert parsed is not None
        assert parsed.status is ParseStatus.COMPLETE
        ((made, arguments),) = called_in(parsed.message)
        assert made == tool
        assert fits(tool, arguments)


@pytest.mark.parametrize("name", FORMATS)
def test_calls_of_strict_tools_fit_and_text_stays_free(name):
    called = spoke = 0
    for seed in range(30):
        parsed = walk(name, seed, tools=STRICT)
        if parsed is None:
            continue
        assert all(fits(*call) for call in called_in(parsed.message))
        called += bool(called_in(parsed.message))
        spoke += bool(parsed.message.text.strip())
    assert called > 3
    assert spoke > 3


@pytest.mark.parametrize("name", FORMATS)
def test_beside_a_grammar_the_answer_is_that_or_calls(name):
    called = spoke = 0
    for seed in range(30):
        grammar = JsonSchema(json.dumps({"enum": ["yes", 7]}))
        parsed = walk(name, seed, tools=(*TOOLS[:1], *STRICT[1:]), grammar=grammar)
        if parsed is None:  # any JSON object may go on for long
            continue
        assert parsed.status is ParseStatus.COMPLETE
        made = called_in(parsed.message)
        called += bool(made)
        spoke += not made
        assert made or parsed.message.text in ('"yes"', "7")
        assert all(fits(*call) for call in made if call[0] != "f")
    assert called > 2
    assert spoke > 2


@pytest.mark.parametrize("name", FORMATS)
def test_one_call_ends_the_turn_and_what_is_none_does_not(name):
    for seed in range(20):
        parsed = walk(name, seed, tools=TOOLS, parallel_calls=ParallelCalls.ONE)
        if parsed is None:
            continue
        made = called_in(parsed.message)
        assert len(made) <= 1
        if made:
            assert isinstance(parsed.message.parts[-1], ToolCall), "nothing follows it"
