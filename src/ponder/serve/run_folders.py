"""Run folders as the server shows them: found beneath one folder, read and never written, and nothing outside it."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import threading
import tomllib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from ponder.serve.errors import NotFound
from ponder.train.loop.folder import DONE
from ponder.types import DataError, InvalidRequest

DEEPEST = 4  # folders between the one that is given and a run
MOST_FOLDERS = 5_000  # that are looked into
MOST_RECORDS = 2_000_000  # of one metrics file
LARGEST_TEXT = 4 << 20  # bytes of a recipe, and of the samples of one step
LONGEST_RECORD = 64 << 10  # bytes
KEPT_FILES = 32  # metrics files that stay in memory, parsed
POSITIONS = ("step", "tokens", "compute", "seconds")  # keys of a record that say where it is
_SAMPLES = re.compile(r"step_(\d{1,12})\.jsonl")
_PROCESS = re.compile(r"process (\d+) on (\S+),")


@dataclass(frozen=True, slots=True)
class StageFolder:
    """A stage of a run that has written metrics.

    done: whether it has ended.
    target: what the recipe says it goes to: of steps, or of tokens; empty: not known.
    samples: the steps whose samples were written down.
    """

    name: str
    path: Path
    done: bool
    target: Mapping[str, int]
    samples: tuple[int, ...]

    def last(self) -> tuple[dict[str, Any], float]:
        """(the last whole record of its metrics, empty where there is none, when the file was written). Raises
        DataError."""
        with _opened(self.path / "metrics.jsonl") as stream:
            status = os.fstat(stream.fileno())
            stream.seek(max(0, status.st_size - LONGEST_RECORD))
            lines = [line for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]
        return (_record(lines[-1], "metrics.jsonl, last line") if lines else {}), status.st_mtime


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run folder: one with a recipe.

    name: its path beneath the folder of runs, "." for that folder itself.
    live: whether a process trains in it.
    """

    name: str
    path: Path
    live: bool
    stages: tuple[StageFolder, ...]


class RunFolders:
    """The runs beneath a folder. Links are not followed, so that nothing outside it is read."""

    def __init__(self, root: Path) -> None:
        """Raises InvalidRequest where there is no such folder."""
        if not root.is_dir():
            raise InvalidRequest(f"{root} is not a folder: give --runs the folder in which runs are")
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, MetricsFile] = OrderedDict()

    def runs(self) -> list[FoundRun]:
        """All of them, by name."""
        found, looked = [], 0
        waiting = [(self.root, 0)]
        while waiting and looked < MOST_FOLDERS:
            folder, depth = waiting.pop()
            looked += 1
            inside = sorted(_folders(folder))
            if _is_file(folder / "recipe.toml"):
                found.append(self._run(folder, inside))
            elif depth < DEEPEST:
                waiting += [(folder / name, depth + 1) for name in inside]
        return sorted(found, key=lambda run: run.name)

    def run(self, name: str) -> FoundRun:
        """The run of that name. Each part of it is looked for among what its folder holds. Raises NotFound."""
        folder = self.root
        parts = [] if name == "." else name.split("/")
        for part in parts:
            if len(parts) > DEEPEST or part not in _folders(folder):
                raise NotFound(f"there is no run {name[:200]!r}", param="run")
            folder /= part
        if not _is_file(folder / "recipe.toml"):
            raise NotFound(f"there is no run {name[:200]!r}", param="run")
        return self._run(folder, sorted(_folders(folder)))

    def stage(self, run: str, name: str) -> StageFolder:
        """Raises NotFound."""
        for stage in self.run(run).stages:
            if stage.name == name:
                return stage
        raise NotFound(f"the run {run!r} has no stage {name!r} with metrics", param="stage")

    def metrics(self, stage: StageFolder) -> MetricsFile:
        """The metrics of a stage, with what was written since the last call. Raises DataError."""
        with self._lock:
            file = self._files.pop(stage.path, None) or MetricsFile(stage.path / "metrics.jsonl")
            self._files[stage.path] = file
            if len(self._files) > KEPT_FILES:
                self._files.popitem(last=False)
        file.refresh()
        return file

    def recipe(self, name: str) -> str:
        """The text of the resolved recipe. Raises NotFound, DataError."""
        return _read(self.run(name).path / "recipe.toml").decode(errors="replace")

    def samples(self, stage: StageFolder, step: int) -> list[dict[str, Any]]:
        """What a stage wrote down of the answers of one step. Raises NotFound, DataError."""
        if step not in stage.samples:
            raise NotFound(f"the stage {stage.name!r} has no samples of step {step}", param="step")
        name = next(file for file in _files(stage.path / "samples") if _step_of(file) == step)
        return [
            _record(line, f"{name}, line {number}")
            for number, line in enumerate(_read(stage.path / "samples" / name).splitlines(), 1)
        ]

    def _run(self, folder: Path, inside: Sequence[str]) -> FoundRun:
        try:
            recipe = tomllib.loads(_read(folder / "recipe.toml").decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, DataError):
            recipe = {}  # its curves can be seen all the same; `recipe` shows the text as it is
        return FoundRun(
            folder.relative_to(self.root).as_posix(),
            folder,
            _is_live(folder / ".lock"),
            tuple(
                StageFolder(
                    name,
                    folder / name,
                    _is_file(folder / name / DONE),
                    _target(recipe.get(name)),
                    tuple(
                        sorted(
                            step for file in _files(folder / name / "samples") if (step := _step_of(file)) is not None
                        )
                    ),
                )
                for name in _in_order(inside, recipe)
                if _is_file(folder / name / "metrics.jsonl")
            ),
        )


class MetricsFile:
    """`metrics.jsonl` as far as it has been read. A run that was resumed replaces the file by a shorter one: what it
    forgot is forgotten here too.

    records: in the order of their steps.
    marks: of each record, a checksum of its line. With its step it is the place up to which a reader has read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._forget()
        self._inode = -1

    def _forget(self) -> None:
        self._offset = 0
        self.records: list[dict[str, float]] = []
        self.marks: list[int] = []

    def refresh(self) -> None:
        """Read what was added since the last time. Raises DataError for a line that is not a record."""
        with self._lock, _opened(self._path) as stream:
            status = os.fstat(stream.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._forget()
                self._inode = status.st_ino
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # it is being written
                where = f"{self._path.name}, line {len(self.records) + 1}"
                record = _record(line, where)
                if not isinstance(record.get("step"), int):
                    raise DataError(f"{where}: has no step")
                if len(self.records) == MOST_RECORDS:
                    raise DataError(f"the metrics have more than {MOST_RECORDS} records")
                self._offset += len(line)
                self.records.append({key: value for key, value in record.items() if isinstance(value, int | float)})
                self.marks.append(crc32(line))

    def since(self, step: int, mark: int | None) -> tuple[int | None, list[dict[str, float]]]:
        """(the step after which the reader must forget what it has, or None, the records that it lacks).

        step: the last one that the reader has; -1: none.
        mark: that of its record; None: the reader takes any.
        """
        with self._lock:
            records, marks = self.records[:], self.marks[:]
        number = _last_until(records, step)
        if step < 0:
            return None, records
        known = number >= 0 and records[number]["step"] == step
        if known and mark in (None, marks[number]):
            return None, records[number + 1 :]
        if not known and mark is None:
            return (int(records[number]["step"]) if number >= 0 else -1), records[number + 1 :]
        return -1, records


def bucketed(records: Sequence[Mapping[str, float]], key: str, most: int) -> list[tuple[int, float | None]]:
    """(step, value) of a key, at most `most` of them: of each bucket of neighbours the lowest and the highest, so that
    no peak is lost. A value that is not finite is None, and one is kept of each bucket that has any."""
    points = [(int(record["step"]), float(record[key])) for record in records if key in record]
    if len(points) <= most:
        return [(step, _finite(value)) for step, value in points]
    buckets = max(1, most // 3)
    found: list[tuple[int, float | None]] = []
    for number in range(buckets):
        bucket = points[number * len(points) // buckets : (number + 1) * len(points) // buckets]
        odd = next((point for point in bucket if not math.isfinite(point[1])), None)
        finite = [point for point in bucket if math.isfinite(point[1])]
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])} if finite else set()
        found += sorted(
            [(step, _finite(value)) for step, value in [*ends, *([odd] if odd else [])]], key=lambda point: point[0]
        )
    return found


def knots(records: Sequence[Mapping[str, float]], most: int) -> list[tuple[float, ...]]:
    """Evenly spaced records as (step, tokens, compute, seconds), the last one among them: what turns a step into
    another position."""
    count = min(most, len(records))
    numbers = sorted({round(place * (len(records) - 1) / max(1, count - 1)) for place in range(count)})
    return [tuple(_finite(records[number].get(key, 0.0)) or 0.0 for key in POSITIONS) for number in numbers]


def _finite(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return value if value == int(value) else float(f"{value:.6g}")


def _last_until(records: Sequence[Mapping[str, float]], step: int) -> int:
    """The number of the last record whose step is at most that; -1: none."""
    low, high = 0, len(records)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if records[middle]["step"] <= step else (low, middle)
    return low - 1


def _is_live(lock: Path) -> bool:
    """Whether the process that the lock of a run names is alive. Trying the lock would keep a run from starting. Of
    another machine nothing is known but that the lock is there."""
    if not _is_file(lock):
        return False
    named = _PROCESS.match(_read(lock).decode(errors="replace"))
    if named is None or named[2] != platform.node():
        return named is not None
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_order(inside: Sequence[str], recipe: Mapping[str, Any]) -> list[str]:
    """The folders that are stages of the recipe, in its order, then the others."""
    run = recipe.get("run")
    said = run.get("stages") if isinstance(run, dict) else None
    stages = [name for name in said if name in inside] if isinstance(said, list) else []
    return [*stages, *(name for name in inside if name not in stages)]


def _target(section: object) -> dict[str, int]:
    if not isinstance(section, dict):
        return {}
    for key in ("steps", "tokens"):
        if isinstance(value := section.get(key), int) and value > 0:
            return {key: value}
    return {}


def _step_of(name: str) -> int | None:
    found = _SAMPLES.fullmatch(name)
    return int(found[1]) if found else None


def _folders(folder: Path) -> list[str]:
    return [each.name for each in _inside(folder) if each.is_dir(follow_symlinks=False)]


def _files(folder: Path) -> list[str]:
    return [each.name for each in _inside(folder) if each.is_file(follow_symlinks=False)]


def _inside(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        if folder.is_symlink():
            return
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError:  # it was removed meanwhile, or may not be read
        return


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _opened(path: Path) -> Any:
    try:
        return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW))
    except OSError as error:
        raise DataError(f"{path.name} cannot be read ({error.strerror})") from None


def _read(path: Path) -> bytes:
    with _opened(path) as stream:
        data: bytes = stream.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise DataError(f"{path.name} is larger than {LARGEST_TEXT} bytes, which is too much to show")
    return data


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{where}: is not a JSON object")
    return found
