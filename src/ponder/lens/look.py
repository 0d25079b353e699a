"""What a model computes at every token of one context, kept: distributions, what each layer would say, attention.

Axes: T tokens, R query rows kept, L layers, H heads, N likeliest ids, D model width, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.types import InvalidRequest

FULL = 255
"""What a row of attention sums to, in the bytes that are kept."""

_MOST_LOGITS = 1 << 24  # at once


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadRows:
    """Where one head of one layer looked, in bytes.

    rows: for each query row kept, its first `row + 1` weights as bytes that sum to 255, end to end, deflated (zlib).
    strongest_R: the place with the largest weight, which rounding may have made equal to others.
    """

    rows: bytes
    strongest_R: NDArray[np.int32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Look:
    """What a model computed over one context. Log-probabilities are natural, entropies in bits.

    logprobs_T, entropy_T: of an id after those before it, and of the distribution that it came from; NaN for the first.
    top_ids_TN, top_logprobs_TN: the likeliest ids at a token's own place, the likeliest first.
    next_ids_N, next_logprobs_N: what would come after the last token.
    layer_ids_LT, layer_logprobs_LT: what the final norm and the unembedding make of the stream before the first layer
        and after each (L + 1 rows; the logit lens, nostalgebraist 2020): its likeliest id, and what it gives the id
        that came.
    queries_R: the places whose attention is kept.
    heads: by layer, then by head; empty where no attention is kept.
    """

    ids_T: NDArray[np.int32]
    logprobs_T: NDArray[np.float32]
    entropy_T: NDArray[np.float32]
    top_ids_TN: NDArray[np.int32]
    top_logprobs_TN: NDArray[np.float32]
    next_ids_N: NDArray[np.int32]
    next_logprobs_N: NDArray[np.float32]
    layer_ids_LT: NDArray[np.int32]
    layer_logprobs_LT: NDArray[np.float32]
    queries_R: NDArray[np.int32]
    heads: tuple[tuple[HeadRows, ...], ...]


def observe(
    model: Transformer,
    ids: Sequence[int],
    *,
    top: int = 8,
    queries: Sequence[int] | None = None,
    mean_head: bool = False,
) -> Look:
    """Run `model` over `ids` once, and keep what it computed.

    queries: the places whose attention is kept; None: all.
    mean_head: keep one head a layer, the mean of all.
    Raises InvalidRequest for no ids, for more than the window holds, and for a model whose weights are blocks.
    """
    window = model.config.max_positions
    if not 1 <= len(ids) <= window:
        raise InvalidRequest(f"{len(ids)} tokens cannot be looked at: give 1 to {window}, the window of this model")
    if model.block_types:
        raise InvalidRequest("weights that are kept as blocks cannot be looked at: load the model as float32")
    kept = np.arange(len(ids)) if queries is None else np.array(sorted(set(queries)), np.int64)
    watching = _Attention(kept, mean_head=mean_head)
    layers = _Layers(model, ids, min(top, model.config.vocab_size))
    hooks = [block.register_forward_hook(layers.after_block) for block in model.model.layers]
    hooks.append(model.model.embed_tokens.register_forward_hook(layers.after_embedding))
    try:
        with torch.inference_mode():
            ids_T = torch.tensor(ids, device=model.model.embed_tokens.weight.device)
            model.stream(ids_T[None], attend=watching)
    finally:
        for hook in hooks:
            hook.remove()
    last = layers.last
    return Look(
        ids_T=np.array(ids, np.int32),
        logprobs_T=_after(last.logprobs),
        entropy_T=_after(last.entropy),
        top_ids_TN=_after(last.top_ids, 0),
        top_logprobs_TN=_after(last.top_logprobs),
        next_ids_N=last.top_ids[-1],
        next_logprobs_N=last.top_logprobs[-1],
        layer_ids_LT=np.stack([_after(each.top_ids[:, 0], 0) for each in layers.seen]),
        layer_logprobs_LT=np.stack([_after(each.logprobs) for each in layers.seen]),
        queries_R=kept.astype(np.int32),
        heads=tuple(map(tuple, watching.heads)) if len(kept) else (),
    )


def _after(predicted: NDArray[Any], first: float = np.nan) -> NDArray[Any]:
    """What each place says of the next, at that next token: nothing predicts the first."""
    return np.concatenate([np.full_like(predicted[:1], first), predicted[:-1]])


@dataclass(frozen=True, eq=False, kw_only=True)
class _Predicted:
    """What one layer's stream says comes next, at each place; `logprobs` of the id that does (of the last: NaN)."""

    logprobs: NDArray[np.float32]
    entropy: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_logprobs: NDArray[np.float32]


class _Layers:
    """Hooks that read the residual stream on its way."""

    def __init__(self, model: Transformer, ids: Sequence[int], top: int) -> None:
        self.model, self.top = model, top
        self.next_T = torch.tensor([*ids[1:], 0], device=model.model.embed_tokens.weight.device)
        self.seen: list[_Predicted] = []

    @property
    def last(self) -> _Predicted:
        return self.seen[-1]

    def after_embedding(self, module: torch.nn.Module, given: object, h_BTD: Tensor) -> None:
        self.seen.append(self._predicted(h_BTD[0], 1))

    def after_block(self, module: torch.nn.Module, given: object, h_BTD: Tensor) -> None:
        final = len(self.seen) == len(self.model.model.layers)
        self.seen.append(self._predicted(h_BTD[0], self.top if final else 1))

    def _predicted(self, h_TD: Tensor, top: int) -> _Predicted:
        parts: list[tuple[Tensor, ...]] = []
        num_rows = max(1, _MOST_LOGITS // self.model.config.vocab_size)
        for h_ND, next_N in zip(h_TD.split(num_rows), self.next_T.split(num_rows), strict=True):
            logprobs_NV = self.model.unembed(self.model.model.norm(h_ND)).float().log_softmax(-1)
            entropy_N = -(logprobs_NV.exp() * logprobs_NV.clamp_min(-1e4)).sum(-1) / float(np.log(2))
            values, places = logprobs_NV.topk(top)
            parts.append((logprobs_NV.gather(1, next_N[:, None])[:, 0], entropy_N, places.int(), values))
        logprobs, entropy, ids, likeliest = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        logprobs[-1] = np.nan
        return _Predicted(logprobs=logprobs, entropy=entropy, top_ids=ids, top_logprobs=likeliest)


class _Attention:
    """Causal self-attention that keeps its weights: an `Attend` of the transformer."""

    def __init__(self, queries: NDArray[np.int64], *, mean_head: bool) -> None:
        self.queries, self.mean_head = queries, mean_head
        self.heads: list[list[HeadRows]] = []

    def __call__(self, layer: int, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor) -> Tensor:
        _, H, T, d = q_BHTd.shape
        group = H // k_BKTd.shape[1]
        unseen_TT = torch.ones(T, T, dtype=torch.bool, device=q_BHTd.device).triu(1)
        rows = torch.from_numpy(self.queries).to(q_BHTd.device)
        outputs: list[Tensor] = []
        shown: list[NDArray[np.float32]] = []
        for head in range(H):
            scores_TT = q_BHTd[0, head].float() @ k_BKTd[0, head // group].float().T * d**-0.5
            weights_TT = scores_TT.masked_fill_(unseen_TT, float("-inf")).softmax(-1)
            outputs.append(weights_TT @ v_BKTd[0, head // group].float())
            kept_RT = weights_TT[rows].cpu().numpy()
            if self.mean_head and shown:
                shown[0] += kept_RT
            else:
                shown.append(kept_RT)
        if self.mean_head:
            shown[0] /= H
        self.heads.append([packed(kept_RT, self.queries) for kept_RT in shown])
        return torch.stack(outputs)[None].to(q_BHTd.dtype)


def packed(weights_RT: NDArray[np.float32], queries_R: NDArray[np.int64]) -> HeadRows:
    """Rows of attention as bytes, each rounded by largest remainder: a row sums to 255 exactly, and no weight is off by
    1/255. Rounding each by itself loses up to three quarters of a row whose weights are small."""
    pieces = []
    for weights_T, query in zip(weights_RT, queries_R, strict=True):
        scaled = weights_T[: query + 1].astype(np.float64)
        scaled *= FULL / scaled.sum()
        floors = np.floor(scaled)
        missing = FULL - int(floors.sum())
        if missing > 0:
            floors[np.argpartition(floors - scaled, missing - 1)[:missing]] += 1
        pieces.append(floors.astype(np.uint8).tobytes())
    return HeadRows(rows=zlib.compress(b"".join(pieces), 6), strongest_R=weights_RT.argmax(-1).astype(np.int32))


def unpacked(head: HeadRows, queries_R: NDArray[np.int32]) -> list[NDArray[np.uint8]]:
    """The rows of a head, each of `query + 1` bytes."""
    data = np.frombuffer(zlib.decompress(head.rows), np.uint8)
    ends = np.cumsum(queries_R.astype(np.int64) + 1)
    return np.split(data, ends[:-1]) if len(ends) else []


def neighbours(
    model: Transformer, ids: Sequence[int], around: int = 6
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The nearest other tokens of each id by the cosine of their embeddings, and those cosines: two (len(ids), around).
    What the model was trained on decides, not what the words mean to people."""
    with torch.inference_mode():
        table_VD = torch.nn.functional.normalize(model.model.embed_tokens.weight.float(), dim=-1)
        near: list[tuple[Tensor, Tensor]] = []
        for part in torch.tensor(list(ids), device=table_VD.device).split(max(1, _MOST_LOGITS // len(table_VD))):
            cosines_NV = table_VD[part] @ table_VD.T
            cosines_NV.scatter_(1, part[:, None], -2.0)
            values, places = cosines_NV.topk(min(around, len(table_VD) - 1))
            near.append((places.int().cpu(), values.cpu()))
    if not near:
        return np.empty((0, around), np.int32), np.empty((0, around), np.float32)
    nearest, cosines = (torch.cat(column).numpy() for column in zip(*near, strict=True))
    return nearest, cosines
