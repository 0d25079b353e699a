"""Any text survives the tokenizer, whole or streamed, and never yields a control id."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.dialogue import CONTROL_TOKENS, train_tokenizer
from ponder.tokenizer import StreamDecoder, Tokenizer

pytestmark = pytest.mark.property

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
OWN = train_tokenizer(["12 apples and 34 pears, <|end|> and <|think|> spelled in text.\n\n" * 9], 384)
TOKENIZERS = {"ponder": OWN} | {name: Tokenizer.load(FAMILIES / name) for name in ("qwen3", "llama3", "deepseek_r1")}
SPELLED = st.sampled_from([*CONTROL_TOKENS, *(name for t in TOKENIZERS.values() for name in t.control)])
TEXTS = st.lists(st.one_of(st.text(), SPELLED, st.sampled_from(["\n\n", "  ", "\r\n", "12", "\U0001f600"]))).map(
    "".join
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(text=TEXTS)
def test_any_text_round_trips_without_a_control_id(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not any(map(tokenizer.is_control, ids))
    assert tokenizer.encode_batch([text]) == [ids]
    assert tokenizer.encode_with_offsets(text)[0] == ids


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, OWN.vocab_size - 1)))
def test_streamed_pieces_join_to_the_whole_for_any_ids(ids: list[int]) -> None:
    stream = StreamDecoder(OWN)
    assert "".join([*map(stream.feed, ids), stream.flush()]) == OWN.decode(ids)


@settings(deadline=None)
@given(text=st.text(min_size=1))
def test_a_streamed_piece_of_real_text_holds_whole_characters_only(text: str) -> None:
    stream = StreamDecoder(OWN)
    pieces = [stream.feed(id) for id in OWN.encode(text.replace("\ufffd", ""))]
    assert all("\ufffd" not in piece for piece in pieces)
