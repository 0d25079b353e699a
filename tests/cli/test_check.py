"""`ponder check`: contradictions in the file's own words, verdicts, exit codes, and what is not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ponder.cli.main import main
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import Say


def checked(capsys: pytest.CaptureFixture[str], file: Path, text: str, *more: str) -> tuple[int, str, str]:
    file.write_text(text, encoding="utf-8")
    code = main(["check", str(file), "--seconds", "20", *more])
    return code, *capsys.readouterr()


def test_a_contradiction_is_shown_in_its_own_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "# seating\n1. Ann is older than Bo.\n2. Bo is older than Cy.\n3. Cy is tall.\n4. Cy is older than Ann.\n"
    code, out, err = checked(capsys, tmp_path / "a.txt", text)
    assert (code, err) == (1, "")
    assert out == (
        "Contradiction: these 3 statements cannot all be true; without any one of them the others can.\n"
        "  line 2: Ann is older than Bo.\n  line 3: Bo is older than Cy.\n  line 5: Cy is older than Ann.\n"
    )


def test_conclusions_are_judged_and_all_proved_is_exit_code_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "All cats are grey. Tom is a cat.\nTherefore Tom is grey."
    code, out, _ = checked(capsys, tmp_path / "a.txt", text, "--formulas")
    assert code == 0
    assert "Proved:\n  line 2: Therefore Tom is grey." in out
    assert "read as all x1: thing. cat(x1) -> grey(x1)" in out
    assert checked(capsys, tmp_path / "a.txt", text + "\nTherefore Tom is old.")[0] == 1


def test_json_has_the_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "p & q ::: Both.\n~p ::: Not the first."
    code, out, _ = checked(capsys, tmp_path / "a.txt", text, "--json")
    found = json.loads(out)
    assert code == 1
    assert found["consistent"] is False
    assert [text[each["begin"] : each["end"]] for each in found["conflicts"][0]] == ["Both.", "Not the first."]


def test_what_cannot_be_read_is_misuse_and_nothing_is_proved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = checked(capsys, tmp_path / "a.txt", "Ann is tall.\nAnn is perhaps not tall.")
    assert (code, out) == (2, "")
    assert "a.txt:2:8: Ann is perhaps not tall.: 'perhaps' does not fit here" in err
    code, out, err = checked(capsys, tmp_path / "a.txt", "\n# nothing\n")
    assert (code, out) == (2, "")
    assert "holds no statements" in err
    assert main(["check", str(tmp_path / "no.txt")]) == 2


def test_a_thought_is_judged_against_its_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "answer.txt").write_text("Tom is grey.")
    thought = "All cats are grey. Tom is a cat.\nHm, let me see.\n"
    code, out, _ = checked(capsys, tmp_path / "a.txt", thought, "--answer", str(tmp_path / "answer.txt"))
    assert code == 0
    assert "Answer:\n  entailed      Tom is grey.\nNot read, so not judged:\n  Hm, let me see." in out
    code, out, _ = checked(
        capsys, tmp_path / "a.txt", thought + "So Tom is not grey.", "--answer", str(tmp_path / "answer.txt")
    )
    assert code == 1
    assert "contradictory So Tom is not grey. (against: All cats are grey. / Tom is a cat.)" in out


def test_free_text_takes_a_named_translator_and_its_reading_is_shown_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StubEndpoint([Say("1. grey(Tom)")]) as endpoint:
        url = f"{endpoint.url}#stub"
        code, out, _ = checked(
            capsys, tmp_path / "a.txt", "Tom is not grey.\nTom can only be called grey.", "--translator", url
        )
    assert code == 1
    assert out.startswith(f"Translated by {url}, and not checked")
    assert "Tom can only be called grey.\n      read as grey(Tom)" in out
    assert "line 2: Tom can only be called grey." in out
