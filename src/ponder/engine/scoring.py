"""What a model gives tokens that are there already: a prompt's log-probabilities.

By the training forward, once through the whole prompt: the engine's steps keep logits of last tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ponder.engine.engine import COMPUTE_LOCK
from ponder.model.transformer import Transformer
from ponder.types import TopLogprobs

BLOCK = 1 << 25  # logits that exist at once: 128 MB of float32


def score(model: Transformer, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
    """For each id but the first: its natural log-probability after those before it, at temperature 1, and the `top`
    likeliest ids at its place. Holds `COMPUTE_LOCK`; the ids have been checked."""
    logprobs: list[float] = []
    likeliest: list[TopLogprobs] = []
    with COMPUTE_LOCK, torch.inference_mode():
        ids_T = torch.tensor(ids, device=model.model.embed_tokens.weight.device)
        h_TD = model.hidden(ids_T[None])[0, :-1]
        for h_ND, ids_N in zip(_blocks(h_TD, model), _blocks(ids_T[1:], model), strict=True):
            logprobs_NV = model.unembed(h_ND).float().log_softmax(-1)
            logprobs += logprobs_NV.gather(1, ids_N[:, None])[:, 0].tolist()
            values, places = logprobs_NV.topk(top)
            rows = zip(places.tolist(), values.tolist(), strict=True)
            likeliest += [tuple(zip(row, values, strict=True)) for row, values in rows]
    return logprobs, likeliest


def _blocks(rows: torch.Tensor, model: Transformer) -> Sequence[torch.Tensor]:
    return rows.split(max(1, BLOCK // model.config.vocab_size))
