"""Collect the pages of the documentation site in build/pages, for `make docs`.

The site has the repository's own layout, so a link that works in a checkout works on the site. Markdown is taken as it
is, with everything that it links to; the reference gets one page for each folder of the package.
"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
PACKAGE = ROOT / "src" / "ponder"
SOURCES = ("*.md", "docs/*.md", "recipes/*/README.md", "src/ponder/mini/README.md")
LINK = re.compile(r"\]\(([^)\s#]+)")


def linked(page: Path) -> list[Path]:
    """The files of this repository that a page links to; of a folder, its own files."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [(page.parent / link).resolve() for link in LINK.findall(text) if "://" not in link]
    return [file for each in targets for file in ([each] if each.is_file() else each.glob("*")) if file.is_file()]


def folders(page: Path) -> None:
    """A page for each folder that a page links to: a site has no listing of its files."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        folder = page.parent / link
        place = (
            PAGES / folder.resolve().relative_to(ROOT) / "index.md" if "://" not in link and folder.is_dir() else None
        )
        if place is not None and place.parent.is_dir() and not place.exists():
            names = sorted(file.name for file in place.parent.iterdir() if file.is_file())
            place.write_text(
                "\n".join([f"# {place.parent.name}", "", *(f"- [{name}]({name})" for name in names)]) + "\n"
            )


def copy(file: Path) -> None:
    place = PAGES / file.relative_to(ROOT)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)


def documented(module: Path) -> bool:
    """Whether a module has a public class or function with a docstring."""
    return any(
        isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node)
        for node in ast.parse(module.read_text(encoding="utf-8")).body
    )


def reference() -> None:
    """One page for each folder, with a section for each of its modules."""
    listed = ["# Reference", "", "What the docstrings say, one page for each folder of the package.", ""]
    for folder in sorted({file.parent for file in PACKAGE.rglob("*.py")}):
        modules = [file for file in sorted(folder.glob("*.py")) if not file.name.startswith("__") and documented(file)]
        if not modules:
            continue
        name = ".".join(("ponder", *folder.relative_to(PACKAGE).parts))
        init = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        first = init.partition("\n\n")[0].replace("\n", " ")
        sections = [f"::: {name}.{module.stem}\n" for module in modules]
        (PAGES / "reference" / f"{name}.md").write_text("\n".join([f"# {name}", "", first, "", *sections]))
        listed.append(f"- [`{name}`]({name}.md): {first}")
    (PAGES / "reference" / "index.md").write_text("\n".join(listed) + "\n")


def main() -> None:
    shutil.rmtree(PAGES, ignore_errors=True)
    (PAGES / "reference").mkdir(parents=True)
    pages = [page for pattern in SOURCES for page in ROOT.glob(pattern)]
    for page in pages:
        for file in (page, *linked(page)):
            copy(file)
    for page in pages:
        folders(page)
    (PAGES / "README.md").rename(PAGES / "index.md")
    reference()


if __name__ == "__main__":
    main()
