"""Values of quantised blocks: equal to the `gguf` library's, bit for bit, and a few by hand."""

from __future__ import annotations

import numpy as np
import pytest
from gguf_files import random_blocks

from ponder.gguf.blocks import dequantize
from ponder.gguf.layout import TensorType

EVERY_TYPE = pytest.mark.parametrize("type", list(TensorType), ids=lambda type: type.name)


@pytest.mark.parity
@EVERY_TYPE
def test_values_equal_the_gguf_librarys(type: TensorType) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the package gguf (extra dev)")
    blocks = np.frombuffer(random_blocks((64, 1024), type, seed=1), np.uint8)
    theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type.name])
    ours = dequantize(blocks, type)
    assert ours.dtype == np.float32
    assert np.array_equal(ours.view(np.uint32), theirs.reshape(-1).view(np.uint32))
    assert np.unique(ours).size > 1000


@EVERY_TYPE
def test_more_blocks_than_are_computed_at_a_time(type: TensorType) -> None:
    blocks = np.frombuffer(random_blocks((5000, type.block), type, seed=2), np.uint8)
    size = type.num_bytes((type.block,))
    one_by_one = [dequantize(blocks[at : at + size], type) for at in (0, 4095 * size, 4096 * size, 4999 * size)]
    together = dequantize(blocks, type).reshape(5000, -1)[[0, 4095, 4096, 4999]]
    assert np.array_equal(np.stack(one_by_one), together)


def test_blocks_by_hand() -> None:
    """32 values each: a scale of 2 and, where there is one, an offset of -1; quants 0x21 give 1s, then 2s."""
    two, minus_one = np.array([2], "<f2").tobytes(), np.array([-1], "<f2").tobytes()
    quants, high = bytes([0x21]) * 16, bytes([0xFF, 0, 0, 0])
    cases = {
        TensorType.Q4_0: (two + quants, [-14.0] * 16 + [-12.0] * 16),
        TensorType.Q4_1: (two + minus_one + quants, [1.0] * 16 + [3.0] * 16),
        TensorType.Q5_0: (two + high + quants, [2.0] * 8 + [-30.0] * 8 + [-28.0] * 16),
        TensorType.Q5_1: (two + minus_one + high + quants, [33.0] * 8 + [1.0] * 8 + [3.0] * 16),
        TensorType.Q8_0: (two + bytes([0xFF, 3]) * 16, [-2.0, 6.0] * 16),
    }
    for type, (block, expected) in cases.items():
        assert dequantize(np.frombuffer(block, np.uint8), type).tolist() == expected, type
