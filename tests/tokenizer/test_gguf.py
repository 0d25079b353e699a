"""Vocabularies out of GGUF files: the ids of the tokenizer that was exported, and refusals by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_files import gguf_bytes, save

from ponder.export import export_gguf
from ponder.model.checkpoint import save_model
from ponder.model.transformer import Transformer
from ponder.testing.tiny import tiny_config
from ponder.tokenizer import Tokenizer, TokenizerError
from ponder.types import CheckpointError

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
BYTES = [*map(chr, range(33, 127)), *map(chr, range(0xA1, 0xAD)), *map(chr, range(0xAE, 0x100))]
BYTES += [chr(0x100 + i) for i in range(256 - len(BYTES))]
TEXTS = ["Hello, world! It's 1234567 o'clock.", "  two\n\n\tlines\r\n", "naïve 北京 🙂 e\u0301", "<|im_end|> a b"]


@pytest.mark.parametrize("family", ["qwen3", "llama3"])
def test_ids_names_and_templates_of_an_exported_tokenizer_come_back(family: str, tmp_path: Path) -> None:
    exported = Tokenizer.load(FAMILIES / family)
    size = -(-exported.vocab_size // 32) * 32
    save_model(Transformer(replace(tiny_config(), vocab_size=size)), tmp_path / "model")
    exported.save(tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "m.gguf")
    back = Tokenizer.load(tmp_path / "m.gguf")
    assert [back.encode(text) for text in TEXTS] == [exported.encode(text) for text in TEXTS]
    assert [back.decode(exported.encode(text)) for text in TEXTS] == TEXTS
    assert {name: id for name, id in back.control.items() if not name.startswith("[PAD")} == dict(exported.control)
    assert dict(back.chat_templates) == dict(exported.chat_templates)
    assert back.special_name("eos_token") == exported.special_name("eos_token")
    assert set(exported.ends) <= set(back.ends)
    back.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert [again.encode(text) for text in TEXTS] == [exported.encode(text) for text in TEXTS]


def vocabulary(**changes: Any) -> dict[str, Any]:
    tokens = [*BYTES, "he", "Ġhe", "<eos>", "<tool>"]
    fields = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [1] * 258 + [3, 4],
        "merges": ["h e", "Ġ he"],
        "eos_token_id": 258,
        "bos_token_id": 258,
        "add_bos_token": True,
    }
    own = {f"tokenizer.ggml.{key}": value for key, value in (fields | changes).items() if value is not None}
    return own | {"tokenizer.chat_template": "{{ messages }}"}


def loaded(tmp_path: Path, fields: dict[str, Any]) -> Tokenizer:
    return Tokenizer.load(save(tmp_path / "m.gguf", gguf_bytes(fields, {})))


def test_a_vocabulary_by_hand(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, vocabulary())
    assert tokenizer.encode("he he12") == [256, 257, BYTES.index("1"), BYTES.index("2")]
    assert dict(tokenizer.control) == {"<eos>": 258, "<tool>": 259}
    assert tokenizer.ends == (258,)
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.config["add_bos_token"] is True
    assert 258 not in tokenizer.encode("<eos>")


def test_named_templates(tmp_path: Path) -> None:
    named = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "B"}
    assert dict(loaded(tmp_path, vocabulary() | named).chat_templates) == {"default": "{{ messages }}", "tool_use": "B"}


@pytest.mark.parametrize("key", ["eot_token_id", "eom_token_id"])
def test_every_declared_end_is_one(key: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, vocabulary(**{key: 259})).ends == (258, 259)
    assert loaded(tmp_path, vocabulary(eos_token_ids=[258, 257])).ends == (258, 257)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": "bert"}, "'tokenizer.ggml.model': 'bert' is not supported"),
        ({"model": None}, "'tokenizer.ggml.model': missing"),
        ({"pre": "kimi-k2"}, "'tokenizer.ggml.pre': 'kimi-k2' is not supported; supported: qwen2, llama-bpe"),
        ({"tokens": [*BYTES, "he", "Ġhe", "<eos>", "<eos>"]}, "'tokenizer.ggml.tokens': holds '<eos>' twice"),
        ({"token_type": [1, 2]}, "'tokenizer.ggml.token_type': has 2 entries for 260 tokens"),
        ({"merges": ["he"]}, "'tokenizer.ggml.merges': 'he' is not two tokens"),
        ({"merges": ["h q"]}, "not a tokenizer that"),
        ({"eos_token_id": 260}, "'tokenizer.ggml.eos_token_id': 260 is not one of 260 tokens"),
        ({"tokens": [*BYTES, "he", "▁a", "<eos>", "<tool>"], "merges": []}, "'▁a', which is not a byte-level token"),
    ],
)
@pytest.mark.fault
def test_what_cannot_be_read_is_refused_by_name(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises((TokenizerError, CheckpointError), match=why):
        loaded(tmp_path, vocabulary(**changes))
