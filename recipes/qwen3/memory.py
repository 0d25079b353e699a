"""What tuning Qwen3-0.6B takes on one GPU, in GB (10^9 bytes), from its shapes: `python recipes/qwen3/memory.py`.

Weights, optimizer and pages are counted; what the backward pass needs is found by running the blocks on torch's "meta"
device, which computes shapes and nothing else, and adding up what autograd keeps. Attention is taken to keep queries,
keys, values, outputs and one number a row, as torch's fused kernels on a GPU do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ponder.model.config import Family, ModelConfig
from ponder.model.lora import add_lora
from ponder.model.loss import rows_at_once
from ponder.model.transformer import Transformer
from ponder.train.loop.stage import round_frozen

QWEN3_0_6B = ModelConfig(
    family=Family.QWEN3,
    vocab_size=151_936,
    hidden_size=1024,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=3072,
    tie_embeddings=True,
    max_positions=40_960,
)
RANK = 16
MICRO_BATCH = 2 * 2048  # positions: batch x sequence of the recipes
ROLLOUTS, LENGTH = 8 * 8, 2048  # prompts x samples of 2_grpo.toml, and the longest context of each
ADAMW = 2 * 4  # bytes a trained weight: two moments in float32


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out


def adapted_on_meta(config: ModelConfig, rank: int) -> Transformer:
    """As `train.loop.stage.begin` makes it, without a byte of weights; rank 0: all weights train."""
    with torch.device("meta"):
        model = Transformer(config)
    model.to("meta")  # the rotary frequencies too, which are always made for real
    model.compute_dtype = torch.bfloat16
    if rank:
        add_lora(model, rank, 2.0 * rank)
        model.to("meta")
        round_frozen(model, torch.bfloat16)
    return model


def kept_by_blocks(config: ModelConfig, rank: int, tokens: int) -> int:
    """Bytes that the backward pass of a micro-batch needs, bfloat16 copies of trained weights included: what the second
    block adds, times the blocks."""
    first, both = (_kept(replace(config, num_layers=layers, vocab_size=32), rank, tokens) for layers in (1, 2))
    return config.num_layers * (both - first)


def _kept(config: ModelConfig, rank: int, tokens: int) -> int:
    model = adapted_on_meta(config, rank)
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # by storage; held, so that no other storage gets its number

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        model.stream(ids, positions_BT=ids, attend=lambda layer, q, k, v: _FusedAttention.apply(q, k, v))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def arithmetic(config: ModelConfig, rank: int) -> dict[str, float]:
    """What there is to hold, in bytes, in the order of the README's table."""
    model = adapted_on_meta(config, rank)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = rows_at_once(config.vocab_size, torch.device("cuda"))
    page = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 2  # keys and values of a token, bfloat16
    return {
        "weights": weights,
        "gradients": 4 * trained,
        "AdamW's moments": ADAMW * trained,
        "kept by the blocks": kept_by_blocks(config, rank, MICRO_BATCH),
        "logits of one piece": rows * config.vocab_size * (2 + 2 * 4),
        "training": 0.0,
        "keys and values of the rollouts": ROLLOUTS * LENGTH * page,
    }


def table() -> str:
    full, lora = (arithmetic(QWEN3_0_6B, rank) for rank in (0, RANK))
    for each in (full, lora):
        each["training"] = sum(list(each.values())[:5])
    rows = [f"| {name} | {full[name] / 1e9:.2f} | {lora[name] / 1e9:.2f} |" for name in full]
    return "\n".join([f"| GB | all weights | LoRA, rank {RANK} |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())
