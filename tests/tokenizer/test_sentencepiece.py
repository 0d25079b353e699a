"""SentencePiece vocabularies out of GGUF files: the ids of llama.cpp's algorithm, written out here."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gguf_files import gguf_bytes, save
from hypothesis import given
from hypothesis import strategies as st

from ponder.gguf.layout import FieldType
from ponder.tokenizer import Tokenizer, TokenizerError

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
WORDS = ["the", "cat", "then", "hat", "at", "he", "th", "ca", "ha", "aa", "aaa", "en", *"abcehnt", "é", "北"]
WORDS += [SPACE, SPACE * 2, SPACE + "t", SPACE + "the", SPACE + "cat"]
SPECIAL = ["<unk>", "<s>", "</s>"]
TOKENS = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
SCORES = [0.0] * 259 + [-float(at) for at in range(len(WORDS))]
TYPES = [2, 3, 3, *[6] * 256, *[1] * len(WORDS)]
SCORE = dict(zip(TOKENS, SCORES, strict=True))


def array(scores: list[float]) -> bytes:
    return struct.pack(f"<IIQ{len(scores)}f", FieldType.ARRAY, FieldType.FLOAT32, len(scores), *scores)


def vocabulary(**changes: Any) -> dict[str, Any]:
    fields = {"model": "llama", "tokens": TOKENS, "token_type": TYPES, "scores": array(SCORES)}
    return {f"tokenizer.ggml.{key}": value for key, value in (fields | changes).items() if value is not None}


def loaded(folder: Path, **changes: Any) -> Tokenizer:
    return Tokenizer.load(save(folder / "m.gguf", gguf_bytes(vocabulary(**changes), {})))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return loaded(tmp_path_factory.mktemp("spm"))


def reference(text: str) -> list[int]:
    """Join the two neighbours whose piece scores highest, leftmost first, until none is a piece; then ids or bytes."""
    symbols = list((" " + text).replace(" ", SPACE)) if text else []
    while True:
        pairs = [(SCORE.get(a + b), -at) for at, (a, b) in enumerate(pairwise(symbols))]
        known = [pair for pair in pairs if pair[0] is not None]
        if not known:
            break
        at = -max(known)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    ids = []
    for symbol in symbols:
        ids += [TOKENS.index(symbol)] if symbol in WORDS else [3 + byte for byte in symbol.encode()]
    return ids


@pytest.mark.property
@given(text=st.text(alphabet="abcehnt é北x\n🙂", max_size=40))
def test_ids_are_those_of_the_algorithm(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(text) == reference(text)


@pytest.mark.property
@given(text=st.text(max_size=40))
def test_any_text_comes_back_after_the_space_that_is_not_written(text: str, tokenizer: Tokenizer) -> None:
    written = text.replace(SPACE, " ")  # one character to this kind of vocabulary
    assert tokenizer.decode(tokenizer.encode(text)) == (" " + written if text else "")


def test_control_tokens_and_what_files_do_not_say(tokenizer: Tokenizer) -> None:
    assert dict(tokenizer.control) == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert tokenizer.ends == (2,)
    assert tokenizer.special_name("bos_token") == "<s>"
    assert tokenizer.config["add_bos_token"] is True
    assert not {0, 1, 2} & set(tokenizer.encode("</s><s><unk>"))
    assert [tokenizer.token_bytes(3 + 0xE9), tokenizer.token_bytes(TOKENS.index("é"))] == [b"\xe9", "é".encode()]


def test_a_space_is_put_before_a_text_only_where_the_file_says_so(tmp_path: Path) -> None:
    assert loaded(tmp_path, add_space_prefix=False).encode("the") == [TOKENS.index("the")]
    assert loaded(tmp_path, add_space_prefix=True).encode("the") == [TOKENS.index(SPACE + "the")]


def test_a_saved_one_is_loaded_with_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    text = "the cat, then 北京 hat"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text)) == " " + text


@pytest.mark.parity
def test_transformers_encodes_a_saved_one_alike(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers (extra hf)")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "the cat, then 北京 hat"
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("scores", [None, array([0.0]), array([float("nan"), *SCORES[1:]])])
@pytest.mark.fault
def test_scores_that_cannot_be_are_refused(scores: bytes | None, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"'tokenizer\.ggml\.scores': (has|must be finite)"):
        loaded(tmp_path, scores=scores)
