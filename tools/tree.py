"""Write the annotated tree of docs/architecture.md: every module with the first sentence of its docstring.

python tools/tree.py            write it
python tools/tree.py --check    exit 1 where it is not up to date
"""

from __future__ import annotations

import ast
import re
import sys
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree -->\n", "<!-- end of tree -->\n"
FOLDERS = ("src/ponder", "examples", "recipes", "tests", "bench", "tools")
WIDTH = 28


def summary(file: Path) -> str:
    """The first sentence of a module's docstring; of a TOML file or a shell script, of its first comment."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    else:
        comments = takewhile(lambda line: line.startswith("#"), text.removeprefix("#!/usr/bin/env bash\n").splitlines())
        first = "\n".join(line.removeprefix("#").strip() for line in comments)
    return re.split(r"(?<=[.])\s", first.replace("\n", " "), maxsplit=1)[0].removesuffix(".")


def lines(path: Path, depth: int = 0) -> list[str]:
    """A folder and what is in it, two spaces of indent a level. Of tests, folders and their number of files."""
    indent = "  " * depth
    if path.is_file():
        return [f"{indent}{path.name:<{WIDTH - 1 - len(indent)}} {summary(path)}".rstrip()]
    init = path / "__init__.py"
    name = path.relative_to(ROOT).as_posix() if depth == 0 else path.name
    tests = len(list(path.glob("test_*.py")))
    said = summary(init) if init.exists() else f"{tests} files" if tests else ""
    own = [f"{indent}{name + '/':<{WIDTH - 1 - len(indent)}} {said}".rstrip()]
    for child in sorted(path.iterdir(), key=lambda child: (child.is_file(), child.name)):
        if (child.is_dir() and not child.name.startswith((".", "__")) and any(child.rglob("*.*"))) or is_shown(child):
            own += lines(child, depth + 1)
    return own


def is_shown(file: Path) -> bool:
    hidden = file.name.startswith((".", "__init__", "test_")) or file.relative_to(ROOT).parts[0] == "tests"
    return not hidden and file.suffix in {".py", ".toml", ".sh"}


def tree() -> str:
    shown = [line for folder in FOLDERS for line in lines(ROOT / folder)]
    return "```\n" + "\n".join(shown) + "\n```\n"


def page() -> str:
    """The page as it should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + tree() + END + after


def main() -> int:
    if "--check" in sys.argv[1:]:
        if page() == PAGE.read_text(encoding="utf-8"):
            return 0
        print("docs/architecture.md is out of date: run `make tree`")
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
