"""What the README and the pages show works: their Python runs, their commands parse, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import ponder
from ponder.cli.main import build_parser
from ponder.model.checkpoint import atomic_folder, write_model
from ponder.testing.tiny import ByteTokenizer, tiny_model

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
QUICKSTART = ROOT / "docs" / "quickstart.md"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*/README.md"), *ROOT.glob("src/**/*.md")]
BUNDLED = Path(str(files("ponder") / "mini"))
WITH_MINI = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="this checkout has no bundled model")


def python(page: Path) -> list[str]:
    """The blocks of Python on a page, without those that call a server: tests/smoke/test_serving.py runs these."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "localhost" not in block]


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.findall(r"^(?:echo .* \| )?(ponder .*)$", block, re.MULTILINE)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_readme_is_a_front_page() -> None:
    assert len(README.read_bytes()) <= 6 * 1024


def test_the_python_of_the_readme_runs_on_any_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = ByteTokenizer()
    with atomic_folder(tmp_path / "tiny") as folder:
        write_model(tiny_model(vocab_size=tokenizer.vocab_size), folder)
        tokenizer.save(folder)
    (snippet,) = python(README)
    exec(snippet.replace('"mini"', repr(str(tmp_path / "tiny"))), {})
    assert capsys.readouterr().out


@WITH_MINI
@pytest.mark.parametrize("page", [README, QUICKSTART], ids=lambda page: page.name)
def test_the_bundled_model_answers(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = python(page)
    exec(snippet, {})
    assert "34195353" in capsys.readouterr().out.splitlines()[0].replace(",", "")
    assert 4821 * 7093 == 34195353


@WITH_MINI
def test_the_python_about_thinking_runs() -> None:
    with ponder.load("mini") as model:
        for snippet in python(ROOT / "docs" / "thinking.md"):
            exec(snippet, {"ponder": ponder, "model": model})


@pytest.mark.parametrize(
    "command", sorted({command for page in PAGES if page.name != "serving.md" for command in commands(page)})
)
def test_the_commands_parse(command: str) -> None:
    program, *arguments = shlex.split(command, comments=True)
    assert build_parser().parse_args(arguments).verb == arguments[0]
    assert program == "ponder"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_the_picture_shows_the_measured_numbers() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "picture.py", "--check"], check=True)
