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
_TOGETHER = ((0, 1, 2), (3,), (4, 5), (6,))  # projections of one product
_LANES = 16


class LowRank(ctypes.Structure):
    """`LowRank` of cpu/adapters.h."""

    _fields_ = (("rank", ctypes.c_long), ("down", ctypes.c_void_p), ("up", ctypes.c_void_p))


class PackedAdapter:
    """One adapter in bfloat16, in one piece of memory in the order in which a step reads it.

    width: the ranks, together, of the projections of one product, at most.
    """

    def __init__(self, num_layers: int, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """pairs: A (rank, in) and B (out, rank) times alpha / rank, by the name of the projection with its layer's."""
        self._table = (LowRank * (num_layers * len(_PROJECTIONS)))()
        self.width = 0
        placed: list[tuple[int, str, Tensor]] = []
        for layer in range(num_layers):
            for part in _TOGETHER:
                known = [(at, pairs.get(f"model.layers.{layer}.{_PROJECTIONS[at]}")) for at in part]
                found = [(layer * len(_PROJECTIONS) + at, *pair) for at, pair in known if pair is not None]
                placed += [(at, "down", _padded_inputs(a_RI)) for at, a_RI, _ in found]
                placed += [(at, "up", _in_panels(b_OR)) for at, _, b_OR in found]
                self.width = max(self.width, sum(len(a_RI) for _, a_RI, _ in found))
        self._memory = torch.cat([each.flatten() for _, _, each in placed]) if placed else torch.empty(0)
        address = self._memory.data_ptr()
        for at, name, each in placed:
            setattr(self._table[at], name, address)
            self._table[at].rank = each.shape[-2] if name == "up" else len(each)
            address += each.numel() * each.itemsize

    @property
    def address(self) -> int:
        return ctypes.addressof(self._table)


def _padded_inputs(a_RI: Tensor) -> Tensor:
    rank, inputs = a_RI.shape
    down = torch.zeros(rank, -(-inputs // 32) * 32, dtype=torch.bfloat16)
    down[:, :inputs] = a_RI
    return down


def _in_panels(b_OR: Tensor) -> Tensor:
    """(outputs / 16, rank, 16)"""
    panels = -(-len(b_OR) // _LANES)
    padded = torch.zeros(panels * _LANES, b_OR.shape[1], dtype=torch.bfloat16)
    padded[: len(b_OR)] = b_OR
    return padded.view(panels, _LANES, -1).transpose(1, 2)
