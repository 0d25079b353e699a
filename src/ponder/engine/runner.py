"""One pass of the model over the rows of a step, in torch: ids and positions in, logits or picks out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ponder.engine.pages import Chunk, PagedKV
from ponder.engine.sampling import pick
from ponder.engine.scheduler import Step
from ponder.kernels.fused import Choice
from ponder.model.transformer import Attend, Transformer

_TILE = 32  # rows of a deterministic pass


class Runner:
    """Runs every token of a step as one row of a batch of one: matrix products see all rows, no row is padding.

    Deterministic, it runs tiles of always the same number of rows, one after the other: a matrix product of one shape
    takes one path through the library, so what stands beside a row cannot change it, and attention sees each row by
    itself. Slower, and bit for bit the same for any batch, any chunking, prefill or decode.
    """

    def __init__(self, model: Transformer, pages: PagedKV, choice: Choice, *, deterministic: bool) -> None:
        self.choice = choice
        self.pages = pages
        self._model = model
        self._deterministic = deterministic

    @torch.inference_mode()
    def run(self, step: Step) -> None:
        """The sequences that are ready have their picks. Raises NotFinite."""
        pick(self.logits(step), [sequence.pick for sequence in step.ready])

    @torch.inference_mode()
    def logits(self, step: Step) -> Tensor:
        """logits_SV of the sequences that are ready, in their order. S is 0 when none is."""
        ids: list[int] = []
        positions: list[int] = []
        for chunk, context in zip(step.chunks, step.contexts, strict=True):
            ids += context.tokens[chunk.start : chunk.end]
            positions += range(chunk.start, chunk.end)
        if self._deterministic:
            return self._run_in_tiles(step.chunks, ids, positions, step.rows)
        h_ND = self._hidden(ids, positions, self.pages.attend(step.chunks))
        return self._model.unembed(h_ND if len(step.rows) == len(ids) else h_ND[step.rows])

    def _hidden(self, ids: list[int], positions: list[int], attend: Attend) -> Tensor:
        device = self.pages.device
        return self._model.hidden(
            torch.tensor([ids], device=device),
            positions_BT=torch.tensor([positions], device=device),
            attend=attend,
        )[0]

    def _run_in_tiles(self, chunks: list[Chunk], ids: list[int], positions: list[int], rows: list[int]) -> Tensor:
        hidden, begin = [], 0
        for tile in _tiles(chunks):
            count = sum(chunk.length for chunk in tile)
            padding, end = [0] * (_TILE - count), begin + count
            attend = _Padded(self.pages.attend(tile, exact=True), count)
            h_ND = self._hidden(ids[begin:end] + padding, positions[begin:end] + padding, attend)
            hidden.append(h_ND[:count])
            begin = end
        h_SD = torch.cat(hidden)[rows]
        logits = [self._model.unembed(F.pad(h_D, (0, 0, 0, _TILE - len(h_D))))[: len(h_D)] for h_D in h_SD.split(_TILE)]
        return torch.cat(logits)


class _Padded:
    """An `attend` for the first `count` rows of a tile; the others are padding, write nothing and see zeros."""

    def __init__(self, attend: Attend, count: int) -> None:
        self._attend = attend
        self._count = count

    def __call__(self, layer: int, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor) -> Tensor:
        real = slice(0, self._count)
        o_BHTd = self._attend(layer, q_BHTd[:, :, real], k_BKTd[:, :, real], v_BKTd[:, :, real])
        return F.pad(o_BHTd, (0, 0, 0, q_BHTd.shape[2] - self._count))


def _tiles(chunks: list[Chunk]) -> Iterator[list[Chunk]]:
    """The rows of `chunks` in their order, at most a tile at a time."""
    tile: list[Chunk] = []
    room = _TILE
    for chunk in chunks:
        start = chunk.start
        while start < chunk.end:
            length = min(room, chunk.end - start)
            tile.append(Chunk(chunk.pages, start, length))
            start, room = start + length, room - length
            if not room:
                yield tile
                tile, room = [], _TILE
    if tile:
        yield tile
