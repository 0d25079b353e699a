"""Ids that are given out while a text is being written begin the encoding of the whole text, wherever it is split."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from ponder.dialogue import train_tokenizer
from ponder.tokenizer import GrowingText, Tokenizer
from ponder.tokenizer.splitting import SPLIT_REGEX

pytestmark = pytest.mark.property

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
CORPUS = [
    "They're 12345 apples, don't you see?  \n\n  I'll say: 3.14 != 22/7 ...\r\n\tand   more\n" * 9,
    "Größe naïve 12 345 été e\u0301 \u1112\u1161\u11ab 한국어 一二三四五 ع \U0001f600\U0001f600!!\n  \n" * 9,
]


def trained(*patterns, normalizer=None):
    """A vocabulary whose merges follow these splitting rules, one after the other."""
    learner = tokenizers.Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in patterns]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    learner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, show_progress=False)
    )
    return Tokenizer({**json.loads(learner.to_str()), "normalizer": normalizer})


LLAMA3 = SPLIT_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
TOKENIZERS = {
    "ponder": train_tokenizer(CORPUS, 512),
    **{name: Tokenizer.load(FAMILIES / name) for name in ("qwen3", "llama3", "deepseek_r1")},
    "qwen rules, normalised": trained(SPLIT_REGEX, normalizer={"type": "NFC"}),
    "llama rules": trained(LLAMA3),
    "gpt-4o rules": trained(GPT4O),
    "deepseek rules": trained(*DEEPSEEK),
}
TRICKY = ["'", "'r", "e", "'S", "t", " ", "  ", "\n", "\r\n", "\t", "1", "23", "!", "...", "/", "Ab", "C", "don", "é"]
TRICKY += ["e", "\u0301", "\u0316", "=\u0338", "\u1100", "\u1161", "\u11a8", "一", "ア", "\U0001f600", "\u200d", "\x1c"]
PIECES = st.lists(st.sampled_from(TRICKY) | st.text(max_size=3), max_size=30)
TELLING = [
    "see, don't you",
    "a  \n  \n  b",
    "e\u0316\u0301",
    "!\u1112\u1161\u11ab",
    "say 12345 apples",
    "  \n\n\n  I'll",
]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=150)
@given(pieces=PIECES, every=st.sampled_from([1, 5]))
def test_ids_given_out_early_begin_the_encoding_of_the_whole(name, pieces, every):
    tokenizer = TOKENIZERS[name]
    whole = tokenizer.encode("".join(pieces))
    growing = GrowingText(tokenizer, every=every)
    given_out = [id for piece in pieces for id in growing.feed(piece)]
    assert given_out == whole[: len(given_out)]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TELLING)
@pytest.mark.parametrize("before", ["", " ", "! ", "x y "])
def test_the_known_traps(name, text, before):
    tokenizer, text = TOKENIZERS[name], before + text
    whole = tokenizer.encode(text)
    growing = GrowingText(tokenizer, every=1)
    given_out = [id for character in text for id in growing.feed(character)]
    assert given_out == whole[: len(given_out)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_of_plain_text_all_but_the_end_is_given_out(name):
    text = "The answer is forty-two, because six times seven is forty-two. " * 20
    growing = GrowingText(TOKENIZERS[name])
    given_out = [id for character in text for id in growing.feed(character)]
    assert len(TOKENIZERS[name].decode(given_out)) > len(text) - 64
