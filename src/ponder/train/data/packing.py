"""Documents of any length into rows of one length, without padding waste and without a view across boundaries.

Axes: B rows, T positions. A packed document of n tokens takes n - 1 positions: each predicts the next token.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ponder.types import CouncilTokens
from ponder.voices import targets_of, voices_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One document: its ids, and for each whether the model learns to produce it (the first is never produced).

    targets: for each id, the place of the one that is predicted from it; -1: there is none. None: the next one. See
        `council_targets`.
    """

    ids: Sequence[int] | NDArray[np.int32]
    learned: Sequence[bool] | NDArray[np.float32]
    targets: NDArray[np.int32] | None = None

    def predicted(self, values: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
        """What belongs to the id that each position predicts, of values that belong to the ids; 0 where it predicts
        none. The last id is predicted and predicts nothing."""
        values_N = np.asarray(values)
        if self.targets is None:
            return values_N[1:]
        at = self.targets[:-1]
        return np.where(at >= 0, values_N[at], np.zeros((), values_N.dtype))


def council_targets(ids: Sequence[int], tokens: CouncilTokens | None) -> NDArray[np.int32] | None:
    """`Example.targets` of ids in which several voices may speak. None: one does, as everywhere where a format has no
    such tokens."""
    if tokens is None or tokens.address not in ids:
        return None
    voices = voices_of(ids, tokens)
    return np.array(targets_of(voices), np.int32) if any(voice is not None for voice in voices) else None


E = TypeVar("E", bound=Example)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows ready for a training step.

    ids_BT: inputs.
    targets_BT: what each position predicts.
    weights_BT: 1 where the prediction counts, else 0.
    documents_BT: which document of its row a position belongs to, from 0; padding counts as one more document.
    positions_BT: counted from 0 within each document.
    """

    ids_BT: NDArray[np.int32]
    targets_BT: NDArray[np.int32]
    weights_BT: NDArray[np.float32]
    documents_BT: NDArray[np.int32]
    positions_BT: NDArray[np.int32]

    @classmethod
    def empty(cls, batch: int, sequence: int, pad: int) -> Batch:
        shape = (batch, sequence)
        return cls(
            ids_BT=np.full(shape, pad, np.int32),
            targets_BT=np.full(shape, pad, np.int32),
            weights_BT=np.zeros(shape, np.float32),
            documents_BT=np.zeros(shape, np.int32),
            positions_BT=np.zeros(shape, np.int32),
        )

    @property
    def num_positions(self) -> int:
        """Padding included."""
        return self.ids_BT.size

    def rows(self, begin: int, end: int) -> Batch:
        """Rows begin … end - 1, as a view."""
        return Batch(**{field.name: getattr(self, field.name)[begin:end] for field in fields(self)})


def pack(examples: Sequence[Example], *, rows: int, sequence: int, pad: int, rng: Random) -> tuple[Batch, int]:
    """(batch, how many of the last examples found no room). Best fit, longest first; rows end up in random order.

    Where not all fit, the last ones drawn are given up, whatever their length: leaving out what is hardest or easiest
    to place would thin out one length. Every example must have 2 to sequence + 1 tokens (the caller checks, and knows
    what to blame).
    """
    kept = bisect_left(range(1, len(examples) + 1), True, key=lambda n: place(examples[:n], rows, sequence) is None)
    members = place(examples[:kept], rows, sequence)
    assert members is not None, "the longest prefix that fits was looked for"
    rng.shuffle(members)
    batch = Batch.empty(rows, sequence, pad)
    for row, contents in enumerate(members):
        fill(batch, row, contents)
    return batch, len(examples) - kept


def place(examples: Sequence[E], rows: int, sequence: int) -> list[list[E]] | None:
    """The examples of each row, or None when not all of them fit."""
    free = [(sequence, row) for row in range(rows)]
    members: list[list[E]] = [[] for _ in range(rows)]
    for example in sorted(examples, key=lambda e: len(e.ids), reverse=True):
        need = len(example.ids) - 1
        assert 1 <= need <= sequence, f"{len(example.ids)} tokens do not fit a row of {sequence}"
        at = bisect_left(free, (need, -1))
        if at == len(free):
            return None
        room, row = free.pop(at)
        members[row].append(example)
        insort(free, (room - need, row))
    return members


def gather(units: Iterable[Sequence[E]], rows: int, sequence: int) -> Iterator[list[list[E]]]:
    """The examples of each row of micro-batches of that many rows, filled with the units in their order. A unit stays
    together; one that needs more rows gets a separate micro-batch, with as many as it needs."""
    current: list[E] = []
    members: list[list[E]] = []
    for unit in units:
        found = place([*current, *unit], rows, sequence)
        if found is None and current:
            yield members
            current, found = [], place(unit, rows, sequence)
        more = rows
        while found is None:
            more += 1
            found = place(unit, more, sequence)
        current = [*current, *unit]
        members = found
    if current:
        yield members


def fill(batch: Batch, row: int, contents: Sequence[Example]) -> None:
    """Lay `contents` one after the other into one row."""
    begin = 0
    for number, example in enumerate(contents):
        end = begin + len(example.ids) - 1
        batch.ids_BT[row, begin:end] = example.ids[:-1]
        batch.targets_BT[row, begin:end] = example.predicted(example.ids)
        batch.weights_BT[row, begin:end] = example.predicted(example.learned)
        batch.documents_BT[row, begin:end] = number
        batch.positions_BT[row, begin:end] = np.arange(end - begin)
        begin = end
    batch.documents_BT[row, begin:] = len(contents)
    batch.positions_BT[row, begin:] = np.arange(batch.ids_BT.shape[1] - begin)
