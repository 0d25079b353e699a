"""Keys and values in pages, and attention over them, in torch.

Axes: N rows of a step, K key/value heads, G query heads per key/value head, H = K x G, d head width; of one part of the
attention: B runs of rows, n rows in a run, P pages in a run's context, T = P x page_size keys.
"""

from __future__ import annotations

import math
import mmap
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ponder.engine.blocks import num_pages
from ponder.kernels.machine import product_dtype
from ponder.model.config import ModelConfig
from ponder.model.transformer import Attend, Transformer
from ponder.types import InvalidRequest

_SHORT = 16  # rows; runs up to this length are padded to a common length and computed together
_SCORES = 1 << 22  # scores of one head that a part may hold at once
_SLACK = 512  # tokens; contexts this short are computed together, however unlike
_WORTH_SHARING = 8  # pages that a shared part must save, at least


@dataclass(slots=True)
class Chunk:
    """`length` neighbouring tokens of one context, the first at position `start`; `pages` hold that context."""

    pages: array[int]
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def bytes_per_page(config: ModelConfig, page_size: int, dtype: torch.dtype) -> int:
    """Of all layers, keys and values."""
    return 2 * config.num_layers * config.num_kv_heads * page_size * config.head_dim * dtype.itemsize


def size_cache(
    model: Transformer, page_size: int, memory: int | float | None, window: int | None, max_batch: int
) -> tuple[int, int]:
    """(pages, window) of an engine with these options. Raises InvalidRequest for a window that does not fit."""
    config, weight = model.config, model.model.embed_tokens.weight
    page_bytes = bytes_per_page(config, page_size, model.compute_dtype)
    longest = window or config.max_positions
    pages = num_pages(memory, page_bytes, page_size, (max_batch + 1) * (longest + page_size), weight.device)
    if window is not None and pages * page_size < window:
        raise InvalidRequest(
            f"the cache holds {pages * page_size} tokens, fewer than the window of {window}: give memory of at "
            f"least {-(-window // page_size) * page_bytes} bytes, or a smaller window"
        )
    return pages, min(longest, pages * page_size)


class Pages(Protocol):
    """Where keys and values lie, as far as the scheduler is concerned."""

    def copy(self, source: int, target: int) -> None:
        """Page `target` becomes what page `source` is."""


class PagedKV:
    """Per layer one (num_pages, K, page_size, d) tensor of keys and one of values. `product_dtype`: what they are
    multiplied in.

    Memory that was never written reads as zeros: a masked position weighs 0, and 0 times garbage must not be NaN.
    """

    def __init__(
        self, config: ModelConfig, num_pages: int, page_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.page_size = page_size
        self.device = device
        self.product_dtype = product_dtype(dtype, device.type)
        shape = (num_pages, config.num_kv_heads, page_size, config.head_dim)
        self.keys = [_zeros(shape, dtype, device) for _ in range(config.num_layers)]
        self.values = [_zeros(shape, dtype, device) for _ in range(config.num_layers)]

    def copy(self, source: int, target: int) -> None:
        for tensor in (*self.keys, *self.values):
            tensor[target] = tensor[source]

    def attend(self, chunks: Sequence[Chunk], *, exact: bool = False) -> Attend:
        """The `attend` seam of the model for one step whose rows are the tokens of `chunks`, one after the other.

        exact: a row's result depends on its own context alone, bit for bit.
        """
        return _StepAttention(self, chunks, exact)


@dataclass(slots=True)
class _Part:
    """Runs of rows and the keys that they attend to. `rows`: (B x n), which rows of the step, a run padded by repeating
    a row; None: rows 0 … B x n - 1. kept: which places of (B x n) are not padding; None: all. gather: their pages, rows
    of a (num_pages x K, page_size x d) view of the cache, in the order (B, K, P). gathered: room for these pages, keys
    and values, used by one layer after the other. mask: (B, 1, 1, n, T)."""

    shape: tuple[int, int, int]
    rows: Tensor | None
    kept: Tensor | None
    gather: Tensor
    gathered: tuple[Tensor, Tensor]
    mask: Tensor | None


class _StepAttention:
    """Writes a step's keys and values into their pages and lets each row see its own context up to itself."""

    def __init__(self, cache: PagedKV, chunks: Sequence[Chunk], exact: bool) -> None:
        self._cache = cache
        self._num_rows = sum(chunk.length for chunk in chunks)
        self._written = self._places(chunks)
        spans = [] if exact else shared_spans([chunk.pages for chunk in chunks], cache.page_size, chunks)
        skipped = [0] * len(chunks)
        begins = np.cumsum([0, *(chunk.length for chunk in chunks)])
        self._parts: list[_Part] = []
        for members, first, last in spans:
            self._parts.append(self._shared_part(members, first, last, chunks, begins))
            for member in members:
                skipped[member] = last
        for runs in _grouped(chunks, skipped, cache.page_size, exact):
            self._parts.append(self._part(runs, skipped, chunks, begins))
        self._merges = bool(spans)

    def _places(self, chunks: Sequence[Chunk]) -> Tensor:
        """Row of a (num_pages x K x page_size, d) view of the cache for each (row of the step, head)."""
        _, K, size, _ = self._cache.keys[0].shape
        places: list[np.ndarray] = []
        for chunk in chunks:
            positions = np.arange(chunk.start, chunk.end)
            places.append(_view(chunk.pages)[positions // size] * (K * size) + positions % size)
        rows_N = np.concatenate(places)
        return self._on_device((rows_N[:, None] + np.arange(K) * size).ravel())

    def _shared_part(
        self, members: Sequence[int], first: int, last: int, chunks: Sequence[Chunk], begins: np.ndarray
    ) -> _Part:
        """Every row of the members against the pages first … last - 1 that all of them hold."""
        rows = np.concatenate([np.arange(begins[member], begins[member + 1]) for member in members])
        pages = _view(chunks[members[0]].pages)[first:last]
        whole = len(rows) == self._num_rows and bool((rows == np.arange(len(rows))).all())
        gather, gathered = self._gather(pages[None])
        return _Part(
            shape=(1, len(rows), (last - first) * self._cache.page_size),
            rows=None if whole else self._on_device(rows),
            kept=None,
            gather=gather,
            gathered=gathered,
            mask=None,
        )

    def _part(
        self, runs: list[tuple[int, int, int]], skipped: list[int], chunks: Sequence[Chunk], begins: np.ndarray
    ) -> _Part:
        """Runs (chunk, offset in it, length) against their contexts, without the leading pages skipped."""
        size = self._cache.page_size
        ends = np.array([chunks[at].start + offset + length for at, offset, length in runs])
        skips = np.array([skipped[at] for at, _, _ in runs])
        lengths = np.array([length for _, _, length in runs])
        needed = -(-ends // size) - skips
        B, n, P = len(runs), int(lengths.max()), int(needed.max())
        pages_BP = np.zeros((B, P), np.int64)
        for row, (at, _, _) in enumerate(runs):
            # Where a context is shorter, page 0 stands in: it is finite, and masked.
            pages_BP[row, : needed[row]] = _view(chunks[at].pages)[skips[row] : skips[row] + needed[row]]
        within = np.minimum(np.arange(n), lengths[:, None] - 1)
        firsts = np.array([begins[at] + offset for at, offset, _ in runs])
        rows = (firsts[:, None] + within).ravel()
        in_order = len(rows) == self._num_rows and bool((rows == np.arange(len(rows))).all())
        kept = (np.arange(n) < lengths[:, None]).ravel()
        seen_B_n = (ends - lengths - skips * size)[:, None] + within + 1
        mask = None
        if n > 1 or bool((seen_B_n != P * size).any()):
            hidden = torch.from_numpy(np.arange(P * size) >= seen_B_n[:, :, None])
            mask = torch.zeros(hidden.shape, dtype=self._cache.product_dtype).masked_fill(hidden, float("-inf"))
            mask = mask[:, None, None].to(self._cache.device)
        gather, gathered = self._gather(pages_BP)
        return _Part(
            shape=(B, n, P * size),
            rows=None if in_order else self._on_device(rows),
            kept=None if kept.all() else self._on_device(kept.nonzero()[0]),
            gather=gather,
            gathered=gathered,
            mask=mask,
        )

    def _gather(self, pages_BP: np.ndarray) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`gather` and `gathered` of a part."""
        keys = self._cache.keys[0]
        K = keys.shape[1]
        rows = self._on_device((pages_BP[:, None, :] * K + np.arange(K)[:, None]).ravel())
        shape = (len(rows), keys.shape[2] * keys.shape[3])
        return rows, (keys.new_empty(shape), keys.new_empty(shape))

    def _on_device(self, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(indices, np.int64)).to(self._cache.device)

    def __call__(self, layer: int, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor) -> Tensor:
        d = q_BHTd.shape[-1]
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        for cached, new in ((keys, k_BKTd), (values, v_BKTd)):  # the rows of a step are one batch of N tokens
            rows_Nd = new[0].transpose(0, 1).reshape(-1, d)
            cached.view(-1, d).index_copy_(0, self._written, rows_Nd.to(cached.dtype))
        q_NHd = q_BHTd[0].transpose(0, 1)
        if len(self._parts) == 1 and self._parts[0].rows is None:
            o_NHd = self._run(self._parts[0], q_NHd, keys, values, merging=False)[0]
        else:
            o_NHd = self._merged(q_NHd, keys, values)
        return o_NHd.transpose(0, 1)[None]

    def _merged(self, q_NHd: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Parts that see different rows are put side by side; parts that see the same rows are weighted by the mass of
        their scores (FlashAttention, arXiv 2205.14135, section 3.1)."""
        o_NHd = torch.zeros(q_NHd.shape, dtype=torch.float32 if self._merges else q_NHd.dtype, device=q_NHd.device)
        mass_NH = q_NHd.new_full(q_NHd.shape[:2], float("-inf"), dtype=torch.float32) if self._merges else None
        for part in self._parts:
            new_NHd, new_NH = self._run(part, q_NHd, keys, values, merging=self._merges)
            rows = part.rows if part.kept is None or part.rows is None else part.rows[part.kept]
            if mass_NH is None or new_NH is None:
                o_NHd[rows] = new_NHd
                continue
            at = slice(None) if rows is None else rows
            total_NH = torch.logaddexp(mass_NH[at], new_NH)
            old_share, new_share = (mass_NH[at] - total_NH).exp_(), (new_NH - total_NH).exp_()
            o_NHd[at] = o_NHd[at] * old_share[..., None] + new_NHd * new_share[..., None]
            mass_NH[at] = total_NH
        return o_NHd.to(q_NHd.dtype)

    def _run(
        self, part: _Part, q_NHd: Tensor, keys: Tensor, values: Tensor, *, merging: bool
    ) -> tuple[Tensor, Tensor | None]:
        """One part: outputs and, where parts are merged, the log of each row's summed exponentials."""
        (B, n, T), (K, d), G = part.shape, (keys.shape[1], keys.shape[3]), q_NHd.shape[1] // keys.shape[1]
        q = q_NHd if part.rows is None else q_NHd[part.rows]
        q_BKQd = q.reshape(B, n, K, G, d).permute(0, 2, 3, 1, 4).reshape(B, K, G * n, d)
        for source, target in zip((keys, values), part.gathered, strict=True):
            # Copied as 8-byte words: torch copies these faster than the same bytes as narrower numbers.
            words = source.view(-1, target.shape[1]).view(torch.int64)
            torch.index_select(words, 0, part.gather, out=target.view(torch.int64))
        k_BKTd, v_BKTd = (target.view(B, K, T, d).to(self._cache.product_dtype) for target in part.gathered)
        # Query heads that share a key/value head stand where more queries would: nothing is repeated.
        mask = None if part.mask is None else part.mask.expand(-1, -1, G, -1, -1).reshape(B, 1, G * n, T)
        o_BKQd, mass_BKQ = attention(q_BKQd, k_BKTd, v_BKTd, mask, merging)
        o = o_BKQd.view(B, K, G, n, d).permute(0, 3, 1, 2, 4).reshape(B * n, K * G, d)
        mass = None if mass_BKQ is None else mass_BKQ.view(B, K, G, n).permute(0, 3, 1, 2).reshape(B * n, K * G)
        if part.kept is not None:
            o, mass = o[part.kept], None if mass is None else mass[part.kept]
        return o, mass


def attention(
    q_BKQd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, mask: Tensor | None, with_mass: bool
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k / sqrt(d) + mask) v and, on request, the log of the softmax's denominators, in float32."""
    if not with_mass:
        return F.scaled_dot_product_attention(q_BKQd, k_BKTd, v_BKTd, attn_mask=mask), None
    if q_BKQd.device.type == "cpu":
        mask = None if mask is None else mask.expand(-1, q_BKQd.shape[1], -1, -1)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q_BKQd, k_BKTd, v_BKTd, attn_mask=mask)
    scores = (q_BKQd @ k_BKTd.transpose(2, 3)).float().mul_(q_BKQd.shape[-1] ** -0.5)
    if mask is not None:
        scores += mask
    weights = scores.softmax(-1).to(v_BKTd.dtype)
    return weights @ v_BKTd, scores.logsumexp(-1)


def shared_spans(
    tables: Sequence[array[int]], page_size: int, chunks: Sequence[Chunk]
) -> list[tuple[list[int], int, int]]:
    """(members, first page, last page + 1) of leading pages that several contexts hold: read once for all of them.

    Only pages that lie before all of a member's rows count. Groups that share more among themselves are nested: their
    span begins where that of the group around them ends.
    """
    first_pages: dict[int, list[int]] = {}
    for at, table in enumerate(tables):
        if chunks[at].start >= page_size:
            first_pages.setdefault(table[0], []).append(at)
    spans: list[tuple[list[int], int, int]] = []
    for members in first_pages.values():
        _nest(members, 0, tables, [chunk.start // page_size for chunk in chunks], spans)
    return spans


def _nest(
    members: list[int],
    first: int,
    tables: Sequence[array[int]],
    whole: Sequence[int],
    spans: list[tuple[list[int], int, int]],
) -> None:
    if len(members) < 2:
        return
    limit = min(whole[at] for at in members)
    stacked = np.stack([_view(tables[at])[first:limit] for at in members])
    same = (stacked == stacked[0]).all(0)
    last = first + (int(same.argmin()) if not same.all() else limit - first)
    if (last - first) * (len(members) - 1) >= _WORTH_SHARING:
        spans.append((members, first, last))
        first = last
    inner: dict[int, list[int]] = {}
    for at in members:
        if whole[at] > last:
            inner.setdefault(tables[at][last], []).append(at)
    for group in inner.values():
        if len(group) < len(members):
            _nest(group, first, tables, whole, spans)


def _grouped(
    chunks: Sequence[Chunk], skipped: Sequence[int], page_size: int, exact: bool
) -> list[list[tuple[int, int, int]]]:
    """Runs (chunk, offset, length) that are computed together, so that little is padded."""
    if exact:
        return [[(at, offset, 1)] for at, chunk in enumerate(chunks) for offset in range(chunk.length)]
    groups: list[list[tuple[int, int, int]]] = []
    short: list[tuple[int, int, int]] = []
    for at, chunk in enumerate(chunks):
        if chunk.length <= _SHORT:
            short.append((at, 0, chunk.length))
            continue
        rows = max(_SHORT, _SCORES // max(1, chunk.end - skipped[at] * page_size))
        groups += [[(at, begin, min(rows, chunk.length - begin))] for begin in range(0, chunk.length, rows)]

    def size(run: tuple[int, int, int]) -> int:
        return chunks[run[0]].end - skipped[run[0]] * page_size

    # Single rows and longer runs each by themselves, and contexts of which none is padded to more than its double.
    for alike in ([run for run in short if run[2] == 1], [run for run in short if run[2] > 1]):
        alike.sort(key=size)
        while alike:
            longest = size(alike[-1])
            cut = next(i for i, run in enumerate(alike) if 2 * size(run) + _SLACK >= longest)
            groups.append(sorted(alike[cut:]))
            del alike[cut:]
    return groups


def _view(pages: array[int]) -> np.ndarray:
    return np.frombuffer(pages, np.int32)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # Straight from the operating system: zeroed, and not taken before it is written.
    raw = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(raw, dtype=dtype).view(shape)
