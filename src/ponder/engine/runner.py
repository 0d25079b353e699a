"""One pass of the model over the rows of a step, in torch: ids and positions in, logits or picks out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from math import log
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ponder.engine.pages import Chunk, PagedKV
from ponder.engine.sampling import pick_with_torch
from ponder.engine.scheduler import Step
from ponder.kernels.fused import KernelChoice
from ponder.model.lora import AdaptedRows, Adapter, adapted_model
from ponder.model.transformer import Attend, Transformer
from ponder.types import TopLogprobs

_TILE = 32  # rows of a deterministic pass
_MOST_LOGITS = 1 << 25  # of a prompt, that exist at once: 128 MB of float32


class Runner:
    """Runs every token of a step as one row of a batch of one: matrix products see all rows, no row is padding.

    Deterministic, it runs tiles of always the same number of rows, one after the other: a matrix product of one shape
    takes one path through the library, so what stands beside a row cannot change it, and attention sees each row by
    itself. Slower, and bit for bit the same for any batch, any chunking, prefill or decode.
    """

    def __init__(
        self,
        model: Transformer,
        pages: PagedKV,
        choice: KernelChoice,
        *,
        deterministic: bool,
        adapters: Mapping[str, Adapter] = MappingProxyType({}),
    ) -> None:
        """adapters: by the name that a context's key has."""
        self.choice = choice
        self.pages = pages
        self._model = model
        self._deterministic = deterministic
        self._kept = torch.empty(0)  # logits of the last pass that ran more rows than were picked from
        self._adapters = adapters
        self._adapted_rows = AdaptedRows(exact=deterministic)

    @torch.inference_mode()
    def run(self, step: Step) -> None:
        """The sequences that are ready have their picks. Raises NotFinite."""
        pick_with_torch(self.logits(step), step.picks)

    @torch.inference_mode()
    def logits(self, step: Step) -> Tensor:
        """logits_SV that the picks of the step are made from, in their order. S is 0 when there is none."""
        if step.ran:
            return self._kept[step.rows]
        logits_RV = self._pass(step)
        if not step.drafts:
            return logits_RV
        self._kept = logits_RV
        return logits_RV[: len(step.ready)]

    def _pass(self, step: Step) -> Tensor:
        """logits_RV of the rows that are wanted."""
        ids = step.ids()
        positions = [position for chunk in step.chunks for position in range(chunk.start, chunk.end)]
        names = [
            name
            for chunk, context in zip(step.chunks, step.contexts, strict=True)
            for name in [context.key.adapter] * chunk.length
        ]
        if self._deterministic:
            return self._run_in_tiles(step.chunks, ids, positions, names, step.rows)
        h_ND = self._hidden(ids, positions, names, self.pages.attend(step.chunks))
        return self._model.unembed(h_ND if step.rows == list(range(len(ids))) else h_ND[step.rows])

    @cached_property
    def _adapted_model(self) -> Transformer:
        return adapted_model(self._model, self._adapted_rows)

    def _hidden(self, ids: list[int], positions: list[int], names: list[str], attend: Attend) -> Tensor:
        """names: of each row's adapter, "" without one."""
        device, model = self.pages.device, self._model
        if any(names):
            model, first = self._adapted_model, 0
            self._adapted_rows.parts.clear()
            for name, group in groupby(names):
                end = first + len(list(group))
                if name:
                    self._adapted_rows.parts.append((self._adapters[name], slice(first, end)))
                first = end
        return model.hidden(
            torch.tensor([ids], device=device),
            positions_BT=torch.tensor([positions], device=device),
            attend=attend,
        )[0]

    def _run_in_tiles(
        self, chunks: list[Chunk], ids: list[int], positions: list[int], names: list[str], rows: list[int]
    ) -> Tensor:
        hidden, begin = [], 0
        for tile in _tiles(chunks):
            count = sum(chunk.length for chunk in tile)
            padding, end = [0] * (_TILE - count), begin + count
            attend = _Padded(self.pages.attend(tile, exact=True), count)
            h_ND = self._hidden(ids[begin:end] + padding, positions[begin:end] + padding, names[begin:end], attend)
            hidden.append(h_ND[:count])
            begin = end
        h_SD = torch.cat(hidden)[rows]
        logits = [self._model.unembed(F.pad(h_D, (0, 0, 0, _TILE - len(h_D))))[: len(h_D)] for h_D in h_SD.split(_TILE)]
        return torch.cat(logits)


def in_product_dtype(model: Transformer) -> Transformer:
    """The model; or a copy whose weights are in what torch multiplies here, so that not every step converts them."""
    dtype = model.product_dtype
    if dtype == model.compute_dtype or all(each.dtype == dtype for each in model.parameters()):
        return model
    memo = {id(each): nn.Parameter(each.detach().to(dtype), requires_grad=False) for each in model.parameters()}
    converted = copy.deepcopy(model, memo)
    converted.compute_dtype = None
    return converted


def prompt_logprobs(model: Transformer, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
    """For each id but the first: its natural log-probability after those before it, at temperature 1, and the `top`
    likeliest ids at its place.

    By the training forward, once through the whole prompt: a step keeps the logits of last tokens only. The caller
    holds `COMPUTE_LOCK` and has checked the ids.
    """
    logprobs: list[float] = []
    likeliest: list[TopLogprobs] = []
    with torch.inference_mode():
        ids_T = torch.tensor(ids, device=model.model.embed_tokens.weight.device)
        h_TD = model.hidden(ids_T[None])[0, :-1]
        num_rows = max(1, _MOST_LOGITS // model.config.vocab_size)
        for h_ND, ids_N in zip(h_TD.split(num_rows), ids_T[1:].split(num_rows), strict=True):
            logprobs_NV = model.unembed(h_ND).float().log_softmax(-1)
            logprobs += logprobs_NV.gather(1, ids_N[:, None])[:, 0].tolist()
            values, places = logprobs_NV.topk(top)
            rows = zip(places.tolist(), values.tolist(), strict=True)
            likeliest += [tuple(zip(row, values, strict=True)) for row, values in rows]
    return logprobs, likeliest


def prompt_certainty(model: Transformer, ids: Sequence[int], first: int) -> float:
    """The mean self-certainty over the places of `ids` from `first` on: the divergence of the uniform distribution from
    the model's own, -log V - mean_V log p, in nats. As `prompt_logprobs` otherwise."""
    total = 0.0
    with torch.inference_mode():
        ids_T = torch.tensor(ids[:-1], device=model.model.embed_tokens.weight.device)
        h_TD = model.hidden(ids_T[None])[0, first - 1 :]
        size = model.config.vocab_size
        for h_ND in h_TD.split(max(1, _MOST_LOGITS // size)):
            logprobs_NV = model.unembed(h_ND).float().log_softmax(-1)
            total -= float(logprobs_NV.mean(-1).sum())
    return total / len(h_TD) - log(size)


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
