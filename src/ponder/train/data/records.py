"""Files that others wrote: text in UTF-8, and records as JSON lines, as a JSON list or in Parquet.

Every error names the file and the line (in Parquet: the row). Nothing is repaired, and nothing is left out.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ponder.types import DataError, MissingExtra

RECORD_SUFFIXES = frozenset({".jsonl", ".ndjson", ".parquet"})  # what is taken from a folder; .json may be settings
LONGEST_LINE = 1 << 28  # bytes; a file without line breaks must not fill the memory

_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_PARQUET = b"PAR1"
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # maybe half: two of them can spell one character
_SPACE = re.compile(r"[ \t\n\r]*")

Record = dict[str, Any]


def decode_text(data: bytes, where: str) -> str:
    """UTF-8 with or without a byte order mark as text. Raises DataError for anything else, with its line."""
    _refuse_encoding(data, where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{where}:{line}: not UTF-8 {_bytes(error)}: convert the file to UTF-8") from error


def read_text(path: Path) -> str:
    """The text of a file, its line breaks as `\\n`. Raises as `decode_text`, and DataError for an unreadable file."""
    with _opened(path) as stream:
        return decode_text(stream.read(), str(path)).replace("\r\n", "\n").replace("\r", "\n")


def read_records(path: Path) -> Iterator[tuple[str, Record]]:
    """(place, record) for every record of a file, or of the files of a folder and the folders in it.

    A file whose name ends in .json may hold one list of records; other text holds one record on each line, and empty
    lines. A Parquet file is known by its first bytes. Raises DataError for anything but JSON objects, MissingExtra
    for a Parquet file without pyarrow.
    """
    if path.is_dir():
        for file in files_of(path, RECORD_SUFFIXES):
            yield from read_records(file)
        return
    with _opened(path) as stream:
        head = stream.read(64)
        packing = next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")
        if packing:
            raise DataError(f"{path}: compressed files are not read ({packing}): unpack it first")
        if not head.startswith(_PARQUET):
            _refuse_encoding(head, str(path))
            stream.seek(0)
            one_list = path.suffix == ".json" and head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
            yield from _from_list(path, stream) if one_list else _from_lines(path, stream)
            return
    yield from _from_parquet(path)


def files_of(path: Path, suffixes: Collection[str]) -> list[Path]:
    """A file, or those of a folder and the folders in it that end in one of `suffixes`. Raises DataError for none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in suffixes)
    if not files:
        raise DataError(f"{path}: no file there ends in one of {', '.join(sorted(suffixes))}")
    return files


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error


def _refuse_encoding(head: bytes, where: str) -> None:
    for mark, name in _OTHER_ENCODINGS.items():
        if head.startswith(mark):
            raise DataError(f"{where}: not UTF-8 (its byte order mark is that of {name}): save the file as UTF-8")


def _bytes(error: UnicodeDecodeError) -> str:
    return f"({error.reason}, 0x{error.object[error.start]:02x}, at byte {error.start})"


def _from_lines(path: Path, stream: BinaryIO) -> Iterator[tuple[str, Record]]:
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > LONGEST_LINE:
            raise DataError(f"{where}: a line is too long (over {LONGEST_LINE >> 20} MiB): write one record on a line")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        try:
            text = line.decode()
            record = json.loads(text)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 {_bytes(error)}: convert the file to UTF-8") from error
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
            raise DataError(f"{where}: not valid JSON: {error}") from error
        yield where, _checked(record, text, where)


def _from_list(path: Path, stream: BinaryIO) -> Iterator[tuple[str, Record]]:
    text = decode_text(stream.read(), str(path))
    decoder = json.JSONDecoder()
    at, line, counted = _skip_space(text, 0) + 1, 1, 0
    first = True
    while True:
        at = _skip_space(text, at)
        line, counted = line + text.count("\n", counted, at), at
        where = f"{path}:{line}"
        if text[at : at + 1] == "]":
            if _skip_space(text, at + 1) < len(text):
                raise DataError(f"{where}: not valid JSON: text after the end of the list")
            return
        if not first:
            if text[at : at + 1] != ",":
                raise DataError(f"{where}: not valid JSON: a comma or ] must follow a record")
            at = _skip_space(text, at + 1)
            line, counted = line + text.count("\n", counted, at), at
            where = f"{path}:{line}"
        try:
            record, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON: {error}") from error
        yield where, _checked(record, text[at:end], where)
        at, first = end, False


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _from_parquet(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{path}: row {row}", _without_nulls(record)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: row {row + 1}: cannot be read as Parquet ({error}): write the file again") from error


def _without_nulls(value: Any) -> Any:
    """A column of objects has a null for every key that another row has."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _checked(record: object, text: str, where: str) -> Record:
    if not isinstance(record, dict):
        raise DataError(f"{where}: must be a JSON object (got {type(record).__name__})")
    if _HALF_CHARACTER.search(text):
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise DataError(
                f"{where}: holds half of a surrogate pair ({half}): write the whole character, or leave it out"
            ) from error
    return record
