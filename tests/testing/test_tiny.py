"""The shipped fakes keep the interfaces they stand for."""

import pytest
import torch

from ponder.dialogue import CONTROL_TOKENS, Message, PonderFormat, Start
from ponder.engine import Engine
from ponder.sampler.protocol import Sampler
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_model, tiny_sampler
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams


def test_a_byte_tokenizer_is_a_tokenizer_with_one_id_per_byte():
    tokenizer = ByteTokenizer()
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == 320
    for text in ("abc", "é好\n\x00", "<|end|>"):
        assert len(tokenizer.encode(text)) == len(text.encode())
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert set(CONTROL_TOKENS) <= set(tokenizer.control)


def test_a_byte_tokenizer_takes_the_control_tokens_of_another_format():
    tokenizer = ByteTokenizer(("<think>", "</think>"), 288)
    assert tokenizer.decode([tokenizer.control_id("<think>")]) == "<think>"
    with pytest.raises(InvalidRequest, match="at least 309"):
        ByteTokenizer(CONTROL_TOKENS, 288)


def test_a_byte_tokenizer_saves_and_loads(tmp_path):
    ByteTokenizer().save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("hé") == ByteTokenizer().encode("hé")


def test_tiny_models_differ_by_seed_only():
    ids_BT = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(tiny_model(1)(ids_BT), tiny_model(1)(ids_BT), atol=0, rtol=0)
    assert not torch.allclose(tiny_model(1)(ids_BT), tiny_model(2)(ids_BT))
    assert tiny_model(vocab_size=32, max_positions=16, num_layers=1).config.max_positions == 16


def test_a_parrot_says_its_script_after_its_prompt():
    finish = Engine(ParrotModel([5, 6, 7], 4), PhaseTokens()).generate([[1, 1, 1, 1]], SamplingParams(max_tokens=3))[0]
    assert finish.segment.ids == (5, 6, 7)
    assert ParrotModel([5], 1)(torch.tensor([[0]])).argmax().item() == 5


def test_a_tiny_sampler_is_a_sampler_over_ponders_format():
    sampler = tiny_sampler(name="toy")
    assert isinstance(sampler, Sampler)
    assert sampler.name == "toy"
    rendered = sampler.format.render((Message.user("hi"),), start=Start.THINK)
    assert rendered.ids == PonderFormat(ByteTokenizer()).render((Message.user("hi"),), start=Start.THINK).ids
