"""The shape of the house, asserted: which part may import which, without circles; that a public name means one thing;
what the core may depend on, where control tokens may be spelled, what loads torch, and that the tree in
docs/architecture.md is the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ponder"

TEXT = {"types", "voices", "gguf", "sandbox", "tokenizer", "dialogue"}
TENSORS = {"types", "voices", "gguf", "kernels", "model", "engine"}
LINE = ("sampler", "tasks", "think", "evaluate", "train", "lens")

MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "voices": {"types"},
    "gguf": {"types"},
    "sandbox": {"types"},
    "tokenizer": {"types", "gguf", "sandbox"},
    "dialogue": {"types", "voices", "sandbox", "tokenizer"},
    "kernels": {"types", "gguf"},
    "model": {"types", "gguf", "kernels"},
    "engine": {"types", "voices", "kernels", "model"},
}
for position, name in enumerate(LINE):
    MAY_IMPORT[name] = TEXT | TENSORS | set(LINE[:position])
MAY_IMPORT["testing"] = TEXT | TENSORS | {"sampler", "tasks"}
MAY_IMPORT["export"] = TEXT | TENSORS
MAY_IMPORT["serve"] = MAY_IMPORT["cluster"] = TEXT | TENSORS | set(LINE)
FRONT_DOOR = "ponder"
MAY_IMPORT[FRONT_DOOR] = TEXT | TENSORS | set(LINE)
MAY_IMPORT["cli"] = MAY_IMPORT["serve"] | {"export", "serve", "cluster", FRONT_DOOR}

# Names that every module of a folder defines because something calls them by that name.
REGULAR_NAMES = {
    "cli": {"add_arguments", "run"},  # a verb of the command line: cli/main.py calls both
}
SHARED_NAMES = {"main"}  # what `python -m`, or the console script, calls

CORE_THIRD_PARTIES = {"torch", "numpy", "tokenizers", "safetensors", "jinja2"}
CONTROL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?think>|</?tool_(?:call|response)>")

# Folders of tests that test no part of the package: the parts together, and what stands beside the package.
BESIDE_THE_PARTS = {"examples", "golden", "recipes", "smoke", "web"}

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    """The part of the house a file belongs to: its folder or module right under src/ponder."""
    first = file.relative_to(PACKAGE).parts[0]
    return FRONT_DOOR if first in {"__init__.py", "front.py"} else first.removesuffix(".py")


def imported_modules(tree: ast.AST, file: Path) -> Iterator[str]:
    """Every module a file imports anywhere, as absolute dotted names; `from x import y` yields x.y."""
    package = (*file.relative_to(PACKAGE.parent).parts[:-1],)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def ponder_part(module: str) -> str | None:
    """The part a dotted import reaches, the front door for `ponder.load` and the like; None for other packages."""
    head, *rest = module.split(".")
    if head != "ponder":
        return None
    return rest[0] if rest and rest[0] in MAY_IMPORT else FRONT_DOOR


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(files: list[Path]) -> dict[str, set[str]]:
    """Each module and the modules among `files` that it imports, wherever in it: in functions and for types too."""
    known = {module_name(file) for file in files}
    graph: dict[str, set[str]] = {}
    for file in files:
        reached = set(imported_modules(parsed(file), file))
        named = {name if name in known else name.rpartition(".")[0] for name in reached}  # `from module import thing`
        graph[module_name(file)] = (named & known) - {module_name(file)}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that reach each other."""
    reach = {module: set(imported) for module, imported in graph.items()}
    for middle in graph:
        for module in graph:
            if middle in reach[module]:
                reach[module] |= reach[middle]
    found = [
        {other for other in reach[module] if module in reach[other]} for module in graph if module in reach[module]
    ]
    return [circle for at, circle in enumerate(found) if circle not in found[:at]]


def public_names(file: Path) -> set[str]:
    """Classes and functions at the top of a module, without those that a whole folder has."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    names = {node.name for node in parsed(file).body if isinstance(node, kinds) and not node.name.startswith("_")}
    return names - SHARED_NAMES - REGULAR_NAMES.get(part_of(file), set())


def module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import: not function bodies, not `if TYPE_CHECKING:`."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))
            handlers = getattr(node, "handlers", [])
            pending.extend(statement for handler in handlers for statement in handler.body)


def third_parties(tree: ast.Module, file: Path) -> set[str]:
    """Top-level names of the packages, neither ours nor the standard library's, that importing a file needs."""
    imports = [node for node in module_level(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {module.split(".")[0] for node in imports for module in imported_modules(node, file)}
    return names - set(sys.stdlib_module_names) - {"ponder"}


def spelled_control_tokens(tree: ast.Module) -> set[str]:
    """Control tokens in the string literals of a module. Docstrings are documentation and may name them."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {
        token for node in literals if id(node) not in docstrings for token in CONTROL_TOKEN.findall(str(node.value))
    }


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def each_file(*without: str) -> pytest.MarkDecorator:
    """A test for every file that belongs to none of the parts named."""
    files = [file for file in FILES if part_of(file) not in without]
    return pytest.mark.parametrize("file", files, ids=lambda file: str(file.relative_to(PACKAGE)))


@each_file()
def test_a_file_imports_only_what_stands_to_its_left(file: Path) -> None:
    part = part_of(file)
    assert part in MAY_IMPORT, f"{part} is no part of the house: add it to MAY_IMPORT"
    reached = {ponder_part(module) for module in imported_modules(parsed(file), file)} - {None, part}
    assert reached <= MAY_IMPORT[part], f"{part} must not import {sorted(map(str, reached - MAY_IMPORT[part]))}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(import_graph(FILES)) == []


def test_a_public_name_means_one_thing_in_the_whole_package() -> None:
    homes: dict[str, list[str]] = {}
    for file in FILES:
        for name in public_names(file):
            homes.setdefault(name, []).append(module_name(file))
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_a_module_among_the_families_is_a_family_and_listed() -> None:
    from ponder.tasks.families import FAMILIES

    listed = {type(family).__module__.rpartition(".")[2] for family in FAMILIES.values()}
    assert listed == {file.stem for file in (PACKAGE / "tasks" / "families").glob("*.py")} - {"__init__"}


@each_file("serve", "cluster")
def test_importing_the_core_needs_no_extra(file: Path) -> None:
    allowed = set() if part_of(file) in {"cli", "types", FRONT_DOOR} else CORE_THIRD_PARTIES
    assert third_parties(parsed(file), file) <= allowed


@each_file("dialogue")
def test_control_tokens_are_spelled_in_dialogue_only(file: Path) -> None:
    assert spelled_control_tokens(parsed(file)) == set()


def test_the_checks_see_what_they_are_meant_to_see() -> None:
    source = (
        "import torch\nfrom ponder import load\nfrom ..think import direct\n"
        "if TYPE_CHECKING:\n    import sympy\n"
        "def f():\n    '''May name <|think|>.'''\n    import matplotlib\n    return '<|end|>' + f'{1}</think>'\n"
    )
    tree, file = ast.parse(source), PACKAGE / "engine" / "example.py"
    modules = set(imported_modules(tree, file))
    assert {ponder_part(module) for module in modules} == {FRONT_DOOR, "think", None}
    assert third_parties(tree, file) == {"torch"}
    assert spelled_control_tokens(tree) == {"<|end|>", "</think>"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == [{"b", "c"}, {"d"}]
    assert "ponder.engine.sequence" in import_graph(FILES)["ponder.engine.engine"]
    assert {"Engine", "COMPUTE_LOCK"} & public_names(PACKAGE / "engine" / "engine.py") == {"Engine"}


def python(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("module", ["ponder", "ponder.types", "ponder.tokenizer", "ponder.dialogue", "ponder.tasks"])
def test_importing_loads_no_torch(module: str) -> None:
    python(f"import sys, {module}\nassert 'torch' not in sys.modules")


def test_help_loads_no_torch() -> None:
    python(
        "import sys\nfrom ponder.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )


def test_the_tests_mirror_the_package() -> None:
    tested = {file.relative_to(ROOT / "tests").parts[0] for file in (ROOT / "tests").glob("*/**/test_*.py")}
    parts = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert tested <= parts | BESIDE_THE_PARTS, "a test stands in the folder of the part that it tests"


def test_the_tree_in_the_docs_is_the_tree() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "tree.py", "--check"], check=True, timeout=60)


def test_the_sidebar_of_the_reference_names_every_folder() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "pages.py", "--check"], check=True, timeout=60)
