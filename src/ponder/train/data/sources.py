"""Where raw text comes from: files, folders, JSONL, what installed packages carry, and the generators of tasks.

A source is one string:

    notes.txt, letters/                  a text file, a folder of them (recursively)
    corpus.jsonl, .json, .parquet        records with a "text" each (`records`)
    package:NAME/GLOB                    text files inside an installed Python package
    docstrings:NAME                      the docstrings of an installed package; NAME "python" is the standard library,
                                         with the language reference that pydoc carries (PSF licence)
    task:SPEC                            problems with their demonstrations, drawn by a task's generator
"""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import Random

from ponder.tasks.protocol import CouncilTask, DemonstratedTask, Demonstration, Problem, Task
from ponder.tasks.registry import load_task, task_files
from ponder.train.data.records import RECORD_SUFFIXES, files_of, read_records, read_text
from ponder.train.recipe.sections import TextRecipe
from ponder.types import DataError

TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".text", ".pod", ".tex", ".py"})
_SUFFIXES = TEXT_SUFFIXES | RECORD_SUFFIXES
_SKIPPED_FOLDERS = frozenset({"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3"})
_SHORTEST_DOCSTRING = 120  # characters; one-line docstrings teach little but "Return the …"


def documents(recipe: TextRecipe, *, seed: int = 0) -> Iterator[str]:
    """The documents of one source, in a fixed order, up to `recipe.characters`. `DataError` where there are none."""
    taken = 0
    for document in _open(recipe, seed):
        if recipe.characters and taken + len(document) > recipe.characters:
            document = document[: recipe.characters - taken]
        if document.strip():
            taken += len(document)
            yield document
        if recipe.characters and taken >= recipe.characters:
            return
    if not taken:
        raise DataError(f"{recipe.source}: there is no text: give another source, or leave it out")


def source_files(source: str) -> dict[str, list[Path]]:
    """The files that a source is read from, by the name that a person knows them by."""
    kind, name = _kind(source)
    if kind == "task":
        return task_files(name)
    if kind == "package":
        return {source: _package_files(name)}
    if kind == "docstrings":
        return {source: sorted(_code_folder(name).rglob("*.py"))}
    return {str(file): [file] for file in files_of(_expanded(source), _SUFFIXES)}


def _kind(source: str) -> tuple[str, str]:
    """("package", "NAME/GLOB") and the like; ("", path) for a path."""
    kind, separator, name = source.partition(":")
    return (kind, name) if separator and len(kind) > 1 else ("", source)  # one letter before a colon is a drive


def _open(recipe: TextRecipe, seed: int) -> Iterator[str]:
    kind, name = _kind(recipe.source)
    if not kind:
        return _from_path(_expanded(name))
    if kind == "package":
        return chain.from_iterable(map(_from_path, _package_files(name)))
    if kind == "docstrings":
        return _from_docstrings(name)
    if kind == "task":
        return _from_task(name, recipe.samples, seed)
    raise DataError(f"{recipe.source}: unknown kind {kind!r}; known are package:, docstrings:, task: and plain paths")


def _from_path(path: Path) -> Iterator[str]:
    if path.is_dir():
        return chain.from_iterable(_from_path(file) for file in files_of(path, _SUFFIXES))
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; paths are relative to the recipe, then to {Path.cwd()}")
    return _from_records(path) if path.suffix in {*RECORD_SUFFIXES, ".json"} else iter([read_text(path)])


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no home folder ({error}): write the whole path") from error


def _from_records(path: Path) -> Iterator[str]:
    for where, record in read_records(path):
        text = record.get("text")
        if not isinstance(text, str):
            raise DataError(f'{where}: must have a key "text" with a string (got {sorted(record)})')
        yield text


def _package_folder(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"package {name!r} is not installed here; install it or drop the source from the recipe")
    return Path(next(iter(spec.submodule_search_locations)))


def _package_files(name: str) -> list[Path]:
    package, _, pattern = name.partition("/")
    folder = _package_folder(package)
    files = sorted(p for p in folder.glob(pattern or "*.txt") if p.is_file())
    if not files:
        raise DataError(f"package:{name}: the installed {package} has no such file under {folder}")
    return files


def _code_folder(name: str) -> Path:
    return Path(sysconfig.get_path("stdlib")) if name == "python" else _package_folder(name)


def _from_docstrings(name: str) -> Iterator[str]:
    folder = _code_folder(name)
    if name == "python":
        yield from _language_reference()
    for file in sorted(folder.rglob("*.py")):
        if not _SKIPPED_FOLDERS.isdisjoint(file.relative_to(folder).parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's code
                tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if len(docstring) >= _SHORTEST_DOCSTRING and _is_text(docstring):
                    yield docstring


def _is_text(written: str) -> bool:
    """Whether UTF-8 can express it. Literals of other people's code may hold half characters."""
    try:
        written.encode()
    except UnicodeEncodeError:
        return False
    return True


def _language_reference() -> Iterator[str]:
    from pydoc_data import topics  # half a megabyte, loaded where used

    reference: dict[str, str] = topics.topics
    return iter(reference[key].strip() for key in sorted(reference))


def _from_task(spec: str, samples: int, seed: int) -> Iterator[str]:
    task = load_task(spec)
    for index in range(samples):
        rng = Random(f"text/{seed}/{spec}/{index}")
        yield written(task, task.sample(rng, rng.random()), rng)


def demonstrated(task: DemonstratedTask, problem: Problem, rng: Random, *, voices: int = 0) -> Demonstration:
    """A problem's demonstration; by that many voices where `voices` is not 0."""
    if not voices:
        return task.demonstrate(problem, rng)
    assert isinstance(task, CouncilTask), "`check_mix` refuses others"
    return task.demonstrate_council(problem, rng, voices)


def written(task: Task, problem: Problem, rng: Random, *, voices: int = 0) -> str:
    """A problem, its demonstration where the task has one, and its answer, one below the other."""
    lines = [problem.question]
    if isinstance(task, DemonstratedTask):
        demonstration = demonstrated(task, problem, rng, voices=voices)
        lines += [*(fold.state for fold in demonstration.folds), demonstration.text]
    return "\n".join([*lines, problem.answer])
