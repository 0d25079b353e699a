"""Words that make a reader stumble, in the pages and the package; `make lint` runs it. CONTRIBUTING.md, *Words*.

python tools/words.py             the pages, the package, these tools, and the prose of tests and benchmarks
python tools/words.py src tests   these files and folders: Markdown, and the comments and texts of Python
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/*.md", "examples", "recipes/*/README.md", "src", "tools", "tests", "bench")
PROSE = {"tests", "bench"}  # where names and data may be anything: only comments and docstrings are read

INSTEAD = {
    r"behind(?! the API)": "after, following, past (time and order); in, under, of (place)",
    r"so[- ]many(?:eth)?|so-manieth": "that many, n, the given number",
    r"(?<!there )(?-i:is|are) (?-i:none|no)(?= (?!longer\b)[a-z])": "is not a, is not",
    r"whoever|nobody|somebody|everybody|anybody": "the request, the caller, the thread, the page",
    r"gives? way|gave way": "what happens: is preempted, is dropped, waits",
    r"reckon\w*": "compute, count",
    r"hangs? on|hung on": "depend on",
    r"anew": "again",
    r"(?:for|from) (?:lack|want) of": "without, because there is no",
    r"of (?:one's|its|their) own": "own, separate",
    r"heed\w*": "accept, keep to",
    r"twice over|be it": "plain words",
}
WORDS = re.compile(r"\b(?:" + "|".join(f"({pattern})" for pattern in INSTEAD) + r")\b", re.IGNORECASE)
LISTED = re.compile(r"^## Words$.*?(?=^## )", re.MULTILINE | re.DOTALL)  # where CONTRIBUTING.md names the words
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def files(place: Path) -> Iterator[Path]:
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.suffix in {".md", ".py"} and file != Path(__file__).resolve():
            yield file


def prose(text: str) -> str:
    """The comments and the strings in triple quotes of Python, each on its line."""
    lines = [""] * (text.count("\n") + 1)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
            for line, part in enumerate(token.string.splitlines(), token.start[0] - 1):
                lines[line] += part
    return "\n".join(lines)


def found(file: Path) -> Iterator[str]:
    """file:line: the word, and what to write instead. Code on a page is left out."""
    name = file.relative_to(ROOT).as_posix()
    text = file.read_text(encoding="utf-8")
    for left_out in (CODE, LISTED) if file.suffix == ".md" else ():
        text = left_out.sub(lambda part: "\n" * part[0].count("\n"), text)
    if name.split("/")[0] in PROSE:
        text = prose(text)
    for number, line in enumerate(text.splitlines(), 1):
        for match in WORDS.finditer(line):
            instead = list(INSTEAD.values())[match.lastindex - 1] if match.lastindex else ""
            yield f"{name}:{number}: {match[0]!r}: write {instead}"


def main() -> int:
    places = [Path(each).resolve() for each in sys.argv[1:]] or [each for glob in PAGES for each in ROOT.glob(glob)]
    lines = [line for place in places for file in files(place) for line in found(file)]
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
