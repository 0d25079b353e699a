"""What people get wrong in their files is told with its place, not as a bug of Ponder's."""

import sys
from pathlib import Path

import pytest

from ponder.sandbox.objects import described, load_object
from ponder.types import InvalidRequest, MissingExtra


def written(folder: Path, name: str, text: str | bytes) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return f"{folder / name}:thing"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("thing = (\n", r"SyntaxError: .* \(.*own\.py, line 1\)"),
        ("x = 1\n\tthing = 2\n", r"IndentationError: .* \(.*own\.py, line 2\)"),
        ("import no_such_package\n", r"No module named 'no_such_package' \(.*own\.py, line 1\)"),
        ("from math import nothing\n", r"ImportError: .* \(.*own\.py, line 1\)"),
        ("\n\nthing = 1 / 0\n", r"ZeroDivisionError: division by zero \(.*own\.py, line 3\)"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(.*own\.py, line 2\)"),
        ("import json\njson.loads('x')\n", r"JSONDecodeError: .* \(.*own\.py, line 2\)"),
        (b"thing = '\xe9'\n", r"SyntaxError: .*utf-8"),
        (b"thing = 1\x00\n", r"null bytes"),
        ("class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd\n", r"Odd: without a text"),
    ],
)
def test_what_breaks_while_a_file_is_imported_is_told_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"own\.py:thing' cannot be imported \(.*{says}"):
        load_object(written(tmp_path, "own.py", text))


def test_a_missing_extra_stays_one(tmp_path: Path) -> None:
    text = "from ponder.types import MissingExtra\nraise MissingExtra('sympy', 'verify')\n"
    with pytest.raises(MissingExtra):
        load_object(written(tmp_path, "own.py", text))


def test_a_mended_file_is_read_again(tmp_path: Path) -> None:
    spec = written(tmp_path, "own.py", "thing = (\n")
    with pytest.raises(InvalidRequest):
        load_object(spec)
    written(tmp_path, "own.py", "thing = 'mended'\n")
    assert load_object(spec) == "mended"


def test_a_file_finds_what_lies_beside_it_now_and_when_its_functions_run(tmp_path: Path) -> None:
    (tmp_path / "late_helper.py").write_text("value = 'late'\n")
    (tmp_path / "first_helper.py").write_text("value = 'first'\n")
    spec = written(
        tmp_path,
        "own.py",
        "from first_helper import value\ndef thing():\n    import late_helper as late\n    return value, late.value\n",
    )
    assert load_object(spec)() == ("first", "late")  # type: ignore[operator]


def test_two_files_with_helpers_of_one_name_each_find_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shared_helper.py").write_text(f"value = {name!r}\n")
    loaded = [
        load_object(written(tmp_path / name, "own.py", "from shared_helper import value as thing\n")) for name in "ab"
    ]
    assert loaded == ["a", "b"]


def test_the_place_of_an_error_is_in_the_user_s_code_and_not_in_what_that_calls(tmp_path: Path) -> None:
    thing = load_object(written(tmp_path, "own.py", "import json\ndef thing():\n    return json.loads('{')\n"))
    with pytest.raises(ValueError, match="Expecting") as caught:
        thing()  # type: ignore[operator]
    assert str(tmp_path / "own.py") + ", line 3" in described(caught.value)
    assert sys.modules["json"].__file__ not in described(caught.value)
