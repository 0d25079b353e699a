"""Chain-of-thought tuning: dialogues with worked reasoning, loss on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from ponder.train.data.feed import Feed
from ponder.train.data.packing import Batch
from ponder.train.loop.fit import Job, Result, Watch, fit
from ponder.train.loop.stage import QUESTIONS, RunFolder, add_questions, begin, finish, padding
from ponder.train.policy.rollout import solved
from ponder.train.recipe.sections import Recipe, Stage


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
