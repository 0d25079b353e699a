"""Rows are filled without waste, and a document never sees, nor predicts into, another."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.train.data.packing import Batch, Example, pack

PAD = 999
SEQUENCE = 12


def example(*ids: int, learned_from: int = 1) -> Example:
    return Example(ids=ids, learned=[i >= learned_from for i in range(len(ids))])


def test_a_document_is_laid_out_as_inputs_targets_weights_and_positions() -> None:
    batch, left_out = pack([example(1, 2, 3, 4, learned_from=2)], rows=1, sequence=5, pad=PAD, rng=Random(0))
    assert left_out == 0
    assert batch.ids_BT.tolist() == [[1, 2, 3, PAD, PAD]]
    assert batch.targets_BT.tolist() == [[2, 3, 4, PAD, PAD]]
    assert batch.weights_BT.tolist() == [[0, 1, 1, 0, 0]]
    assert batch.documents_BT.tolist() == [[0, 0, 0, 1, 1]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 1]]


def test_documents_that_fill_a_row_exactly_leave_no_padding() -> None:
    batch, left_out = pack([example(*range(5)), example(*range(10, 15))], rows=1, sequence=8, pad=PAD, rng=Random(0))
    assert left_out == 0
    assert PAD not in batch.ids_BT
    assert batch.documents_BT.tolist() == [[0] * 4 + [1] * 4]


def test_what_does_not_fit_any_more_is_counted() -> None:
    batch, left_out = pack([example(1, 2, 3)] * 5, rows=2, sequence=4, pad=PAD, rng=Random(0))
    assert left_out == 1
    assert (batch.ids_BT != PAD).all()


def test_realistic_lengths_fill_rows_and_no_length_is_thinned_out() -> None:
    rng = Random(0)
    examples = []
    while sum(len(e.ids) - 1 for e in examples) < 1.01 * 128 * 512:
        examples.append(example(*range(rng.randint(20, 430))))
    batch, left_out = pack(examples, rows=128, sequence=512, pad=PAD, rng=rng)
    kept = examples[: len(examples) - left_out]
    assert (batch.targets_BT != PAD).sum() == sum(len(e.ids) - 1 for e in kept)
    assert (batch.targets_BT != PAD).mean() > 0.98


def test_rows_is_a_view_of_some_rows() -> None:
    batch = Batch.empty(4, 3, PAD)
    batch.ids_BT[2] = 7
    assert np.shares_memory(batch.rows(2, 3).ids_BT, batch.ids_BT)
    assert batch.rows(2, 3).ids_BT.tolist() == [[7, 7, 7]]


@pytest.mark.property
@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(2, SEQUENCE + 1), max_size=30),
    rows=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_packing_keeps_documents_whole_and_apart(lengths: list[int], rows: int, seed: int) -> None:
    rng = Random(seed)
    examples = [
        Example(ids=[n * 100 + i for i in range(length)], learned=[rng.random() < 0.5 for _ in range(length)])
        for n, length in enumerate(lengths, start=1)
    ]
    batch, left_out = pack(examples, rows=rows, sequence=SEQUENCE, pad=0, rng=rng)
    found = 0
    for row in range(rows):
        for number in np.unique(batch.documents_BT[row]):
            (places,) = np.nonzero(batch.documents_BT[row] == number)
            assert places.tolist() == list(range(places[0], places[-1] + 1))
            assert batch.positions_BT[row, places].tolist() == list(range(len(places)))
            if batch.ids_BT[row, places[0]] == 0:
                assert not batch.weights_BT[row, places].any()
                continue
            source = examples[batch.ids_BT[row, places[0]] // 100 - 1]
            assert batch.ids_BT[row, places].tolist() == source.ids[:-1]
            assert batch.targets_BT[row, places].tolist() == source.ids[1:]
            assert batch.weights_BT[row, places].tolist() == [float(x) for x in source.learned[1:]]
            found += 1
    assert found == len(examples) - left_out
