"""The stage `sft`: dialogues with worked reasoning, loss on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from ponder.train.data.feed import DialogueRecipe, Feed
from ponder.train.data.packing import Batch
from ponder.train.loop.fit import Job
from ponder.train.loop.folder import QUESTIONS, add_questions
from ponder.train.loop.stage import StageStart, Training, padding
from ponder.train.policy.rollout import solved
from ponder.train.recipe.ranges import CountOrZero


@dataclass(frozen=True, kw_only=True)
class SftRecipe(DialogueRecipe):
    """Chain-of-thought tuning on dialogues, loss on the assistant's tokens only.

    watch_problems: how many problems of each task are answered at every `eval_every` (levels evenly spread).
    """

    start: str = "pretrain"
    watch_problems: CountOrZero = 20

    name = "sft"
    free = DialogueRecipe.free | {"watch_problems"}


class Sft(Training[SftRecipe]):
    """Also leaves the hashes of all questions seen."""

    section = SftRecipe

    def open(self, start: StageStart[SftRecipe]) -> Job:
        stage, model = start.stage, start.model
        feeds: list[Feed] = []

        def batches(step: int) -> Generator[Sequence[Batch], None, None]:
            with Feed(stage, start.tokenizer_folder, seed=start.seed, pad=padding(model), start=step) as feed:
                feeds.append(feed)
                while True:
                    yield feed.next()

        def on_save() -> None:
            hashes = feeds[-1].take_questions() if feeds else np.empty(0, np.uint64)
            add_questions(start.folder / QUESTIONS, hashes)

        own_watch = solved(
            stage.mix,
            start.tokenizer,
            problems=stage.watch_problems if stage.eval_every else 0,
            sequence=stage.sequence,
            seed=start.seed,
        )
        return Job(
            name=self.name,
            folder=start.folder,
            run=start.recipe.run,
            stage=stage,
            batches=batches,
            watch=start.watch or own_watch,
            on_save=on_save,
        )
