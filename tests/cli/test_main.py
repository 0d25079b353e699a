"""The frame of the command line: verbs, exit codes, one-line errors."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ponder.cli import main as cli
from ponder.types import CheckpointError, InvalidRequest, MissingExtra, PonderError, RecipeError, SamplerError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Makes `ponder try` run a function of the test."""

    def install(run: Callable[[argparse.Namespace], int]) -> None:
        module = SimpleNamespace(NAME="try", HELP="a verb of the test", add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(cli, "VERBS", (module,))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it: put it back afterwards

    return install


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("the question is empty"), 2),
        (RecipeError("unknown key modle.size"), 2),
        (CheckpointError("model.safetensors: cut short"), 1),
        (SamplerError("the endpoint gave up"), 1),
        (MissingExtra("matplotlib", "plot"), 1),
        (FileNotFoundError(2, "No such file or directory", "x.jsonl"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(verb, capsys, error: BaseException, code: int) -> None:  # type: ignore[no-untyped-def]
    verb(raising(error))
    assert cli.main(["try"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ponder try: ")
    assert err.count("\n") == 1


def test_an_error_of_several_lines_becomes_one(verb, capsys) -> None:  # type: ignore[no-untyped-def]
    verb(raising(PonderError("first\n   second")))
    cli.main(["try"])
    assert capsys.readouterr().err == "ponder try: first second\n"


def test_debug_shows_the_traceback(verb, capsys) -> None:  # type: ignore[no-untyped-def]
    verb(raising(InvalidRequest("bad")))
    assert cli.main(["try", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_tells_how_to_go_on(verb, capsys) -> None:  # type: ignore[no-untyped-def]
    verb(raising(KeyboardInterrupt("saved in runs/x; continue with --resume")))
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == "ponder try: interrupted: saved in runs/x; continue with --resume\n"


def test_a_bug_is_not_swallowed_but_shortened_to_one_line(verb, capsys) -> None:  # type: ignore[no-untyped-def]
    verb(raising(RuntimeError("size\nmismatch")))
    with pytest.raises(RuntimeError):
        cli.main(["try"])
    cli.one_line_hook(RuntimeError, RuntimeError("size\nmismatch"), None)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "RuntimeError: size mismatch" in err
    assert "--debug" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["ask"],
        ["ask", "2+2", "--hurry"],
        ["ask", "2+2", "--effort", "enormous"],
        ["ask", "2+2", "--seed", "x"],
    ],
    ids=" ".join,
)
def test_misuse_of_the_flags_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ponder")
    assert err.count("\n") == 1


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for module in cli.VERBS:
        with pytest.raises(SystemExit) as end:
            cli.main([module.NAME, "--help"])
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: ponder {module.NAME}")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"ponder {version('ponder')}\n"


def test_output_into_a_closed_pipe_is_not_a_crash() -> None:
    shell = f"{sys.executable} -m ponder.cli --help | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


SMALL = "from ponder.cli.main import main; raise SystemExit(main())"


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
    ],
)
def test_a_locale_without_utf8_ends_nothing(tmp_path: Path, locale: dict[str, str]) -> None:
    """The problems of products hold Cyrillic letters, and the file's name more."""
    (tmp_path / "日本.py").write_text("from ponder.tasks.families import FAMILIES\nOwn = FAMILIES['products']\n")
    command = [sys.executable, "-c", SMALL, "tasks", "日本.py:Own"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_")} | locale
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


def test_what_an_encoding_cannot_express_is_said_with_what_to_do(verb, capsys) -> None:  # type: ignore[no-untyped-def]
    verb(raising(UnicodeEncodeError("latin-1", "日本.toml", 0, 2, "ordinal not in range")))
    assert cli.main(["try"]) == 2
    assert "'日本.toml' cannot be expressed in latin-1" in capsys.readouterr().err


def test_output_that_a_full_disk_does_not_take_is_said_in_words() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", SMALL, "tasks"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "ponder tasks: the output or a temporary file: cannot be written, because the disk is"
    )
    assert done.stderr.count("\n") == 1
