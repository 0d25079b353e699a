"""Files of others are read whatever editor or tool wrote them, or refused by file and line."""

import codecs
import json
import sys
from pathlib import Path

import pytest

from ponder.train.data import records
from ponder.train.data.records import read_records
from ponder.train.data.sources import documents
from ponder.train.recipe import TextRecipe
from ponder.types import DataError, MissingExtra

RECORDS = [{"text": "é 😀"}, {"text": "b"}]
LINES = "\n".join(map(json.dumps, RECORDS))


def written(tmp_path: Path, data: str | bytes, name: str = "d.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("breaks", ["\n", "\r\n", "\n\n\r\n"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_json_lines_of_any_editor_are_read_with_their_places(tmp_path: Path, breaks: str, mark: bytes) -> None:
    path = written(tmp_path, mark + LINES.replace("\n", breaks).encode())
    assert list(read_records(path)) == [(f"{path}:1", RECORDS[0]), (f"{path}:{1 + breaks.count(chr(10))}", RECORDS[1])]


def test_characters_that_only_other_programs_break_lines_at_stay_in_their_line(tmp_path: Path) -> None:
    line = {"text": "a\u2028b\u0085c\x0bd"}
    path = written(tmp_path, json.dumps(line, ensure_ascii=False))
    assert [record for _, record in read_records(path)] == [line]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list_is_read_with_the_lines_of_its_records(tmp_path: Path, indent: int | None) -> None:
    path = written(tmp_path, json.dumps(RECORDS, indent=indent) + "\n", "d.json")
    places = [f"{path}:1", f"{path}:1"] if indent is None else [f"{path}:2", f"{path}:5"]
    assert list(read_records(path)) == list(zip(places, RECORDS, strict=True))
    assert list(read_records(written(tmp_path, "[]", "empty.json"))) == []


def test_a_json_file_may_hold_lines(tmp_path: Path) -> None:
    assert [record for _, record in read_records(written(tmp_path, LINES, "d.json"))] == RECORDS


def test_the_record_files_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    written(tmp_path, LINES, "b.jsonl")
    (tmp_path / "a").mkdir()
    written(tmp_path / "a", '{"text": "first"}', "a.jsonl")
    written(tmp_path, "{}", "settings.json")
    assert [record["text"] for _, record in read_records(tmp_path)] == ["first", "é 😀", "b"]
    (tmp_path / "a" / "a.jsonl").unlink()
    with pytest.raises(DataError, match=r"no file there ends in .*\.jsonl"):
        list(read_records(tmp_path / "a"))


GOOD = b'{"text": "a"}\n'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (GOOD + b'{"text": "a \\ud83d"}', r"d\.jsonl:2: holds half of a surrogate pair \(\\ud83d\)"),
        (GOOD + b'{"\\udc00": 1}', r"d\.jsonl:2: holds half of a surrogate pair"),
        (GOOD + b'{"text": "\xed\xa0\xbd"}', r"d\.jsonl:2: not UTF-8"),
        (GOOD + b'{"text": "\xe9"}', r"d\.jsonl:2: not UTF-8 \(.*0xe9.* at byte 10\): convert"),
        (GOOD + b'{"n": ' + b"1" * 5000 + b"}", r"d\.jsonl:2: not valid JSON"),
        (GOOD + b"[" * 100_000, r"d\.jsonl:2: not valid JSON"),
        (GOOD + b"7", r"d\.jsonl:2: must be a JSON object \(got int\)"),
        (GOOD + b"{'text': 'a'}", r"d\.jsonl:2: not valid JSON: .* at column 2"),
        (codecs.BOM_UTF16_LE + LINES.encode("utf-16-le"), r"d\.jsonl: not UTF-8 .*UTF-16.*: save the file as UTF-8"),
        (codecs.BOM_UTF32_BE + LINES.encode("utf-32-be"), r"d\.jsonl: not UTF-8 .*UTF-32"),
        (b"\x1f\x8b\x08\x00rest", r"d\.jsonl: compressed files are not read \(gzip\): unpack it first"),
        (b"PK\x03\x04rest", r"d\.jsonl: compressed files are not read \(zip\)"),
    ],
)
def test_what_is_not_a_record_is_refused_with_its_place(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(read_records(written(tmp_path, data)))


def test_a_pair_of_halves_is_a_character(tmp_path: Path) -> None:
    path = written(tmp_path, r'{"text": "\ud83d\ude00"}')
    assert [record for _, record in read_records(path)] == [{"text": "😀"}]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('[\n{"text": "a"},\n{"text": }\n]', r"d\.json:3: not valid JSON"),
        ('[\n{"text": "a"}\n{"text": "b"}]', r"d\.json:3: not valid JSON: a comma or ]"),
        ('[\n{"text": "a"}] x', r"d\.json:2: not valid JSON: text after"),
        ('[\n{"text": "a"},\n', r"d\.json:3: not valid JSON"),
        ('[\n{"text": "a"},\n"b"]', r"d\.json:3: must be a JSON object \(got str\)"),
        ('[\n\n{"text": "\\ud83d"}]', r"d\.json:3: holds half of a surrogate pair"),
        ('[\n{"n": ' + "1" * 5000 + "}]", r"d\.json:2: not valid JSON"),
    ],
)
def test_a_broken_list_is_refused_with_the_line(tmp_path: Path, data: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(read_records(written(tmp_path, data, "d.json")))


def test_a_line_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST_LINE", 1 << 20)
    path = written(tmp_path, GOOD + b'{"text": "' + b"a" * (1 << 20) + b'"}\n' + GOOD)
    with pytest.raises(DataError, match=r"d\.jsonl:2: a line is too long \(over 1 MiB\)"):
        list(read_records(path))


@pytest.mark.parametrize("name", ["none.jsonl", "no\0name.jsonl"])
def test_a_file_that_is_not_there_is_refused_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_records(tmp_path / name))


def test_parquet_is_read_by_rows_with_its_nulls_left_out(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "name": "c"}]}] * 2
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    assert list(read_records(tmp_path / "d.parquet")) == [
        (f"{tmp_path / 'd.parquet'}: row {row}", rows[0]) for row in (1, 2)
    ]
    data = (tmp_path / "d.parquet").read_bytes()
    with pytest.raises(DataError, match=r"cut\.parquet: row 1: cannot be read as Parquet"):
        list(read_records(written(tmp_path, data[: len(data) // 2], "cut.parquet")))


def test_parquet_without_its_extra_says_which_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ponder\[parquet\]'"):
        list(read_records(written(tmp_path, b"PAR1....PAR1", "d.parquet")))


def test_a_source_of_text_takes_every_kind_of_record_file(tmp_path: Path) -> None:
    written(tmp_path, LINES)
    written(tmp_path, json.dumps(RECORDS), "e.json")
    for path in (tmp_path / "d.jsonl", tmp_path / "e.json"):
        assert list(documents(TextRecipe(source=str(path)))) == ["é 😀", "b"]


def test_text_of_any_editor_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, codecs.BOM_UTF8 + b"eins\r\nzwei\rdrei\n", "a.txt")
    assert list(documents(TextRecipe(source=str(path)))) == ["eins\nzwei\ndrei\n"]
    with pytest.raises(DataError, match=r"b\.txt: not UTF-8 .*UTF-16"):
        list(documents(TextRecipe(source=str(written(tmp_path, "x".encode("utf-16"), "b.txt")))))


def test_a_path_below_a_home_that_nobody_has_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no home folder"):
        list(documents(TextRecipe(source="~no_such_user_here/a.txt")))
