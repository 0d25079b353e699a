"""Streamed pieces, joined, equal the parsed message: for any ids, any format, any stop strings."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.dialogue import CONTROL_TOKENS, Start, load_format
from ponder.engine import TokenEvent
from ponder.engine.blocks import CacheKey
from ponder.engine.phases import Phases
from ponder.engine.sequence import Sequence
from ponder.kernels import Pick
from ponder.sampler.visible import VisibleText, cut_at_stop
from ponder.testing.tiny import ByteTokenizer
from ponder.types import Origin, Phase, SamplingParams

pytestmark = pytest.mark.property

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
TOKENIZERS = {"ponder": ByteTokenizer(CONTROL_TOKENS), "chatml": ByteTokenizer((*CHATML, *CALLS), 288)}
FORMATS = {name: load_format(tokenizer, name) for name, tokenizer in TOKENIZERS.items()}
TEXTS = ["a", "b", "ab", " ", "\n", "\n\n", "é", '{"name": "f", "arguments": {}}']


@st.composite
def generations(draw, format):
    """Ids as a model under the format might babble them: text, white space, halves of characters, control tokens."""
    tokenizer, tokens = TOKENIZERS[format.name], format.phase_tokens
    folding = [id for id in (tokens.state_open, tokens.fold) if id is not None]
    controls = [tokens.think_open, tokens.think_close, *folding, tokens.call_open, tokens.call_close, tokens.end[0]]
    controls.append(max(tokenizer.control.values()))
    if "<|args|>" in tokenizer.control:
        controls.append(tokenizer.control_id("<|args|>"))
    text = st.sampled_from(TEXTS).map(tokenizer.encode)
    half = st.sampled_from(tokenizer.encode("é好")).map(lambda id: [id])
    pieces = draw(st.lists(text | half | st.sampled_from(controls).map(lambda id: [id]), max_size=25))
    return [id for piece in pieces for id in piece]


def tagged(ids, tokens, start):
    """The events an engine would emit for these ids, up to the end token."""
    sequence = Sequence(
        request=0,
        prompt_ids=(0,),
        params=SamplingParams(),
        pick=Pick(SamplingParams(), 0),
        limit=len(ids),
        phase=start,
        key=CacheKey(),
        tokens=[0],
    )
    phases = Phases(tokens, window=1 << 20, vocab_size=320)
    for index, id in enumerate(ids):
        yield TokenEvent(0, index, id, phases.advance(sequence, id), Origin.SAMPLED, 0.0)
        if id in tokens.end:
            return


def follow(format, start, stops):
    prompt = Start.THINK if start is Phase.THINK else Start.DIRECT
    return VisibleText(
        TOKENIZERS[format.name],
        format.phase_tokens,
        lambda ids: format.parse(ids, start=prompt),
        start=start,
        stops=stops,
    )


def streamed(format, ids, start, stops):
    """(the ids fed, joined pieces by phase, the message in the end)."""
    prompt = Start.THINK if start is Phase.THINK else Start.DIRECT
    visible = follow(format, start, stops)
    fed, pieces = [], []
    for event in tagged(ids, format.phase_tokens, start):
        fed.append(event.id)
        pieces += visible.feed(event)
        if visible.stopped:
            break
    whole = format.parse(fed, start=prompt)
    message = cut_at_stop(whole, stops) or whole
    pieces += visible.finish(message)
    joined = {phase: "".join(text for p, text, *_ in pieces if p is phase) for phase in (Phase.THINK, Phase.ANSWER)}
    return whole, joined, message


def check(name, ids, start, stops):
    whole, joined, message = streamed(FORMATS[name], ids, start, stops)
    assert joined == {Phase.THINK: message.reasoning, Phase.ANSWER: message.text}
    if stops:
        first = re.search("|".join(map(re.escape, stops)), whole.text)
        assert message.text == (whole.text[: first.start()] if first else whole.text)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_joined_by_phase_the_pieces_are_the_texts_of_the_message(name, data):
    ids = data.draw(generations(FORMATS[name]))
    start = data.draw(st.sampled_from([Phase.THINK, Phase.ANSWER]))
    stops = data.draw(st.sampled_from([(), ("ab",), ("aa", "b\n"), ("\n",), ("bab", "\n\n"), ("éa",), ("<",)]))
    check(name, ids, start, stops)


def spelled(text):
    """Ids of a text in which control tokens are control tokens."""
    tokenizer = TOKENIZERS["ponder"]
    pieces = [tokenizer.encode(piece) if id is None else [id] for id, piece in tokenizer.split_control(text)]
    return [id for piece in pieces for id in piece]


@pytest.mark.parametrize(
    ("text", "start", "stops", "fed"),
    [
        ("\n<|think|>a", Phase.ANSWER, ("\n",), "\n"),  # a line break is the whole answer
        (" \n\n\nb", Phase.ANSWER, ("\n\n",), " \n\n"),
        ("<|call|>a<|/call|><|think|>b", Phase.ANSWER, ("<",), "<|call|>a<|/call|>"),  # what is not a call is text
        ("a<|call|>f<|args|><|/call|>b", Phase.ANSWER, ("ab",), "a<|call|>f<|args|><|/call|>b"),
    ],
)
def test_a_stop_string_is_met_at_the_first_token_that_makes_it_certain(text, start, stops, fed):
    check("ponder", spelled(text), start, stops)
    visible = follow(FORMATS["ponder"], start, stops)
    seen = []
    for event in tagged(spelled(text), FORMATS["ponder"].phase_tokens, start):
        seen.append(event.id)
        visible.feed(event)
        if visible.stopped:
            break
    assert visible.stopped
    assert seen == spelled(fed)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a<|state|>b", ["a"]),  # whether the state is one shows at its fold
        ("a<|state|>b<|fold|>", ["a", "+b"]),
        ("a<|state|>b<|fold|>c<|state|>d<|fold|>e", ["a", "+b", "c", "+d", "e"]),
        ("a<|state|>b<|/think|>", ["a", "<|state|>b"]),
        ("a<|fold|>b", ["a", "<|fold|>", "b"]),
        ("a<|state|><|fold|>b", ["a", "+", "b"]),
        (" <|state|><|fold|> \n<|state|>s<|fold|>", [" ", "+", " \n", "+s"]),
    ],
)
def test_a_state_is_shown_with_its_fold_and_its_tokens_are_no_text(text, shown):
    """A plus marks a piece that is a state."""
    format = FORMATS["ponder"]
    visible = follow(format, Phase.THINK, ())
    pieces = [
        piece[:3] for event in tagged(spelled(text), format.phase_tokens, Phase.THINK) for piece in visible.feed(event)
    ]
    assert pieces == [(Phase.THINK, piece.lstrip("+"), piece.startswith("+")) for piece in shown]
