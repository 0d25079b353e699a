"""Decoding on a GPU: the pass of a step is recorded as a CUDA graph, once for each size, and played back.

A pass of a small batch is hundreds of kernels that take less time to run than to launch; a graph launches them all at
once. It reads what changes from step to step (ids, positions, page tables) from tensors that stay where they are, and
the weights from where they lie: they may change in place, and a move of theirs makes the graphs void.

Axes: B rows, one token of a context each, or one of each voice in a context, padded to a size that was recorded; P
pages of a context, padded likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ponder.engine.pages import PagedKV
from ponder.engine.runner import Runner
from ponder.engine.scheduler import Step
from ponder.kernels.fused import KernelChoice
from ponder.model.lora import Adapter
from ponder.model.transformer import Transformer

MOST_PAGES = 1 << 14  # of a pass, padding included; with more to read, it is not the launches that take the time


class GraphRunner(Runner):
    """Plays graphs for steps that only decode, over at most MOST_PAGES; every other step runs as `Runner` runs it.

    pages: their last page is not the scheduler's: padding is written there.
    """

    def __init__(
        self,
        model: Transformer,
        pages: PagedKV,
        choice: KernelChoice,
        *,
        capture: bool = True,
        adapters: Mapping[str, Adapter] = MappingProxyType({}),
    ) -> None:
        """capture False: the same passes, launched kernel by kernel (where there is no GPU). A step with adapters runs
        as `Runner` runs it."""
        super().__init__(model, pages, choice, deterministic=False, adapters=adapters)
        self._capture = capture
        self._spare = pages.keys[0].shape[0] - 1
        self._passes: dict[tuple[int, int], _Pass] = {}
        self._pool = torch.cuda.graph_pool_handle() if capture else None
        self._where = layout(model)

    def fits(self, model: Transformer, choice: KernelChoice) -> bool:
        """Whether what was recorded still computes `model`: its weights may have changed, but not moved."""
        return choice == self.choice and model is self._model and layout(model) == self._where

    def forget(self) -> None:
        """Every page is zero again."""
        for tensor in (*self.pages.keys, *self.pages.values):
            tensor.zero_()

    @torch.inference_mode()
    def logits(self, step: Step) -> Tensor:
        """logits_SV that the picks of the step are made from, in their order. They hold until the next run."""
        if step.ran or step.drafts or not step.decodes:
            return super().logits(step)
        longest = max((chunk.end - 1) // self.pages.page_size + 1 for chunk in step.chunks)
        size = (round_up(sum(chunk.length for chunk in step.chunks)), round_up(longest))
        # In a pass every context is padded to the longest.
        if size[0] * size[1] > MOST_PAGES:
            return super().logits(step)
        if any(context.key.adapter for context in step.contexts):
            return super().logits(step)
        known = self._passes.get(size)
        if known is None:
            known = self._passes[size] = _Pass(self._model, self.pages, *size, self._spare)
        known.read(step)
        if self._capture and known.graph is None:
            known.record(self._pool)
        logits_BV = known.play()
        rows = step.rows
        return logits_BV[: len(rows)] if rows == list(range(len(rows))) else logits_BV[rows]


class _Pass:
    """Decoding of up to B rows whose contexts hold up to P pages."""

    def __init__(self, model: Transformer, pages: PagedKV, B: int, P: int, spare: int) -> None:
        self._model, self._pages, self._spare = model, pages, spare
        on_gpu = pages.device.type == "cuda"
        self._staged = torch.empty(B, 2 + P, dtype=torch.int64, pin_memory=on_gpu)  # id, position, pages
        self._inputs = torch.empty_like(self._staged, device=pages.device, pin_memory=False)
        self._copied = torch.cuda.Event() if on_gpu else None
        self._logits: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    def read(self, step: Step) -> None:
        """What the next pass computes."""
        if self._copied is not None:
            self._copied.synchronize()  # the last copy may not have begun
        staged = self._staged.numpy()
        staged[:, :2], staged[:, 2:] = 0, self._spare
        size = self._pages.page_size
        places = ((chunk.pages, place) for chunk in step.chunks for place in range(chunk.start, chunk.end))
        for row, (id, (pages, place)) in enumerate(zip(step.ids(), places, strict=True)):
            held = place // size + 1
            staged[row, 0], staged[row, 1] = id, place
            staged[row, 2 : 2 + held] = np.frombuffer(pages, np.int32)[:held]
        self._inputs.copy_(self._staged, non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def record(self, pool: Any) -> None:
        """Needs inputs: they are computed a few times over, which writes the same keys and values again."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries choose and allocate in their first calls, which must not be recorded
                self._forward()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._logits = self._forward()
        self.graph = graph

    def play(self) -> Tensor:
        """logits_BV"""
        if self.graph is None or self._logits is None:
            return self._forward()
        self.graph.replay()
        return self._logits

    def _forward(self) -> Tensor:
        ids_B, positions_B, tables_BP = self._inputs[:, 0], self._inputs[:, 1], self._inputs[:, 2:]
        attend = _Attend(self._pages, positions_B, tables_BP)
        h_1BD = self._model.hidden(ids_B[None], positions_BT=positions_B[None], attend=attend)
        return self._model.unembed(h_1BD[0])


class _Attend:
    """Every row writes its key and value, and sees its own context up to itself."""

    def __init__(self, pages: PagedKV, positions_B: Tensor, tables_BP: Tensor) -> None:
        self._pages = pages
        _, K, size, _ = pages.keys[0].shape
        heads_K = torch.arange(K, device=pages.device)
        page_B = tables_BP.gather(1, positions_B[:, None] // size)
        self._written = (((page_B * K + heads_K) * size) + positions_B[:, None] % size).flatten()
        self._gather = (tables_BP[:, None, :] * K + heads_K[:, None]).flatten()
        T = tables_BP.shape[1] * size
        self._seen_B11T = (torch.arange(T, device=pages.device) <= positions_B[:, None])[:, None, None]

    def __call__(self, layer: int, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor) -> Tensor:
        _, H, B, d = q_BHTd.shape  # the rows are one batch of B tokens
        K = k_BKTd.shape[1]

        def with_past(cached: Tensor, new_1KBd: Tensor) -> Tensor:
            cached.view(-1, d).index_copy_(0, self._written, new_1KBd[0].transpose(0, 1).reshape(-1, d))
            return cached.view(-1, cached.shape[2] * d)[self._gather].view(B, K, -1, d)

        k, v = with_past(self._pages.keys[layer], k_BKTd), with_past(self._pages.values[layer], v_BKTd)
        # Query heads that share a key/value head stand where more queries would: nothing is repeated.
        q_BKGd = q_BHTd[0].transpose(0, 1).reshape(B, K, H // K, d)
        mask = self._seen_B11T.expand(-1, -1, H // K, -1)
        o_BKGd = F.scaled_dot_product_attention(q_BKGd, k, v, attn_mask=mask)
        return o_BKGd.reshape(B, H, d).transpose(0, 1)[None]


def round_up(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, …: at most half as much again."""
    power = 1 << max(0, count.bit_length() - 1)
    return next(size for size in (power, power + power // 2, 2 * power) if size >= count)


def layout(model: Transformer) -> tuple[object, ...]:
    """Changes when a pass over `model` would read other memory, or compute something else."""
    tensors = (tensor.data_ptr() for tensor in chain(model.parameters(), model.buffers()))
    return (model.compute_dtype, *tensors, *(getattr(module, "adapter_pending", None) for module in model.modules()))
