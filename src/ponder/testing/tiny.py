"""A tokenizer, a model and a sampler that are made in milliseconds: for tests of Ponder and of what is built on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ponder.dialogue import CONTROL_TOKENS, PonderFormat
from ponder.model.config import ModelConfig
from ponder.model.transformer import Attend, Transformer, count_positions
from ponder.sampler.local import LocalSampler
from ponder.tokenizer import Tokenizer

VOCAB_SIZE = 320


class ByteTokenizer(Tokenizer):
    """One id per byte, then control tokens: the smallest `Tokenizer`. Nothing is learned, nothing is read."""

    def __init__(self, control_tokens: Sequence[str] = CONTROL_TOKENS, vocab_size: int = VOCAB_SIZE) -> None:
        """vocab_size: a multiple of 32; unused control tokens fill it up. Raises InvalidRequest if too small."""
        learned = Tokenizer.train((), vocab_size, control_tokens)
        super().__init__(learned._spec)


def without_reserved(names: Iterable[str]) -> list[str]:
    """The names, without those that differ by their number alone from two others: the first and the last stay.

    So tests go through all control tokens that mean something, and not through a hundred reserved ones."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "0", name), []).append(name)
    return [name for alike in kinds.values() for name in dict.fromkeys((alike[0], alike[-1]))]


def tiny_config(
    *, vocab_size: int = VOCAB_SIZE, max_positions: int = 256, num_layers: int = 2, head_dim: int = 8
) -> ModelConfig:
    """A Qwen3 of width 32."""
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_layers=num_layers,
        num_heads=4,
        num_kv_heads=2,
        head_dim=head_dim,
        intermediate_size=64,
        max_positions=max_positions,
    )


def tiny_model(seed: int = 0, **sizes: int) -> Transformer:
    """Random float32 weights of `tiny_config(**sizes)`, spread enough that samples vary and the most likely token
    stands out."""
    model = Transformer(tiny_config(**sizes), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return model


class ParrotModel(Transformer):
    """Says `script` after a prompt of `prompt_tokens` ids, with a logit of `certainty` against zeros elsewhere. What
    it was given before plays no part, so a forced token does not disturb it."""

    def __init__(
        self,
        script: Sequence[int],
        prompt_tokens: int,
        *,
        certainty: float = 50.0,
        vocab_size: int = VOCAB_SIZE,
        max_positions: int = 256,
    ) -> None:
        super().__init__(tiny_config(vocab_size=vocab_size, max_positions=max_positions))
        self._said_after = {prompt_tokens - 1 + index: id for index, id in enumerate(script)}
        self._certainty = certainty

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        attend: Attend | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """The position stands in the first place of each hidden state; the real pass runs for its cache."""
        h_BTD = super().hidden(ids_BT, positions_BT=positions_BT, attend=attend, documents_BT=documents_BT)
        places_BT = count_positions(ids_BT, documents_BT) if positions_BT is None else positions_BT
        return torch.cat((places_BT[..., None].to(h_BTD.dtype), torch.zeros_like(h_BTD[..., 1:])), -1)

    def unembed(self, h_D: Tensor) -> Tensor:
        logits_V = torch.zeros(*h_D.shape[:-1], self.config.vocab_size, device=h_D.device)
        flat = logits_V.view(-1, self.config.vocab_size)
        for row, place in enumerate(h_D[..., 0].flatten().tolist()):
            if place in self._said_after:
                flat[row, self._said_after[place]] = self._certainty
        return logits_V


def tiny_sampler(
    seed: int = 0,
    *,
    name: str = "tiny",
    max_positions: int = 256,
    max_batch: int = 8,
    model: Transformer | None = None,
    **options: Any,
) -> LocalSampler:
    """A `LocalSampler` over `model` (None: a `tiny_model`, which babbles, but every contract of the protocol holds).

    options: those of `LocalSampler`.
    """
    tokenizer = ByteTokenizer()
    model = model or tiny_model(seed, vocab_size=tokenizer.vocab_size, max_positions=max_positions)
    return LocalSampler(model, tokenizer, PonderFormat(tokenizer), name=name, max_batch=max_batch, **options)
