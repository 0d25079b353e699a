"""Small models of every family, packed batches, and their gradients, for tests of the training kernels."""

import torch

from ponder.model.config import Family, ModelConfig
from ponder.model.loss import Backend, next_token_loss
from ponder.model.transformer import Transformer

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 32,
    "intermediate_size": 96,
}
FAMILIES = {
    "qwen3": {},
    "qwen3, head_dim 64, no sharing": {"head_dim": 64, "num_kv_heads": 4},
    "qwen3, untied": {"tie_embeddings": False},
    "qwen2": {"family": Family.QWEN2, "qk_norm": False, "attention_bias": True},
    "llama": {"family": Family.LLAMA, "qk_norm": False, "attention_bias": True},
}
LENGTHS = {"one": [200], "many": [70, 3, 1, 62, 64], "single tokens": [1] * 40 + [160]}


def make(dtype: torch.dtype | None = torch.bfloat16, **changes: object) -> Transformer:
    model = Transformer(ModelConfig(**(SHAPE | changes)), seed=3)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter * 4 if parameter.dim() > 1 else parameter + 0.2 * noise)
    model.compute_dtype = dtype
    return model


def batch(T: int = 200, lengths: list[int] | None = None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids_BT, targets_BT = (torch.randint(0, 96, (3, T), generator=generator) for _ in range(2))
    weights_BT = (torch.rand(3, T, generator=generator) > 0.3).float()
    lengths = lengths or [T]
    documents_BT = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).expand(3, -1)
    return [ids_BT, targets_BT, weights_BT, documents_BT]


def gradients(model: Transformer, tensors: list[torch.Tensor], backend: Backend) -> dict[str, torch.Tensor]:
    loss = next_token_loss(model, *tensors, backend=backend)
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def distance(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())
