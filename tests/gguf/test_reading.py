"""What a file declares: read as it was written, and refused where it cannot be true."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import gguf_bytes, random_blocks, save, scalar

from ponder.gguf.layout import FieldType, TensorType
from ponder.gguf.reading import GgufFile, is_gguf
from ponder.types import CheckpointError

F32, Q4_0 = TensorType.F32, TensorType.Q4_0
FIELDS: dict[str, Any] = {
    "general.architecture": "llama",
    "a.flag": True,
    "a.count": 7,
    "a.eps": 1e-5,
    "a.texts": ["x", "", "é"],
    "a.numbers": [3, -4],
    "a.byte": scalar(FieldType.UINT8, "B", 200),
    "a.long": scalar(FieldType.INT64, "q", -(2**40)),
    "a.double": scalar(FieldType.FLOAT64, "d", 0.1),
}
TENSORS = {
    "one": ((3, 32), F32, random_blocks((3, 32), F32, 1)),
    "two": ((2, 64), Q4_0, random_blocks((2, 64), Q4_0, 2)),
}


def opened(path: Path, data: bytes) -> GgufFile:
    return GgufFile(save(path / "m.gguf", data))


@pytest.mark.parametrize("version", [2, 3])
def test_fields_and_tensors_read_back(version: int, tmp_path: Path) -> None:
    file = opened(tmp_path, gguf_bytes(FIELDS, TENSORS, version=version))
    assert file.text("general.architecture") == "llama"
    assert file.boolean("a.flag", False) is True
    assert (file.integer("a.count"), file.integer("a.byte"), file.integer("a.long")) == (7, 200, -(2**40))
    assert (file.number("a.eps"), file.number("a.double"), file.number("a.count")) == (1e-5, 0.1, 7.0)
    assert file.texts("a.texts") == ["x", "", "é"]
    assert file.integers("a.numbers") == [3, -4]
    assert (file.text("none", "?"), file.integer("none", 5)) == ("?", 5)
    assert (file.texts("none"), file.integers("none")) == ([], [])
    assert file.numbers("none") is None
    assert {name: each.shape for name, each in file.tensors.items()} == {"one": (3, 32), "two": (2, 64)}
    for name, (_, type, blocks) in TENSORS.items():
        assert file.tensors[name].type is type
        assert file.read(file.tensors[name]).tobytes() == blocks


def test_another_alignment(tmp_path: Path) -> None:
    file = opened(tmp_path, gguf_bytes(FIELDS | {"general.alignment": 128}, TENSORS, alignment=128))
    assert file.read(file.tensors["two"]).tobytes() == TENSORS["two"][2]


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda file: file.text("none"), "'none': missing"),
        (lambda file: file.text("a.count"), "'a.count': must be a text"),
        (lambda file: file.integer("a.flag"), "'a.flag': must be an integer"),
        (lambda file: file.integer("a.eps"), "'a.eps': must be an integer"),
        (lambda file: file.number("a.texts"), "'a.texts': must be a number"),
        (lambda file: file.boolean("a.count", True), "'a.count': must be true or false"),
        (lambda file: file.texts("a.numbers"), "'a.numbers': must be a list of texts"),
        (lambda file: file.integers("a.texts"), "'a.texts': must be a list of integers"),
        (lambda file: file.numbers("a.texts"), "'a.texts': must be a list of numbers"),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(ask: Any, why: str, tmp_path: Path) -> None:
    file = opened(tmp_path, gguf_bytes(FIELDS, {}))
    with pytest.raises(CheckpointError, match=why):
        ask(file)


def with_number(data: bytes, at: int, form: str, value: int) -> bytes:
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


WHOLE = gguf_bytes(FIELDS, TENSORS)
ONE, TWO = WHOLE.index(b"one"), WHOLE.index(b"two")  # after the name: axes, lengths, type, offset
TEXTS = WHOLE.index(b"a.texts") + 7  # after the key: type, inner type, length


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"GG", "reaches beyond the file's 2 bytes"),
        (b"PK\3\4" + bytes(40), "is not a GGUF file"),
        (with_number(WHOLE, 4, "<I", 1), "version 1 of the format; supported: 2 and 3"),
        (with_number(WHOLE, 4, ">I", 3), "big-endian"),
        (with_number(WHOLE, 8, "<Q", 10**9), "declares 1000000000 tensors"),
        (with_number(WHOLE, 16, "<Q", 2**63), "declares 9223372036854775808 fields"),
        (with_number(WHOLE, 24, "<Q", 2**40), "a key at byte 32 has 1099511627776 bytes"),
        (with_number(WHOLE, TEXTS, "<I", 77), "'a.texts': type 77 is not one of the format's"),
        (with_number(WHOLE, TEXTS + 4, "<I", 9), "'a.texts': lists of lists are not supported"),
        (with_number(WHOLE, TEXTS + 8, "<Q", 10**9), "'a.texts': 1000000000 texts; a list may hold"),
        (with_number(WHOLE, TEXTS + 8, "<Q", 10**6), "declares 1000000 texts of key 'a.texts'"),
        (with_number(WHOLE, TEXTS + 16, "<Q", 2**64 - 1), "key 'a.texts' reaches beyond"),
        (with_number(WHOLE, ONE + 3, "<I", 0), "tensor 'one': has 0 axes"),
        (with_number(WHOLE, ONE + 3, "<I", 1 << 31), "tensor 'one': has 2147483648 axes"),
        (with_number(WHOLE, ONE + 7, "<Q", 0), "tensor 'one': shape \\(3, 0\\) is not made of blocks"),
        (with_number(WHOLE, ONE + 7, "<Q", 2**63), "tensor 'one': shape .* is larger than the file"),
        (with_number(WHOLE, ONE + 23, "<I", 20), "tensor 'one': type IQ4_NL is not supported; supported: F32"),
        (with_number(WHOLE, ONE + 23, "<I", 999), "tensor 'one': type number 999 is not supported"),
        (with_number(WHOLE, TWO + 7, "<Q", 48), "tensor 'two': shape \\(2, 48\\) is not made of blocks of Q4_0"),
        (with_number(WHOLE, TWO + 27, "<Q", 0), "overlaps tensor"),
        (with_number(WHOLE, TWO + 27, "<Q", 352), "tensor 'two': overlaps tensor 'one'"),
        (with_number(WHOLE, TWO + 27, "<Q", 385), "tensor 'two': offset 385 is not a multiple of 32"),
        (with_number(WHOLE, TWO + 27, "<Q", 2**62), "tensor 'two': ends at byte .* the file is cut off"),
        (WHOLE[:-40], "tensor 'two': ends at byte .* the file is cut off"),
        (WHOLE.replace(b"two", b"one"), "tensor 'one': declared twice"),
        (WHOLE.replace(b"a.byte", b"a.long"), "'a.long': declared twice"),
        (WHOLE.replace(b"a.flag", b"a.fl\xff\xff"), "a key at byte .* is not UTF-8"),
        (gguf_bytes(FIELDS | {"general.alignment": 24}, TENSORS), "'general.alignment': 24 is not a power of two"),
        (gguf_bytes(FIELDS | {"general.alignment": 0}, TENSORS), "'general.alignment': 0 is not a power of two"),
    ],
)
@pytest.mark.fault
def test_what_cannot_be_true_is_refused_by_name(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=why):
        opened(tmp_path, data)


@pytest.mark.fault
def test_every_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    for size in range(len(WHOLE) - 31):  # the last bytes are padding
        with pytest.raises(CheckpointError):
            opened(tmp_path, WHOLE[:size])


@pytest.mark.fault
def test_a_text_that_is_not_utf8_is_refused_when_it_is_read(tmp_path: Path) -> None:
    file = opened(tmp_path, WHOLE.replace("é".encode(), b"\xff\xff"))
    assert file.text("general.architecture") == "llama"
    with pytest.raises(CheckpointError, match=r"'a\.texts': not UTF-8"):
        file.texts("a.texts")


@pytest.mark.fault
def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    file = opened(tmp_path, WHOLE)
    save(file.path, WHOLE[:-64])
    with pytest.raises(CheckpointError, match="tensor 'two': the file ended within it"):
        file.read(file.tensors["two"])


def test_a_gguf_file_is_known_by_its_name_or_its_first_bytes(tmp_path: Path) -> None:
    assert is_gguf(save(tmp_path / "blob", WHOLE))
    assert is_gguf(save(tmp_path / "empty.gguf", b""))
    assert not is_gguf(save(tmp_path / "tokenizer.json", b"{}"))
    assert not is_gguf(tmp_path)
    assert not is_gguf(tmp_path / "none.gguf")


def test_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    scores = struct.pack("<IIQ3f", FieldType.ARRAY, FieldType.FLOAT32, 3, 0.5, -1.0, 2.0)
    flags = struct.pack("<IIQ2?", FieldType.ARRAY, FieldType.BOOL, 2, True, False)
    file = opened(tmp_path, gguf_bytes({"scores": scores, "flags": flags}, {}))
    numbers = file.numbers("scores")
    assert numbers is not None
    assert numbers.tolist() == [0.5, -1.0, 2.0]
    assert np.array_equal(file.numbers("flags"), [True, False])
