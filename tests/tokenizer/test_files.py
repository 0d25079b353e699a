"""Broken and hostile tokenizer files end in an error that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from ponder.tokenizer import Tokenizer, TokenizerError

pytestmark = pytest.mark.fault

FAMILIES = Path(__file__).parents[1] / "golden" / "families"


@pytest.fixture
def spec() -> dict[str, Any]:
    return json.loads((FAMILIES / "qwen3" / "tokenizer.json").read_text(encoding="utf-8"))


def load(folder: Path, content: object) -> Tokenizer:
    (folder / "tokenizer.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return Tokenizer.load(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", "null", '{"model": 3}', '{"model": {"type": "Unigram"}}'])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load(tmp_path, content)


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load(tmp_path, "[" * 100_000)


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_a_broken_config_is_named(tmp_path: Path, spec: dict[str, Any]) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        load(tmp_path, spec)


@pytest.mark.parametrize(
    "tokens",
    [
        5,
        [5],
        [{"id": 384}],
        [{"content": "<x>", "id": "384"}],
        [{"content": "<x>", "id": -1}],
        [{"content": "<x>", "id": True}],
        [{"content": "<x>", "id": 390}],
        [{"content": "<x>", "id": 384}, {"content": "<y>", "id": 384}],
    ],
)
def test_malformed_added_tokens_are_named(tmp_path: Path, spec: dict[str, Any], tokens: object) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json.*added_tokens"):
        load(tmp_path, {**spec, "added_tokens": tokens})


def test_merges_of_unknown_tokens_are_named(tmp_path: Path, spec: dict[str, Any]) -> None:
    spec["model"]["merges"].append(["qq", "zz"])
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load(tmp_path, spec)


def test_a_vocabulary_that_is_not_byte_level_is_refused(tmp_path: Path, spec: dict[str, Any]) -> None:
    spec["model"]["vocab"]["\u2581the"] = len(spec["model"]["vocab"])
    spec["added_tokens"] = []
    with pytest.raises(TokenizerError, match="byte-level"):
        load(tmp_path, spec)


def test_an_added_token_that_the_vocabulary_also_holds_is_still_out_of_reach_of_text(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    """As GPT-2's `<|endoftext|>`; here even merges lead to it, and `ignore_merges` would take it whole."""
    token = "thx"
    vocab = spec["model"]["vocab"]
    vocab["th"] = vocab.get("th", len(vocab))
    vocab[token] = len(vocab)
    spec["model"]["merges"] += [["t", "h"], ["th", "x"]]
    spec["model"]["ignore_merges"] = True
    spec["added_tokens"] = [
        {"id": vocab[token], "content": token, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    ]
    tokenizer = load(tmp_path, spec)
    assert vocab[token] not in tokenizer.encode(token)
    assert tokenizer.decode(tokenizer.encode(token)) == token
    assert tokenizer.decode([vocab[token]]) == token
