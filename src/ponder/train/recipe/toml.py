"""Reading recipes from TOML, with includes and overrides, and writing resolved ones back."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, make_dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ponder.train.data.records import decode_text
from ponder.train.recipe.sections import RANDOM, ModelRecipe, Recipe, RunRecipe, Section
from ponder.types import DataError, RecipeError

VERSION = 1
"""Of the recipe that a run folder holds, and of the folder's layout. A folder without one has version 0."""

_PATH_KEYS = ("source", "messages", "preferences", "start", "step_scorer", "task", "teacher")


def read_recipe(
    path: str | Path,
    sections: Sequence[type[Section]],
    overrides: Sequence[str] = (),
    *,
    upgrade: Callable[[int, dict[str, Any]], None] | None = None,
) -> Recipe:
    """The recipe at `path` as it is written, nothing derived.

    sections: those of all stages; one that the recipe leaves out has its defaults.
    overrides: `section.key=value`, the value in TOML, or a bare word for a string.
    upgrade: changes the tables that the given version wrote into those of this version, in place.
    Paths of data in a recipe are relative to its own folder; those in overrides to the working directory.
    Raises RecipeError for an unknown key, a value of the wrong type, a file that cannot be read, and a newer version.
    """
    words = frozenset({RANDOM, *(kind.name for kind in sections)})  # a `start` by these words is never a path
    table = _read(Path(path), words, seen=())
    version = table.pop("version", 0)
    if type(version) is not int or version > VERSION:
        raise RecipeError(
            f"{path}: written by a newer Ponder (version {version!r}, this Ponder reads up to {VERSION}): "
            "update Ponder, or choose another run.folder"
        )
    if upgrade:
        upgrade(version, table)
    for override in overrides:
        _override(table, override)
    for kind in sections:
        for key in kind.gone.keys() & table.get(kind.name, {}):
            raise RecipeError(f"{path}: {kind.name}.{key} is no longer a key: {kind.gone[key]}")
    optional = {"model": ModelRecipe, **{kind.name: kind for kind in sections}}
    named = [(name, kind, dataclasses.field(default_factory=cast(type, kind))) for name, kind in optional.items()]
    built = build(make_dataclass("Tables", [("run", RunRecipe), *named]), table, str(path))
    return Recipe(run=built.run, model=built.model, sections=tuple(getattr(built, kind.name) for kind in sections))


@lru_cache(maxsize=256)
def _types(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields. Evaluating their texts takes longer than all else that reads a recipe."""
    return typing.get_type_hints(cls)


def build(cls: type, table: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """An instance of the dataclass `cls` from a TOML table. `RecipeError` on unknown, missing or ill-typed keys."""
    hints = _types(cls)
    known = {field.name: field for field in fields(cls)}
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known here: {', '.join(known)}"
            raise RecipeError(f"{where}: unknown key {prefix}{key}; {hint}")
    for name, each in known.items():
        if name not in table and each.default is MISSING and each.default_factory is MISSING:
            raise RecipeError(f"{where}: {prefix}{name} is missing")
    values = {key: _convert(hints[key], value, where, prefix + key) for key, value in table.items()}
    return cls(**values)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML that reads back to an equal one. A section of a stage that does not run is left out
    where it says nothing."""
    lines = [f"version = {VERSION}", ""]
    for name, table in recipe.tables.items():
        unsaid = isinstance(table, Section) and table == type(table)().resolved(recipe.model)
        if not unsaid or name in recipe.run.stages:
            _dump_table(table, name, lines)
    return "\n".join(lines) + "\n"


def _read(path: Path, words: frozenset[str], seen: tuple[Path, ...]) -> dict[str, Any]:
    """The raw table at `path` over the one it includes, data paths made absolute."""
    path = path.resolve()
    if path in seen:
        raise RecipeError(f"{path}: includes itself, through {' → '.join(str(p) for p in seen)}")
    try:
        table = tomllib.loads(decode_text(path.read_bytes(), str(path)).replace("\r\n", "\n").replace("\r", "\n"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}): give the path of a recipe (*.toml)") from error
    except DataError as error:
        raise RecipeError(str(error)) from error
    except (ValueError, RecursionError) as error:  # tomllib refuses long numbers by a plain ValueError
        raise RecipeError(f"{path}: not valid TOML: {error}") from error
    _anchor(table, path.parent, words)
    included = table.pop("include", None)
    if included is None:
        return table
    if not isinstance(included, str):
        raise RecipeError(f"{path}: include must be a string, the path of one recipe")
    return _merge(_read(path.parent / included, words, (*seen, path)), table)


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`: tables merge key by key, everything else (lists too) is replaced."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _anchor(value: Any, folder: Path, words: frozenset[str]) -> None:
    """Make the data paths below `value` absolute, in place, where they exist beside the recipe."""
    if isinstance(value, list):
        for item in value:
            _anchor(item, folder, words)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _PATH_KEYS and isinstance(item, str):
                if item and item not in words:
                    value[key] = _beside(folder, item)
            else:
                _anchor(item, folder, words)


def _beside(folder: Path, path: str) -> str:
    """`path`, or the class of a file in "file.py:Class" and "task:file.py:Class", absolute if it lies in `folder`."""
    prefix = "task:" if path.startswith("task:") else ""
    file, colon, name = path.removeprefix(prefix).partition(".py:")
    file += ".py" if colon else ""
    return f"{prefix}{folder / file}{colon.removeprefix('.py')}{name}" if (folder / file).exists() else path


def _override(table: dict[str, Any], override: str) -> None:
    """Apply one `section.key=value` in place."""
    path, separator, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not separator or not all(keys):
        raise RecipeError(f"--set {override!r}: write section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError) as error:
        value = text.strip()
        if value.startswith(('"', "'")):
            raise RecipeError(f"--set {override!r}: the value is not valid TOML ({error}): mend the quotes") from error
    for key in keys[:-1]:
        below = table.setdefault(key, {})
        if not isinstance(below, dict):
            raise RecipeError(f"--set {override!r}: {key} is not a table: write the whole value of {key}")
        table = below
    table[keys[-1]] = value


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """`value` as the type `hint`, or a `RecipeError` that names both."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        hint = next(a for a in arguments if a is not type(None))
        return _convert(hint, value, where, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: {key} must be a list (got {value!r})")
        return tuple(_convert(arguments[0], item, where, f"{key}[{i}]") for i, item in enumerate(value))
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: {key} must be a table (got {value!r})")
        return build(cast(type, hint), value, where, f"{key}.")
    if issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError as error:
            names = ", ".join(member.value for member in hint)
            raise RecipeError(f"{where}: {key} must be one of {names} (got {value!r})") from error
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise RecipeError(f"{where}: {key} must be of type {hint.__name__} (got {value!r})")
    if isinstance(value, str) and "\0" in value:
        raise RecipeError(f"{where}: {key} holds a zero byte ({value!r}): take it out")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RecipeError(f"{where}: {key} is not UTF-8 ({value!r}): use a name that is") from error
    return value


def _dump_table(value: Any, name: str, lines: list[str]) -> None:
    """Append `[name]` with its plain keys, then its sub-tables and lists of tables."""
    lines.append(f"[{name}]")
    nested: list[tuple[str, Any]] = []
    for field in fields(value):
        item = getattr(value, field.name)
        if is_dataclass(item) or (isinstance(item, tuple) and any(is_dataclass(part) for part in item)):
            nested.append((field.name, item))
        elif item is not None:
            lines.append(f"{field.name} = {_literal(item)}")
    lines.append("")
    for key, item in nested:
        if not isinstance(item, tuple):
            _dump_table(item, f"{name}.{key}", lines)
            continue
        for part in item:
            _dump_table(part, f"[{name}.{key}]", lines)


def _literal(value: Any) -> str:
    """A TOML literal. JSON's strings, numbers and booleans are TOML's too."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return json.dumps(str(value) if isinstance(value, StrEnum) else value, ensure_ascii=False)
