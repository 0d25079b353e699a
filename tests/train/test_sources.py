"""Every kind of text source, and errors that name the file and the line."""

from pathlib import Path

import pytest

from ponder.train.data.sources import documents
from ponder.train.recipe.sections import TextRecipe
from ponder.types import DataError


def read(source: str | Path, **settings: int) -> list[str]:
    return list(documents(TextRecipe(source=str(source), **settings)))


def test_a_file_a_folder_and_jsonl(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "deep" / "a.md").write_text("third")
    (tmp_path / "a.jsonl").write_text('{"text": "first", "other": 1}\n\n{"text": "and more"}\n')
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert read(tmp_path / "b.txt") == ["second"]
    assert read(tmp_path) == ["first", "and more", "second", "third"]


def test_characters_limits_a_source_exactly(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "abcde"}\n{"text": "fghij"}\n{"text": "klm"}\n')
    assert read(tmp_path / "a.jsonl", characters=7) == ["abcde", "fg"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", r"a\.jsonl:2: not valid JSON"),
        ('["text"]', r"a\.jsonl:2: must be a JSON object"),
        ('{"txt": "x"}', r"""a\.jsonl:2: must have a key "text" with a string \(got \['txt'\]\)"""),
        ('{"text": 3}', r"a\.jsonl:2: must have a key"),
    ],
)
def test_a_malformed_line_is_reported_by_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=says):
        read(tmp_path / "a.jsonl")


def test_text_that_is_not_utf8_is_reported_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"one\ntwo\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt:3: not UTF-8"):
        read(tmp_path / "latin.txt")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"latin\.jsonl:2: not UTF-8"):
        read(tmp_path / "latin.jsonl")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere.txt", "no such file or folder"),
        ("package:no_such_package/x.txt", "is not installed here"),
        ("package:json/*.txt", "has no such file"),
        ("docstrings:no_such_package", "is not installed here"),
        ("hub:someone/something", "unknown kind 'hub'"),
    ],
)
def test_a_source_that_is_not_there_says_so(source: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(source)


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match="there is no text"):
        read(tmp_path / "empty.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no file there ends in"):
        read(tmp_path / "folder")


def test_installed_packages_carry_text() -> None:
    assert all(text.strip() for text in read("package:json/decoder.py"))
    docstrings = read("docstrings:json")
    assert any("JSON (JavaScript Object Notation)" in text for text in docstrings)
    python = read("docstrings:python", characters=20_000)
    assert sum(map(len, python)) == 20_000


def test_a_task_generates_text_the_same_each_time() -> None:
    drawn = read("task:products", samples=5)
    assert len(drawn) == 5
    assert drawn == read("task:products", samples=5)
    assert all("\n" in text for text in drawn)
