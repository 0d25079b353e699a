"""Folders go both ways between Ponder and transformers, and both read them alike."""

from pathlib import Path

import pytest

from ponder.dialogue import CONTROL_TOKENS, ponder_template, train_tokenizer
from ponder.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity
FAMILIES = Path(__file__).parents[1] / "golden" / "families"
TEXTS = (
    "It's 3 o'clock, isn't it?\n\n  Grüße 你好 \U0001f600 12345\t\r\n",
    "",
    " ",
    "def f(x):\n    return x\n",
    "e\u0301",
)


def test_a_saved_tokenizer_loads_in_transformers(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["It's the cat, isn't it? " * 30], 384)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.vocab_size == 384
    assert {name: theirs.convert_tokens_to_ids(name) for name in CONTROL_TOKENS} == {
        name: tokenizer.control_id(name) for name in CONTROL_TOKENS
    }
    assert set(CONTROL_TOKENS) <= set(theirs.all_special_tokens)
    assert theirs.chat_template == ponder_template()
    assert (theirs.eos_token, theirs.pad_token) == ("<|end|>", "<|endoftext|>")
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text


def test_a_saved_tokenizer_loads_again(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the cat " * 30], 384)
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        again = Tokenizer.load(path)
        assert again.control == tokenizer.control
        assert again.chat_template == ponder_template()
        assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize("family", ["qwen3", "llama3", "deepseek_r1"])
def test_a_familys_tokenizer_reads_ordinary_text_as_transformers_does(family: str, tmp_path: Path) -> None:
    ours = Tokenizer.load(FAMILIES / family)
    theirs = transformers.AutoTokenizer.from_pretrained(FAMILIES / family)
    theirs.save_pretrained(tmp_path)
    for tokenizer in (ours, Tokenizer.load(tmp_path)):
        assert tokenizer.chat_template == theirs.chat_template
        for text in TEXTS:
            assert tokenizer.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(tokenizer.encode(text))


@pytest.mark.parametrize("family", ["qwen3", "llama3", "deepseek_r1"])
def test_templates_are_split_where_transformers_finds_control_tokens(family: str) -> None:
    ours = Tokenizer.load(FAMILIES / family)
    theirs = transformers.AutoTokenizer.from_pretrained(FAMILIES / family)
    text = "a" + "b".join(ours.control) + "".join(ours.control) + "<think"
    ids: list[int] = []
    for id, piece in ours.split_control(text):
        ids += ours.encode(piece) if id is None else [id]
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
