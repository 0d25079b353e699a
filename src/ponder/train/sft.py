"""Chain-of-thought tuning: dialogues with worked reasoning, loss on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ponder.train.feed import Feed
from ponder.train.loop import Job, Result, Watch, fit
from ponder.train.packing import Batch
from ponder.train.recipe import Recipe, Stage
from ponder.train.stages import RunFolder, begin, finish, padding
from ponder.train.state import write_atomically
from ponder.train.watch import solved

QUESTIONS = "questions.bin"


def sft(recipe: Recipe, folder: RunFolder, *, watch: Watch | None = None) -> Result:
    """Run (or resume) the stage. Leaves sft/model (float32), model/ (bfloat16) and the hashes of all questions seen.

    watch: instead of `watch.solved`.
    """
    stage = recipe.sft
    model, tokenizer, tokenizer_folder = begin(recipe, stage, folder)
    own = folder.stage(Stage.SFT)
    feeds: list[Feed] = []

    def batches(step: int) -> Generator[Sequence[Batch], None, None]:
        with Feed(stage, tokenizer_folder, seed=recipe.run.seed, pad=padding(model), start=step) as feed:
            feeds.append(feed)
            while True:
                yield feed.next()

    def on_save() -> None:
        add_questions(own / QUESTIONS, feeds[-1].take_questions() if feeds else np.empty(0, np.uint64))

    job = Job(
        name=Stage.SFT.value,
        folder=own,
        run=recipe.run,
        stage=stage,
        batches=batches,
        watch=watch or solved(stage, tokenizer, seed=recipe.run.seed),
        on_save=on_save,
    )
    result = fit(model, job)
    finish(result, model, tokenizer, folder, Stage.SFT)
    return result


def add_questions(path: Path, hashes: NDArray[np.uint64]) -> None:
    """Merge `hashes` into the sorted file of 64-bit little-endian hashes at `path`."""
    write_atomically(path, np.union1d(read_questions(path), hashes).astype("<u8").tobytes())


def read_questions(path: Path) -> NDArray[np.uint64]:
    """The sorted hashes (`examples.question_number`) of all questions trained on; empty without a file."""
    return np.fromfile(path, "<u8") if path.is_file() else np.empty(0, np.uint64)
