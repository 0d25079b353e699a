"""Reading GGUF, versions 2 and 3. Every count, length and offset is checked against the file before it is used.

Nothing here trusts the file: a declared size allocates nothing until the file is known to hold that many bytes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ponder.gguf.layout import ALIGNMENT, MAGIC, TYPES, UNSUPPORTED_TYPES, VERSION, FieldType, TensorType
from ponder.types import CheckpointError

_VERSIONS = (2, VERSION)
_LONGEST_NAME = 256  # bytes of a tensor's name; ggml allows 64
_LONGEST_KEY = 1 << 16  # bytes, by the format
_MOST_TEXTS = 1 << 21  # in one array: eight times the largest vocabulary published
_MOST_ALIGNMENT = 1 << 20
_LEAST_TENSOR, _LEAST_FIELD = 8 + 1 + 4 + 8 + 4 + 8, 8 + 1 + 4 + 1  # bytes of their declarations
_SCALARS = {
    FieldType.UINT8: "<u1",
    FieldType.INT8: "<i1",
    FieldType.UINT16: "<u2",
    FieldType.INT16: "<i2",
    FieldType.UINT32: "<u4",
    FieldType.INT32: "<i4",
    FieldType.FLOAT32: "<f4",
    FieldType.BOOL: "|u1",
    FieldType.UINT64: "<u8",
    FieldType.INT64: "<i8",
    FieldType.FLOAT64: "<f8",
}
_INTEGERS = frozenset("iu")

Field = bool | int | float | bytes | list[bytes] | np.ndarray  # texts are decoded when they are asked for


@dataclass(frozen=True, slots=True)
class StoredBlocks:
    """Where a tensor lies in its file. shape: outermost axis first. offset: bytes from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def num_bytes(self) -> int:
        return self.type.num_bytes(self.shape)


class GgufFile:
    """What a GGUF file declares. Values of tensors are read when they are asked for.

    Raises CheckpointError naming the file, and what in it is wrong or not supported.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.fields: dict[str, Field] = {}
        self.tensors: dict[str, StoredBlocks] = {}
        self._map: mmap.mmap | None = None
        try:
            with self.path.open("rb") as file:
                if self.path.stat().st_size == 0:
                    raise self.fail("is empty")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    _Header(self, data).read()
        except (OSError, ValueError) as error:  # ValueError: what cannot be mapped
            raise self.fail(f"cannot be read ({error})") from error

    def fail(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {why}")

    def read(self, stored: StoredBlocks) -> np.ndarray:
        """The bytes of a tensor. Raises CheckpointError when the file has become shorter."""
        blocks = np.fromfile(self.path, np.uint8, stored.num_bytes, offset=stored.offset)
        if blocks.nbytes != stored.num_bytes:
            raise self.fail(f"tensor {stored.name!r}: the file ended within it")
        return blocks

    def mapped(self, stored: StoredBlocks) -> np.ndarray:
        """The bytes of a tensor where the file is mapped: they take memory only while they are used, and are those of
        the file as it is then. Raises CheckpointError when the file has become shorter."""
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise self.fail(f"cannot be mapped ({error})") from error
        if stored.offset + stored.num_bytes > len(self._map):
            raise self.fail(f"tensor {stored.name!r}: the file ended within it")
        return np.frombuffer(self._map, np.uint8, stored.num_bytes, stored.offset)

    def text(self, key: str, default: str | None = None) -> str:
        """The text under `key`. Without a default the key must be there."""
        value = self._value(key, default)
        if isinstance(value, str):
            return value
        if not isinstance(value, bytes):
            self._refuse(key, value, "a text")
        return self._decoded(key, value)

    def texts(self, key: str) -> list[str]:
        """The list of texts under `key`; empty where the file has none."""
        value = self.fields.get(key, [])
        if not isinstance(value, list):
            self._refuse(key, value, "a list of texts")
        return [self._decoded(key, each) for each in value]

    def integer(self, key: str, default: int | None = None) -> int:
        """The integer under `key`. Without a default the key must be there."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(key, value, "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The number under `key`. Without a default the key must be there."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(key, value, "a number")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        """What is true or false under `key`."""
        value = self.fields.get(key, default)
        if not isinstance(value, bool):
            self._refuse(key, value, "true or false")
        return value

    def integers(self, key: str) -> list[int]:
        """The list of integers under `key`; empty where the file has none. An empty list may be one of texts."""
        value = self.fields.get(key, [])
        if isinstance(value, np.ndarray) and value.dtype.kind in _INTEGERS:
            return [int(each) for each in value]
        if value != []:
            self._refuse(key, value, "a list of integers")
        return []

    def numbers(self, key: str) -> np.ndarray | None:
        """The list of numbers under `key`; None where the file has none."""
        value = self.fields.get(key)
        if value is not None and not isinstance(value, np.ndarray):
            self._refuse(key, value, "a list of numbers")
        return value

    def _value(self, key: str, default: Field | str | None) -> Field | str:
        value = self.fields.get(key, default)
        if value is None:
            raise self.fail(f"key '{key}': missing")
        return value

    def _decoded(self, key: str, value: bytes) -> str:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"key '{key}': not UTF-8 ({error})") from error

    def _refuse(self, key: str, value: object, kind: str) -> NoReturn:
        raise self.fail(f"key '{key}': must be {kind} (got {str(value)[:80]})")


def is_gguf(path: str | Path) -> bool:
    """Whether this is a file that says of itself, by its name or its first bytes, that it is GGUF."""
    path = Path(path)
    if not path.is_file():
        return False
    if path.suffix == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def declared_ends(file: GgufFile) -> tuple[int, ...]:
    """The ids that a file declares to end a generation. Raises CheckpointError."""
    named = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    ids = [file.integer(key) for key in named if key in file.fields]
    return tuple(dict.fromkeys((*ids, *file.integers("tokenizer.ggml.eos_token_ids"))))


class _Header:
    """The declarations at the beginning of a file, in the order in which they stand."""

    def __init__(self, file: GgufFile, data: mmap.mmap) -> None:
        self.file, self.data = file, data
        self.at, self.size = 0, len(data)

    def read(self) -> None:
        self._magic()
        num_tensors, num_fields = self._number("<Q", "the counts"), self._number("<Q", "the counts")
        self._holds(num_tensors, _LEAST_TENSOR, "tensors")
        self._holds(num_fields, _LEAST_FIELD, "fields")
        for _ in range(num_fields):
            key = self._text("a key", _LONGEST_KEY)
            if key in self.file.fields:
                raise self.file.fail(f"key '{key}': declared twice")
            self.file.fields[key] = self._field(key)
        declared = [self._tensor() for _ in range(num_tensors)]
        self._place(declared)

    def _magic(self) -> None:
        if self._bytes(4, "the magic number") != MAGIC:
            raise self.file.fail(f"is not a GGUF file (it begins with {self.data[:4]!r})")
        version = self._number("<I", "the version")
        if version not in _VERSIONS:
            if struct.unpack("<I", struct.pack(">I", version))[0] in _VERSIONS:
                raise self.file.fail("is a big-endian GGUF file; supported: little-endian ones")
            raise self.file.fail(f"has version {version} of the format; supported: 2 and 3")

    def _field(self, key: str) -> Field:
        kind = self._kind(key)
        if kind is FieldType.ARRAY:
            return self._array(key)
        if kind is FieldType.STRING:
            return self._text_bytes(f"key '{key}'")
        type = np.dtype(_SCALARS[kind])
        (value,) = np.frombuffer(self._bytes(type.itemsize, f"key '{key}'"), type)
        if kind is FieldType.FLOAT32:
            return float(str(value))  # the shortest decimal: 1e-05, not 9.999999747378752e-06
        return bool(value) if kind is FieldType.BOOL else value.item()

    def _array(self, key: str) -> list[bytes] | np.ndarray:
        kind, length = self._kind(key), self._number("<Q", f"key '{key}'")
        if kind is FieldType.ARRAY:
            raise self.file.fail(f"key '{key}': lists of lists are not supported")
        if kind is FieldType.STRING:
            if length > _MOST_TEXTS:
                raise self.file.fail(f"key '{key}': {length} texts; a list may hold {_MOST_TEXTS}")
            self._holds(length, 8, f"texts of key '{key}'")
            return list(self._texts(length, key))
        type = np.dtype(_SCALARS[kind])
        self._holds(length, type.itemsize, f"values of key '{key}'")
        values = np.frombuffer(self._bytes(length * type.itemsize, f"key '{key}'"), type)
        return values.astype(bool) if kind is FieldType.BOOL else values

    def _texts(self, length: int, key: str) -> Iterator[bytes]:
        data, at, size = self.data, self.at, self.size  # hundreds of thousands: no calls within
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(length):
            begin = at + 8
            if begin > size:
                raise self._ended(f"key '{key}'")
            at = begin + unpack(data, at)[0]
            if at > size:
                raise self._ended(f"key '{key}'")
            yield data[begin:at]
        self.at = at

    def _kind(self, key: str) -> FieldType:
        number = self._number("<I", f"key '{key}'")
        try:
            return FieldType(number)
        except ValueError as error:
            raise self.file.fail(f"key '{key}': type {number} is not one of the format's") from error

    def _tensor(self) -> StoredBlocks:
        name = self._text("a tensor's name", _LONGEST_NAME)
        num_axes = self._number("<I", f"tensor {name!r}")
        if not 1 <= num_axes <= 4:
            raise self.file.fail(f"tensor {name!r}: has {num_axes} axes; the format has 1 to 4")
        shape = tuple(self._number("<Q", f"tensor {name!r}") for _ in range(num_axes))[::-1]
        type, offset = self._tensor_type(name), self._number("<Q", f"tensor {name!r}")
        if min(shape) < 1 or shape[-1] % type.block:
            raise self.file.fail(f"tensor {name!r}: shape {shape} is not made of blocks of {type.name}")
        if type.num_bytes(shape) > self.size:
            raise self.file.fail(f"tensor {name!r}: shape {shape} in {type.name} is larger than the file")
        return StoredBlocks(name, shape, type, offset)

    def _tensor_type(self, name: str) -> TensorType:
        number = self._number("<I", f"tensor {name!r}")
        if number not in TYPES:
            known = ", ".join(type.name for type in TensorType)
            called = UNSUPPORTED_TYPES.get(number, f"number {number}")
            raise self.file.fail(f"tensor {name!r}: type {called} is not supported; supported: {known}")
        return TYPES[number]

    def _place(self, declared: Sequence[StoredBlocks]) -> None:
        """Offsets counted from the beginning of the file; no tensor reaches beyond it or into another."""
        alignment = self.file.integer("general.alignment", ALIGNMENT)
        if not 1 <= alignment <= _MOST_ALIGNMENT or alignment & (alignment - 1):
            raise self.file.fail(f"key 'general.alignment': {alignment} is not a power of two up to {_MOST_ALIGNMENT}")
        begin = self.at + -self.at % alignment
        end, before = begin, "the declarations"
        for each in sorted(declared, key=lambda each: each.offset):
            offset = begin + each.offset
            if each.offset % alignment:
                raise self.file.fail(f"tensor {each.name!r}: offset {each.offset} is not a multiple of {alignment}")
            if offset < end:
                raise self.file.fail(f"tensor {each.name!r}: overlaps {before}")
            end, before = offset + each.num_bytes, f"tensor {each.name!r}"
            if end > self.size:
                raise self.file.fail(f"{before}: ends at byte {end} of a file of {self.size}: the file is cut off")
            if each.name in self.file.tensors:
                raise self.file.fail(f"{before}: declared twice")
            self.file.tensors[each.name] = StoredBlocks(each.name, each.shape, each.type, offset)

    def _holds(self, count: int, least: int, what: str) -> None:
        if count * least > self.size - self.at:
            raise self.file.fail(f"declares {count} {what}, more than its {self.size} bytes can hold")

    def _text(self, what: str, longest: int) -> str:
        value = self._text_bytes(what, longest)
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.file.fail(f"{what} at byte {self.at - len(value)} is not UTF-8 ({error})") from error

    def _text_bytes(self, what: str, longest: int | None = None) -> bytes:
        length = self._number("<Q", what)
        if longest is not None and length > longest:
            raise self.file.fail(f"{what} at byte {self.at} has {length} bytes; supported: up to {longest}")
        return self._bytes(length, what)

    def _number(self, form: str, what: str) -> int:
        (value,) = struct.unpack(form, self._bytes(struct.calcsize(form), what))
        return value

    def _bytes(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self._ended(what)
        self.at += count
        return self.data[self.at - count : self.at]

    def _ended(self, what: str) -> CheckpointError:
        return self.file.fail(f"{what} reaches beyond the file's {self.size} bytes: the file is cut off or corrupt")
