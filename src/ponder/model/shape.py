"""A model's sizes as the compiled kernels take them."""

from __future__ import annotations

from ponder.kernels.fused import StepShape
from ponder.model.transformer import Transformer


def step_shape(model: Transformer) -> StepShape:
    config = model.config
    return StepShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        intermediate_size=config.intermediate_size,
        qk_norm=config.qk_norm,
        rms_norm_eps=config.rms_norm_eps,
    )
