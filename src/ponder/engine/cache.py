"""Keys and values in contiguous slots, one per running sequence, and attention over them.

Axes: L slots in the cache, K key/value heads, C capacity in tokens, d head width; N rows of a step, D decode rows
(one per sequence), n rows of a prefill chunk, G query heads per key/value head, P longest context of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ponder.model.transformer import Attend

_FIRST_CAPACITY = 256


@dataclass(frozen=True, slots=True)
class Chunk:
    """`length` neighbouring tokens of one sequence, the first at position `start`, in slot `slot`."""

    slot: int
    start: int
    length: int


class SlotCache:
    """One (L, K, C, d) tensor of keys and one of values per layer. Slots and capacity grow on demand and never shrink.

    New memory is zeroed: a masked position weighs 0, and 0 times what was never written must not be NaN.
    """

    def __init__(
        self, num_layers: int, num_kv_heads: int, head_dim: int, window: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.window = window
        self._empty = torch.zeros(0, num_kv_heads, 0, head_dim, dtype=dtype, device=device)
        self.keys = [self._empty] * num_layers
        self.values = [self._empty] * num_layers

    @property
    def num_slots(self) -> int:
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def reserve(self, num_slots: int, capacity: int) -> None:
        """Make room for slots 0 … num_slots - 1 of `capacity` tokens. Grows by doubling, so that copying stays rare."""
        assert capacity <= self.window
        if num_slots <= self.num_slots and capacity <= self.capacity:
            return
        if num_slots > self.num_slots:
            num_slots = max(num_slots, 2 * self.num_slots)
        if capacity > self.capacity:
            capacity = min(self.window, max(capacity, 2 * self.capacity, _FIRST_CAPACITY))
        num_slots, capacity = max(num_slots, self.num_slots), max(capacity, self.capacity)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_zeros(num_slots, old.shape[1], capacity, old.shape[3])
                new[: old.shape[0], :, : old.shape[2]] = old
                tensors[layer] = new

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` tokens of slot `source`."""
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[target, :, :length] = tensor[source, :, :length]

    def attend(self, chunks: Sequence[Chunk]) -> Attend:
        """The `attend` seam of the model for one step whose rows are the tokens of `chunks`, one after the other.

        Chunks of one token (decode) must come first, in the order of their slots. Room must be reserved.
        """
        return _StepAttention(self, chunks)


class _StepAttention:
    """Writes a step's keys and values into their slots and lets each row see its own sequence up to itself."""

    def __init__(self, cache: SlotCache, chunks: Sequence[Chunk]) -> None:
        self._cache = cache
        decoding = [chunk for chunk in chunks if chunk.length == 1]
        self._prefilling = chunks[len(decoding) :]
        assert all(chunk.length > 1 for chunk in self._prefilling)
        self._num_decode = len(decoding)
        self._written = self._rows_written(chunks)
        if decoding:
            self._plan_decode(decoding)
        self._masks = [_chunk_mask(chunk, cache.keys[0]) for chunk in self._prefilling]

    def _rows_written(self, chunks: Sequence[Chunk]) -> Tensor:
        """Row of a (L x K x C, d) view of the cache for each (token, head) of the step."""
        _, K, C, _ = self._cache.keys[0].shape
        first = torch.tensor([chunk.slot * K * C + chunk.start for chunk in chunks])
        lengths = torch.tensor([chunk.length for chunk in chunks])
        begins = lengths.cumsum(0) - lengths
        within = torch.arange(int(lengths.sum())) - begins.repeat_interleave(lengths)
        rows_N = first.repeat_interleave(lengths) + within
        return (rows_N[:, None] + torch.arange(K) * C).flatten().to(self._cache.keys[0].device)

    def _plan_decode(self, chunks: Sequence[Chunk]) -> None:
        """Decode rows attend over the span of slots they lie in, read in place. Where idle slots are more than half of
        the span, the slots in use are copied out instead."""
        low, high = chunks[0].slot, chunks[-1].slot + 1
        slots, contexts = [chunk.slot for chunk in chunks], [chunk.start + 1 for chunk in chunks]
        device = self._cache.keys[0].device
        self._longest = max(contexts)
        self._gathered = torch.tensor(slots, device=device) if high - low > 2 * len(chunks) else None
        self._span = slice(low, high)
        self._rows_in_span: Tensor | None = None
        if self._gathered is None and high - low > len(chunks):
            self._rows_in_span = torch.tensor(slots, device=device) - low
            spread = [1] * (high - low)
            for slot, context in zip(slots, contexts, strict=True):
                spread[slot - low] = context
            contexts = spread
        hidden = torch.arange(self._longest) >= torch.tensor(contexts)[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._cache.keys[0].dtype).masked_fill(hidden, float("-inf"))
        self._mask_S11P = mask[:, None, None, :].to(device)

    def __call__(self, layer: int, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor) -> Tensor:
        q_1HNd, k_1KNd, v_1KNd = q_BHTd, k_BKTd, v_BKTd  # the rows of a step are one batch of N tokens
        keys_LKCd, values_LKCd = self._cache.keys[layer], self._cache.values[layer]
        d = q_1HNd.shape[-1]
        for cached, new in ((keys_LKCd, k_1KNd), (values_LKCd, v_1KNd)):
            cached.view(-1, d).index_copy_(0, self._written, new[0].transpose(0, 1).reshape(-1, d))
        outputs = []
        if self._num_decode:
            outputs.append(self._decode(q_1HNd[0, :, : self._num_decode], keys_LKCd, values_LKCd))
        begin = self._num_decode
        for chunk, mask in zip(self._prefilling, self._masks, strict=True):
            q_Hnd = q_1HNd[0, :, begin : begin + chunk.length]
            outputs.append(_prefill(q_Hnd, keys_LKCd[chunk.slot], values_LKCd[chunk.slot], chunk, mask))
            begin += chunk.length
        return torch.cat(outputs, dim=1)[None] if len(outputs) > 1 else outputs[0][None]

    def _decode(self, q_HDd: Tensor, keys_LKCd: Tensor, values_LKCd: Tensor) -> Tensor:
        H, D, d = q_HDd.shape
        K = keys_LKCd.shape[1]
        q_SKGd = q_HDd.transpose(0, 1).reshape(D, K, H // K, d)
        k_SKPd = keys_LKCd[self._span, :, : self._longest]
        v_SKPd = values_LKCd[self._span, :, : self._longest]
        if self._gathered is not None:
            k_SKPd = keys_LKCd[:, :, : self._longest].index_select(0, self._gathered)
            v_SKPd = values_LKCd[:, :, : self._longest].index_select(0, self._gathered)
        elif self._rows_in_span is not None:
            q_SKGd = q_SKGd.new_zeros(k_SKPd.shape[0], *q_SKGd.shape[1:]).index_copy_(0, self._rows_in_span, q_SKGd)
        # The G query heads that share a key/value head stand where a prompt's positions would: nothing is repeated.
        mask = self._mask_S11P.expand(-1, -1, q_SKGd.shape[2], -1)
        o_SKGd = F.scaled_dot_product_attention(q_SKGd, k_SKPd, v_SKPd, attn_mask=mask)
        if self._rows_in_span is not None:
            o_SKGd = o_SKGd.index_select(0, self._rows_in_span)
        return o_SKGd.reshape(D, H, d).transpose(0, 1)


def _prefill(q_Hnd: Tensor, keys_KCd: Tensor, values_KCd: Tensor, chunk: Chunk, mask: Tensor | None) -> Tensor:
    H, n, d = q_Hnd.shape
    K, end = keys_KCd.shape[0], chunk.start + chunk.length
    k_KGPd = keys_KCd[:, None, :end].expand(-1, H // K, -1, -1)
    v_KGPd = values_KCd[:, None, :end].expand(-1, H // K, -1, -1)
    q_KGnd = q_Hnd.reshape(K, H // K, n, d)
    o_KGnd = F.scaled_dot_product_attention(q_KGnd, k_KGPd, v_KGPd, attn_mask=mask, is_causal=mask is None)
    return o_KGnd.reshape(H, n, d)


def _chunk_mask(chunk: Chunk, like: Tensor) -> Tensor | None:
    """None where the chunk begins its sequence: plain causal attention."""
    if chunk.start == 0:
        return None
    position_n1 = torch.arange(chunk.start, chunk.start + chunk.length)[:, None]
    hidden_nP = torch.arange(chunk.start + chunk.length) > position_n1
    return torch.zeros(hidden_nP.shape, dtype=like.dtype).masked_fill(hidden_nP, float("-inf")).to(like.device)
