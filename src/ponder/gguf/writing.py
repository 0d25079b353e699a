"""Writing GGUF, version 3: typed fields, then tensors, little endian (ggml's docs/gguf.md).

Only what an export needs: the package `gguf` does the same, and brings an HTTP client along.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ponder.gguf.layout import ALIGNMENT, BLOCK, MAGIC, VERSION, FieldType, TensorType
from ponder.types import InvalidRequest

Value = bool | int | float | str | Sequence[int] | Sequence[str]

_CHUNK = 1 << 18  # values converted at a time, so that a large tensor never stands in memory twice


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor to write. `read` is called once, when its turn comes, and gives `shape` in any floating dtype."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    read: Callable[[], Tensor]


def write_gguf(file: BinaryIO, fields: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> None:
    """Write a whole file, one tensor in memory at a time.

    A field's type follows its value: bool, int (unsigned), float (single precision), str, or a list of int (signed) or
    of str; an empty list is one of strings. Raises InvalidRequest for a value that a tensor's type cannot hold.
    """
    file.write(struct.pack("<4sIQQ", MAGIC, VERSION, len(tensors), len(fields)))
    for key, value in fields.items():
        file.write(_string(key) + _field(value))
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]  # the format counts axes from the innermost one
        file.write(_string(tensor.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
        file.write(struct.pack("<IQ", tensor.type.number, offset))
        offset += tensor.type.num_bytes(tensor.shape)
        offset += -offset % ALIGNMENT
    for tensor in tensors:
        file.write(bytes(-file.tell() % ALIGNMENT))
        _write_values(file, tensor)
    file.write(bytes(-file.tell() % ALIGNMENT))


def _write_values(file: BinaryIO, tensor: GgufTensor) -> None:
    for chunk in _chunks(tensor.read()):
        file.write(encode(chunk, tensor).tobytes())


def encode(values: Tensor, tensor: GgufTensor) -> np.ndarray:
    """Some rows of `tensor` in its type."""
    match tensor.type:
        case TensorType.F32:
            return values.float().numpy().astype("<f4", copy=False)
        case TensorType.BF16:
            return values.to(torch.bfloat16).contiguous().view(torch.int16).numpy().astype("<i2", copy=False)
        case TensorType.F16:
            half = values.to(torch.float16)
            if not half.isfinite().all() and values.isfinite().all():
                raise InvalidRequest(f"{tensor.name} holds values beyond float16's range: export bf16 or f32")
            return half.numpy().astype("<f2", copy=False)
        case TensorType.Q8_0:
            return quantize_q8_0(values.float())
        case _:
            raise InvalidRequest(
                f"{tensor.name}: the type {tensor.type.name} is read only: export bf16, f16, f32, q8_0"
            )


def quantize_q8_0(values: Tensor) -> np.ndarray:
    """Each 32 values as a float16 scale and 32 signed bytes, the largest magnitude at 127: (blocks, 34) bytes."""
    blocks = values.reshape(-1, BLOCK)
    scales = blocks.abs().amax(1, keepdim=True) / 127
    scaled = blocks * torch.where(scales == 0, 0, 1 / scales)
    quantized = (scaled + torch.copysign(torch.tensor(0.5), scaled)).trunc().to(torch.int8)  # halves away from zero
    halves = scales.half().numpy().astype("<f2", copy=False).view(np.uint8)
    return np.concatenate([halves, quantized.numpy().view(np.uint8)], axis=1)


def _chunks(values: Tensor) -> Iterator[Tensor]:
    """Whole rows, about `_CHUNK` values at a time."""
    rows = values if values.dim() == 1 else values.flatten(0, -2)
    yield from rows.split(_CHUNK if values.dim() == 1 else max(1, _CHUNK // rows.shape[1]))


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _field(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", FieldType.BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", FieldType.UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FieldType.FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", FieldType.STRING) + _string(value)
    numbers = [item for item in value if isinstance(item, int)]
    if numbers:
        head = struct.pack("<IIQ", FieldType.ARRAY, FieldType.INT32, len(numbers))
        return head + struct.pack(f"<{len(numbers)}i", *numbers)
    return struct.pack("<IIQ", FieldType.ARRAY, FieldType.STRING, len(value)) + b"".join(_string(str(v)) for v in value)
