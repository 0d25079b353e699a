"""The training loss: mean cross entropy of the next token over weighted tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ponder.model.transformer import Transformer


def next_token_loss(
    model: Transformer,
    ids_BT: Tensor,
    targets_BT: Tensor,
    weights_BT: Tensor | None = None,
    documents_BT: Tensor | None = None,
    positions_BT: Tensor | None = None,
) -> Tensor:
    """Sum of weight x cross entropy (nats) over sum of weights, a float32 scalar.

    targets_BT: the id that follows each token of ids_BT. weights_BT: None counts every token once; 0 leaves a token
    out. documents_BT, positions_BT: as in `Transformer.hidden`. A batch without any weight has loss 0.
    """
    h_BTD = model.hidden(ids_BT, positions_BT=positions_BT, documents_BT=documents_BT)
    logits_NV = model.unembed(h_BTD).flatten(0, 1).float()
    loss_N = F.cross_entropy(logits_NV, targets_BT.flatten(), reduction="none")
    if weights_BT is None:
        return loss_N.mean()
    weights_N = weights_BT.flatten().float()
    return (loss_N * weights_N).sum() / weights_N.sum().clamp_min(1e-9)
