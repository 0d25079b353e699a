"""Whatever the lengths: every document packed stands whole in one row; all else is padding without weight."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.train.data.packing import Example, pack

pytestmark = pytest.mark.property

SEQUENCE = 12


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
