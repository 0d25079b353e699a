"""The folder of a run: where its stages leave what they made, and how files are written into it."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DONE = "done.json"
QUESTIONS = "questions.bin"
_HALF_WRITTEN = re.compile(r"\..+\.\w+\.(tmp|old)")  # as `atomic_folder`, `atomic_file` and `write_atomically` name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where things are in a run.

    recipe.toml     resolved                       tokenizer/      what the tokenizer stage left
    STAGE/          checkpoints/ metrics.jsonl loss.png done.json, and the stage's own notes
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
        return self.stage(name).is_dir()


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
    """A file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
