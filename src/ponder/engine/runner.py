"""One pass of the model over the rows of a step: ids and positions in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor

from ponder.engine.cache import SlotCache
from ponder.engine.scheduler import Step
from ponder.model.transformer import Transformer


class Runner:
    """Runs every token of a step as one row of a batch of one: matrix products see all rows, no row is padding."""

    def __init__(self, model: Transformer, cache: SlotCache) -> None:
        self._model = model
        self._cache = cache
        self._device = cache.keys[0].device

    @torch.inference_mode()
    def run(self, step: Step) -> Tensor:
        """logits_SV of the sequences that are ready, in their order. S is 0 when none is."""
        ids: list[int] = []
        positions: list[int] = []
        for chunk, sequence in zip(step.chunks, step.sequences, strict=True):
            end = chunk.start + chunk.length
            ids += sequence.tokens[chunk.start : end]
            positions += range(chunk.start, end)
        h_1ND = self._model.hidden(
            torch.tensor([ids], device=self._device),
            positions_BT=torch.tensor([positions], device=self._device),
            attend=self._cache.attend(step.chunks),
        )
        rows = [row for row, _ in step.ready()]
        h_SD = h_1ND[0] if len(rows) == len(ids) else h_1ND[0, rows]
        return self._model.unembed(h_SD)
