"""Collect the pages of the documentation site in build/pages, for `make docs`; with --check, only check its sidebar.

The site has the repository's own layout, so a link that works in a checkout works on the site. Markdown is taken as it
is, with everything that it links to; the reference gets one page for each folder of the package.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tomllib
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


def documented_folders() -> dict[str, list[Path]]:
    """The documented modules of each folder of the package, by the name of its page."""
    found = {}
    for folder in sorted({file.parent for file in PACKAGE.rglob("*.py")}):
        modules = [file for file in sorted(folder.glob("*.py")) if not file.name.startswith("__") and documented(file)]
        if modules:
            found[".".join(("ponder", *folder.relative_to(PACKAGE).parts))] = modules
    return found


def groups() -> dict[str, list[str]]:
    """The names of the reference's pages as the sidebar of zensical.toml groups them; "": those above the groups."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    (entries,) = (each["Reference"] for each in nav if "Reference" in each)
    found: dict[str, list[str]] = {"": []}
    for entry in entries:
        for title, inside in entry.items() if isinstance(entry, dict) else ():
            if isinstance(inside, str):
                found[""].append(Path(inside).stem)
            else:
                found[title] = [Path(page).stem for each in inside for page in each.values()]
    return found


def check_groups() -> None:
    """Raises SystemExit unless the sidebar names every page of the reference once, and no other."""
    named, pages = [name for names in groups().values() for name in names], documented_folders().keys()
    if wrong := sorted(set(named) ^ pages) or sorted(name for name in set(named) if named.count(name) > 1):
        raise SystemExit(f"zensical.toml: the reference must name every folder of the package once: see {wrong}")


def reference() -> None:
    """One page for each folder, with a section for each of its modules; and a page that lists them."""
    check_groups()
    listed = ["# Reference", "", "What the docstrings say, one page for each folder of the package."]
    folders = documented_folders()
    for title, names in groups().items():
        listed += ["", f"## {title}", ""] if title else [""]
        for name in names:
            init = folders[name][0].with_name("__init__.py")
            first = (ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
            first = first.replace("\n", " ")
            sections = [f"::: {name}.{module.stem}\n" for module in folders[name]]
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
    check_groups() if "--check" in sys.argv else main()
