"""The folder of a run: where its stages leave what they made, and how files are written into it."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ponder.model.storage import writing
from ponder.types import PonderError, WriteError

DONE = "done.json"
QUESTIONS = "questions.bin"
GRADES = "grades.jsonl"
DATA = "data.json"
_LOCK = ".lock"
_BEFORE_A_STEP = {GRADES, DATA}  # files with content that a stage may have before it has made a step
_HALF_WRITTEN = re.compile(r"\..+\.\w+\.(tmp|old)")  # as `atomic_folder`, `atomic_file` and `write_atomically` name


class RunInUse(PonderError):
    """Another process trains in the same run folder."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where things are in a run.

    recipe.toml     resolved                       tokenizer/      what the tokenizer stage left
    STAGE/          checkpoints/ metrics.jsonl loss.png data.json done.json, and the stage's own notes
    STAGE/model/    float32, from which a later stage starts; adapters are merged
    STAGE/adapter/  what LoRA learned, alone, as PEFT lays it out
    model/          the result with its tokenizer, for `ponder ask --model`: bfloat16, or as an adapter's base is stored
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def stage(self, name: str) -> Path:
        return self.path / name

    def begun(self, name: str) -> bool:
        """Whether the stage has made a step. A start that failed or was killed before has not."""
        own = self.stage(name)
        return own.is_dir() and not all(_is_of_a_start(path) for path in own.iterdir())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder. The system takes the lock from a process that dies.

        The folder is made where it does not exist, and removed again where the block has put nothing into it. Raises
        RunInUse, which names the process that is there.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            with _lock(self.path / _LOCK):
                yield
        finally:
            with suppress(OSError):  # the first that is not empty ends it
                for path in made:
                    path.rmdir()

    @contextmanager
    def starting(self, name: str, recipe: str) -> Iterator[None]:
        """Store the recipe, and run the stage in the block. Where the block fails before the first step of a stage that
        had none, the folder is as it was before."""
        before = self.recipe.read_bytes() if self.recipe.is_file() else None
        fresh = not self.begun(name)
        if fresh:
            self._clear(name)
        write_atomically(self.recipe, recipe.encode())
        try:
            yield
        except BaseException as error:
            if fresh and not self.begun(name):
                self._clear(name)
                if before is None:
                    self.recipe.unlink()
                else:
                    write_atomically(self.recipe, before)
            if isinstance(error, WriteError):
                raise WriteError(f"{error}. {self._usable(name)}") from error
            raise

    def _usable(self, name: str) -> str:
        """What a stage that could not write on has to go on from."""
        saved = sorted(path.name for path in self.stage(name).glob("checkpoints/[!.]*"))
        if saved:
            return f"The checkpoint {saved[-1]} is whole: then go on with --resume"
        return f"{name} has no checkpoint yet: then start it again" + (" with --resume" if self.begun(name) else "")

    def _clear(self, name: str) -> None:
        """Remove what a start that made no step has left of the stage: it must not count for the next one."""
        own = self.stage(name)
        for path in own.iterdir() if own.is_dir() else ():
            path.unlink()
        with suppress(FileNotFoundError):
            own.rmdir()


def add_questions(path: Path, hashes: NDArray[np.uint64]) -> None:
    """Merge `hashes` into the sorted file of 64-bit little-endian hashes at `path`."""
    write_atomically(path, np.union1d(read_questions(path), hashes).astype("<u8").tobytes())


def read_questions(path: Path) -> NDArray[np.uint64]:
    """The sorted hashes (`examples.question_number`) of all questions trained on; empty without a file."""
    return np.fromfile(path, "<u8") if path.is_file() else np.empty(0, np.uint64)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written anywhere in its folder, and nothing else that is hidden there."""
    for path in [path for path in folder.rglob(".*") if _HALF_WRITTEN.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all. Raises WriteError for a full disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _is_of_a_start(path: Path) -> bool:
    return path.is_file() and (path.name in _BEFORE_A_STEP or path.name.startswith(".") or path.stat().st_size == 0)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the file at `path`, which says who holds it. It is removed at the end."""
    stream = _take(path)
    try:
        with writing(path):
            stream.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M')}")
            stream.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk
            stream.close()


def _take(path: Path) -> IO[str]:
    while True:
        with writing(path):
            stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read() or "another process"
            stream.close()
            raise RunInUse(
                f"{path.parent} is in use ({holder}): wait for its end, stop it, or choose another run.folder"
            ) from error
        except OSError as error:
            print(f"{path.parent}: no locks there ({error.strerror}): train with one process only", file=sys.stderr)
            return stream
        if path.exists() and path.stat().st_ino == os.fstat(stream.fileno()).st_ino:
            stream.truncate(0)
            return stream
        stream.close()  # its holder has just removed it
