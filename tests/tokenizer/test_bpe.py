"""Training, control tokens, decoding and streaming of the byte-level BPE."""

import subprocess
import sys

import pytest

from ponder.tokenizer import StreamDecoder, Tokenizer, TokenizerError
from ponder.types import InvalidRequest

TEXTS = ["the cat sat on the mat, the cat sat still. " * 20, "Grüße 你好 12345 " * 10]
CONTROL = ("<|a|>", "<|b|>", "<|end|>")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 288, CONTROL)


def test_the_vocabulary_has_exactly_the_size_asked_for_and_the_control_tokens_come_last(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 288
    assert [tokenizer.control[name] for name in CONTROL] == [285, 286, 287]


def test_where_the_texts_give_too_few_merges_unused_control_tokens_fill_the_vocabulary() -> None:
    bytes_only = Tokenizer.train([], 320, CONTROL)
    assert bytes_only.vocab_size == 320
    assert bytes_only.control_id("<|unused_0|>") == 256
    assert bytes_only.control_id("<|end|>") == 319


@pytest.mark.parametrize("vocab_size", [287, 256, 0, -32])
def test_an_impossible_vocabulary_size_is_refused(vocab_size: int) -> None:
    with pytest.raises(InvalidRequest, match="multiple of 32 and at least 259"):
        Tokenizer.train(TEXTS, vocab_size, CONTROL)


def test_a_control_token_named_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        Tokenizer.train(TEXTS, 320, ("<|a|>", "<|a|>"))


def test_text_that_spells_a_control_token_comes_out_as_ordinary_tokens(tokenizer: Tokenizer) -> None:
    for name in CONTROL:
        ids = tokenizer.encode(f"before {name} after")
        assert not any(map(tokenizer.is_control, ids))
        assert tokenizer.decode(ids) == f"before {name} after"


def test_digits_are_single_tokens() -> None:
    tokenizer = Tokenizer.train(["123 123 123 777 777"] * 50, 320, ())
    assert [tokenizer.decode([id]) for id in tokenizer.encode("123 777")] == ["1", "2", "3", " ", "7", "7", "7"]


def test_merges_are_learned(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(" the cat")) < len(" the cat")


def test_no_normaliser_touches_the_text(tokenizer: Tokenizer) -> None:
    composed, decomposed = "\u00fc", "u\u0308"
    assert tokenizer.encode(composed) != tokenizer.encode(decomposed)


def test_a_batch_is_encoded_as_its_texts_are(tokenizer: Tokenizer) -> None:
    texts = ["the cat", "", "<|end|>", "你好\n\n"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_offsets_say_where_each_id_begins(tokenizer: Tokenizer) -> None:
    ids, begins = tokenizer.encode_with_offsets("the ü cat")
    assert ids == tokenizer.encode("the ü cat")
    assert "".join("the ü cat"[begin] for begin in dict.fromkeys(begins)).startswith("t")
    assert begins == sorted(begins)


def test_control_ids_are_spelled_by_name(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([tokenizer.control_id("<|a|>"), *tokenizer.encode("x")]) == "<|a|>x"


def test_bytes_that_are_no_text_and_ids_beyond_the_vocabulary_become_the_replacement_character(
    tokenizer: Tokenizer,
) -> None:
    half = tokenizer.encode("ü")[:1] if len(tokenizer.encode("ü")) > 1 else tokenizer.encode("\U0001f600")[:1]
    assert tokenizer.decode(half) == "\ufffd"
    assert tokenizer.decode([100_000]) == "\ufffd"


def test_an_unknown_control_token_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="nope"):
        tokenizer.control_id("<|nope|>")


@pytest.mark.parametrize("broken", ["\ud800", 5, None, ["a"]])
def test_what_is_not_text_is_refused(tokenizer: Tokenizer, broken: object) -> None:
    with pytest.raises(InvalidRequest, match="cannot encode"):
        tokenizer.encode(broken)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="cannot encode"):
        tokenizer.encode_batch([broken])  # type: ignore[list-item]


def test_a_stream_never_splits_a_character(tokenizer: Tokenizer) -> None:
    text = "a\U0001f600ü你"
    stream = StreamDecoder(tokenizer)
    pieces = [stream.feed(id) for id in tokenizer.encode(text)]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + stream.flush() == text


def test_a_stream_that_stops_within_a_character_ends_like_the_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("x\U0001f600")[:-1]
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.feed, ids)) + stream.flush() == tokenizer.decode(ids) == "x\ufffd"
    assert stream.feed(tokenizer.encode("y")[0]) == "y"


def test_a_control_token_within_a_character_is_kept(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("\U0001f600")[:-1], tokenizer.control_id("<|end|>")]
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.feed, ids)) + stream.flush() == tokenizer.decode(ids) == "\ufffd<|end|>"


def test_templates_are_split_at_the_longest_control_token() -> None:
    tokenizer = Tokenizer.train([], 288, ("<a>", "<a><b>", "<b>"))
    assert [piece for _, piece in tokenizer.split_control("x<a><b><b>y")] == ["x", "<a><b>", "<b>", "y"]


def test_importing_the_tokenizer_does_not_load_torch() -> None:
    code = "import sys, ponder.tokenizer, ponder.dialogue; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
