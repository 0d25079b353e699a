"""The training loss: mean cross entropy of the next token over weighted tokens.

The recipe that is fastest on CPUs (bench/train_throughput.py): float32 master weights, `compute_dtype` bfloat16,
`compiled=True`, micro-batches of about 2,000 tokens whose gradients are accumulated (activations stay in the cache).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ponder.model.transformer import Transformer

_MAX_LOGITS = 1 << 27  # logits alive at a time; beyond it they are computed in pieces, and again in the backward pass


def next_token_loss(
    model: Transformer,
    ids_BT: Tensor,
    targets_BT: Tensor,
    weights_BT: Tensor | None = None,
    documents_BT: Tensor | None = None,
    positions_BT: Tensor | None = None,
    *,
    total_weight: Tensor | float | None = None,
    compiled: bool = False,
) -> Tensor:
    """Sum of weight x cross entropy (nats) over sum of weights, a float32 scalar.

    targets_BT: the id that follows each token of ids_BT. weights_BT: None counts every token once; 0 leaves a token
    out. documents_BT, positions_BT: as in `Transformer.hidden`. total_weight: what to divide by instead, when the
    batch comes in several micro-batches. compiled: blocks and loss under torch.compile, once for each shape of
    ids_BT. A batch without any weight has loss 0.
    """
    h_ND = model.stream(ids_BT, positions_BT=positions_BT, documents_BT=documents_BT, compiled=compiled).flatten(0, 1)
    targets_N = targets_BT.flatten()
    weights_N = torch.ones_like(targets_N, dtype=torch.float32) if weights_BT is None else weights_BT.flatten().float()
    if total_weight is None:
        total_weight = weights_N.sum().clamp_min(torch.finfo(torch.float32).tiny)
    summed = _compiled_head() if compiled else summed_loss
    rows = max(1, _MAX_LOGITS // model.config.vocab_size)
    if len(targets_N) <= rows:
        return summed(model, h_ND, targets_N, weights_N) / total_weight
    pieces = zip(h_ND.split(rows), targets_N.split(rows), weights_N.split(rows), strict=True)
    sums = [checkpoint(summed, model, *piece, use_reentrant=False) for piece in pieces]
    return torch.stack(sums).sum() / total_weight


def summed_loss(model: Transformer, h_ND: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
    """The residual stream after the last block → the weighted sum of cross entropies, float32."""
    logits_NV = model.unembed(model.model.norm(h_ND)).float()
    return (F.cross_entropy(logits_NV, targets_N, reduction="none") * weights_N).sum()


@cache
def _compiled_head() -> Callable[[Transformer, Tensor, Tensor, Tensor], Tensor]:
    return torch.compile(summed_loss, dynamic=False, fullgraph=True)
