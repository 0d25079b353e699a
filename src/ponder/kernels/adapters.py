"""LoRA adapters as the fused step reads them (`cpu/adapters.h`): many beside one copy of the base."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
from torch import Tensor

_PROJECTIONS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
_TOGETHER = (slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7))  # projections of one product
_LANES = 16


class LowRank(ctypes.Structure):
    """`LowRank` of cpu/adapters.h."""

    _fields_ = (("rank", ctypes.c_long), ("down", ctypes.c_void_p), ("up", ctypes.c_void_p))


class PackedAdapter:
    """One adapter in bfloat16.

    width: the ranks, together, of the projections of one product, at most.
    """

    def __init__(self, num_layers: int, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """pairs: A (rank, in) and B (out, rank) times alpha / rank, by the name of the projection with its layer's."""
        self._kept: list[Tensor] = []
        self._table = (LowRank * (num_layers * len(_PROJECTIONS)))()
        self.width = 0
        for layer in range(num_layers):
            ranks = []
            for at, name in enumerate(_PROJECTIONS):
                pair = pairs.get(f"model.layers.{layer}.{name}")
                ranks.append(0 if pair is None else len(pair[0]))
                if pair is not None:
                    self._table[layer * len(_PROJECTIONS) + at] = self._pack(*pair)
            self.width = max(self.width, *(sum(ranks[part]) for part in _TOGETHER))

    @property
    def address(self) -> int:
        return ctypes.addressof(self._table)

    def _pack(self, a_RI: Tensor, b_OR: Tensor) -> LowRank:
        rank, inputs = a_RI.shape
        down = torch.zeros(rank, -(-inputs // 32) * 32, dtype=torch.bfloat16)
        down[:, :inputs] = a_RI
        panels = -(-len(b_OR) // _LANES)
        padded = torch.zeros(panels * _LANES, rank, dtype=torch.bfloat16)
        padded[: len(b_OR)] = b_OR
        up = padded.view(panels, _LANES, rank).transpose(1, 2).contiguous()
        self._kept += [down, up]
        return LowRank(rank, down.data_ptr(), up.data_ptr())
