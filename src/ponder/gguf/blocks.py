"""The values of a tensor's blocks, as float32: the arithmetic of ggml's ggml-quants.c, over all blocks at once.

Axes: N blocks, each of 32 or 256 values. Scales are d, offsets m. The results equal, bit for bit, those of
`gguf.quants.dequantize`, which is the reference that tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ponder.gguf.layout import TensorType

_TOGETHER = 4096  # blocks at a time, so that what lies between stays in the cache
_HALVES = np.array([0, 4], np.uint8)[:, None]


def dequantize(blocks: np.ndarray, type: TensorType) -> np.ndarray:
    """Bytes as they lie in a file → float32 values, both flat."""
    if type is TensorType.F32:
        return blocks.view("<f4").astype(np.float32, copy=False)
    if type is TensorType.F16:
        return blocks.view("<f2").astype(np.float32)
    if type is TensorType.BF16:
        return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)
    blocks_NB = blocks.reshape(-1, type.num_bytes((type.block,)))
    values = np.empty((len(blocks_NB), type.block), np.float32)
    for begin in range(0, len(blocks_NB), _TOGETHER):
        some = blocks_NB[begin : begin + _TOGETHER]
        values[begin : begin + _TOGETHER] = _DEQUANTIZE[type](some).reshape(len(some), -1)
    return values.reshape(-1)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    d, quants = np.split(blocks, [2], axis=1)
    return _half(d) * quants.view(np.int8).astype(np.float32)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    d, quants = np.split(blocks, [2], axis=1)
    return _half(d) * (_nibbles(quants).astype(np.int8) - np.int8(8)).astype(np.float32)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    d, m, quants = np.split(blocks, [2, 4], axis=1)
    return _half(d) * _nibbles(quants).astype(np.float32) + _half(m)


def _q5_0(blocks: np.ndarray) -> np.ndarray:
    d, high, quants = np.split(blocks, [2, 6], axis=1)
    values = (_nibbles(quants) | _bits(high) << np.uint8(4)).astype(np.int8) - np.int8(16)
    return _half(d) * values.astype(np.float32)


def _q5_1(blocks: np.ndarray) -> np.ndarray:
    d, m, high, quants = np.split(blocks, [2, 4, 8], axis=1)
    values = _nibbles(quants) | _bits(high) << np.uint8(4)
    return _half(d) * values.astype(np.float32) + _half(m)


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    d, m, scales, quants = np.split(blocks, [2, 4, 16], axis=1)
    d_N8, m_N8 = _scales_and_offsets(scales)
    values = (quants.reshape(-1, 4, 1, 32) >> _HALVES & np.uint8(15)).reshape(-1, 8, 32)
    return (_half(d) * d_N8)[:, :, None] * values.astype(np.float32) - (_half(m) * m_N8)[:, :, None]


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    d, m, scales, high, quants = np.split(blocks, [2, 4, 16, 48], axis=1)
    d_N8, m_N8 = _scales_and_offsets(scales)
    low = (quants.reshape(-1, 4, 1, 32) >> _HALVES & np.uint8(15)).reshape(-1, 8, 32)
    top = high[:, None] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    values = low | top << np.uint8(4)
    return (_half(d) * d_N8)[:, :, None] * values.astype(np.float32) - (_half(m) * m_N8)[:, :, None]


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    low, high, scales, d = np.split(blocks, [128, 192, 208], axis=1)
    low = (low.reshape(-1, 2, 1, 64) >> _HALVES & np.uint8(15)).reshape(-1, 16, 16)
    pairs = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (high.reshape(-1, 2, 1, 32) >> pairs & np.uint8(3)).reshape(-1, 16, 16)
    values = (low | high << np.uint8(4)).astype(np.int8) - np.int8(32)
    return (_half(d) * scales.view(np.int8).astype(np.float32))[:, :, None] * values.astype(np.float32)


_DEQUANTIZE: dict[TensorType, Callable[[np.ndarray], np.ndarray]] = {
    TensorType.Q8_0: _q8_0,
    TensorType.Q4_0: _q4_0,
    TensorType.Q4_1: _q4_1,
    TensorType.Q5_0: _q5_0,
    TensorType.Q5_1: _q5_1,
    TensorType.Q4_K: _q4_k,
    TensorType.Q5_K: _q5_k,
    TensorType.Q6_K: _q6_k,
}


def _half(scale: np.ndarray) -> np.ndarray:
    """(N, 2) bytes → (N, 1) float32."""
    return scale.copy().view("<f2").astype(np.float32)


def _nibbles(quants: np.ndarray) -> np.ndarray:
    """(N, 16) bytes → (N, 32): the lower halves, then the upper ones."""
    return (quants[:, None] >> _HALVES & np.uint8(15)).reshape(len(quants), -1)


def _bits(high: np.ndarray) -> np.ndarray:
    """(N, 4) bytes → (N, 32) of 0 or 1, lowest bit first."""
    return np.unpackbits(high.copy(), axis=1, bitorder="little")


def _scales_and_offsets(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eight scales and eight offsets of 6 bits in 12 bytes: (N, 8) float32 each."""
    d, m, both = np.split(packed, [4, 8], axis=1)
    scales = np.concatenate([d & 63, both & 15 | d >> 2 & 48], axis=1)
    offsets = np.concatenate([m & 63, both >> 4 | m >> 2 & 48], axis=1)
    return scales.astype(np.float32), offsets.astype(np.float32)
