"""A tokenizer, a model and a sampler that are made in milliseconds: for tests of Ponder and of what is built on it."""

from __future__ import annotations

from collections.abc import Sequence

from ponder.dialogue import CONTROL_TOKENS, PonderFormat
from ponder.model.config import ModelConfig
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.tokenizer import Tokenizer

VOCAB_SIZE = 320


class ByteTokenizer(Tokenizer):
    """One id per byte, then control tokens: the smallest `Tokenizer`. Nothing is learned, nothing is read."""

    def __init__(self, control_tokens: Sequence[str] = CONTROL_TOKENS, vocab_size: int = VOCAB_SIZE) -> None:
        """vocab_size: a multiple of 32; unused control tokens fill it up. Raises InvalidRequest if too small."""
        learned = Tokenizer.train((), vocab_size, control_tokens)
        super().__init__(learned._spec)


def tiny_model(
    seed: int = 0, *, vocab_size: int = VOCAB_SIZE, max_positions: int = 256, num_layers: int = 2
) -> Transformer:
    """A Qwen3 of width 32 with random float32 weights, spread enough that samples vary and greedy ties do not occur."""
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_layers=num_layers,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_positions=max_positions,
    )
    model = Transformer(config, seed=seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(10)
    return model


def tiny_sampler(seed: int = 0, *, name: str = "tiny", max_positions: int = 256, max_batch: int = 8) -> LocalSampler:
    """A `LocalSampler` over `tiny_model`: it babbles, but every contract of the protocol holds."""
    tokenizer = ByteTokenizer()
    model = tiny_model(seed, vocab_size=tokenizer.vocab_size, max_positions=max_positions)
    return LocalSampler(model, tokenizer, PonderFormat(tokenizer), name=name, max_batch=max_batch)
