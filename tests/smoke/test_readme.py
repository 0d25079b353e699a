"""What the README shows is what works: its Python runs, its commands parse, the bundled model answers as it says."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path

import pytest

from ponder.cli.main import build_parser
from ponder.model.checkpoint import atomic_folder, write_model
from ponder.testing.tiny import ByteTokenizer, tiny_model

pytestmark = pytest.mark.smoke

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPET = README.split("<!-- snippet -->\n```python\n", 1)[1].split("```", 1)[0]
COMMANDS = re.findall(r"^(?:echo .* \| )?(ponder .*)$", README, re.MULTILINE)
BUNDLED = Path(str(files("ponder") / "mini"))


def test_the_snippet_runs_on_any_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = ByteTokenizer()
    with atomic_folder(tmp_path / "tiny") as folder:
        write_model(tiny_model(vocab_size=tokenizer.vocab_size), folder)
        tokenizer.save(folder)
    exec(SNIPPET.replace('"mini"', repr(str(tmp_path / "tiny"))), {})
    assert capsys.readouterr().out


@pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="this checkout carries no bundled model")
def test_the_snippet_tells_the_product(capsys: pytest.CaptureFixture[str]) -> None:
    exec(SNIPPET, {})
    assert "34195353" in capsys.readouterr().out.splitlines()[0].replace(",", "")
    assert 4821 * 7093 == 34195353


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_parse(command: str) -> None:
    program, *arguments = shlex.split(command, comments=True)
    assert build_parser().parse_args(arguments).verb == arguments[0]
    assert program == "ponder"
