"""The stage `sft`: dialogues with worked reasoning, loss on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ponder.model.checkpoint import load_model
from ponder.model.transformer import Transformer
from ponder.train.data.feed import DialogueRecipe, Feed
from ponder.train.data.packing import Batch
from ponder.train.examples import mix_files, mix_voices
from ponder.train.loop.anchor import Anchored, AnchorRecipe
from ponder.train.loop.fit import Job
from ponder.train.loop.folder import QUESTIONS, RunFolder, add_questions
from ponder.train.loop.learner import NextToken
from ponder.train.loop.stage import StageStart, Training, padding, start_folders
from ponder.train.policy.rollout import solved
from ponder.train.recipe.ranges import CountOrZero, Range
from ponder.train.recipe.sections import RANDOM, ModelRecipe, mix_problems, not_divided


@dataclass(frozen=True, kw_only=True)
class SftRecipe(DialogueRecipe):
    """Chain-of-thought tuning on dialogues, loss on the assistant's tokens only.

    watch_problems: how many problems of each task are answered at every `eval_every` (levels evenly spread).
    anchor: a penalty for moving weights that old tasks depend on.
    average: the share of the start model in the weights that the stage leaves (WiSE-FT, arXiv 2109.01903).
    """

    start: str = "pretrain"
    watch_problems: CountOrZero = 20
    anchor: AnchorRecipe = field(default_factory=AnchorRecipe)
    average: Annotated[float, Range(0, 1, below=True)] = 0.0

    name = "sft"
    free = DialogueRecipe.free | {"watch_problems"}

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        held, kept = self.anchor.weight > 0, self.average > 0
        return {
            **super().problems(model, runs=runs),
            **mix_problems("sft.anchor", self.anchor.mix),
            "sft.anchor.mix is empty: name what the start model knows": held and not self.anchor.mix,
            "sft.anchor.weight is 0, but there is a mix: give a weight, or leave the mix out": bool(
                self.anchor.mix and not held
            ),
            "sft.anchor and average hold weights near a trained start model, but sft.start is random": (
                (held or kept) and self.start == RANDOM
            ),
            "sft.anchor and average do not apply with lora, whose base does not move: lower lora.alpha instead": (
                (held or kept) and self.lora.rank > 0
            ),
        }

    @property
    def needs_whole(self) -> str:
        if self.anchor.weight:
            return "sft.anchor reads all of them"
        return not_divided(self)

    def check_data(self) -> None:
        super().check_data()
        self.anchor.check_data()

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        return {**mix_files(self.anchor.mix), **super().data_files()}


class Sft(Training[SftRecipe]):
    """Also leaves the hashes of all questions seen. A model that is taught councils says so in its config.json."""

    section = SftRecipe

    def open(self, start: StageStart[SftRecipe]) -> Job:
        stage, model = start.stage, start.model
        model.config = replace(model.config, voices=max(model.config.voices, mix_voices(stage.mix)))
        feeds: list[Feed] = []

        def batches(step: int) -> Generator[Sequence[Batch], None, None]:
            with Feed(stage, start.tokenizer_folder, seed=start.seed, pad=padding(model), start=step) as feed:
                feeds.append(feed)
                while True:
                    yield feed.next()

        def on_save() -> None:
            hashes = feeds[-1].take_questions() if feeds else np.empty(0, np.uint64)
            add_questions(start.folder / QUESTIONS, hashes)

        watch = solved(
            stage.mix,
            start.tokenizer,
            problems=stage.watch_problems if stage.eval_every else 0,
            sequence=stage.sequence,
            seed=start.seed,
        )
        learner = NextToken()
        if stage.anchor.weight:
            learner = Anchored.to(stage.anchor, model, start.tokenizer, sequence=stage.sequence, seed=start.seed)
        return start.job(batches, learner, watch=watch, on_save=on_save)

    def leave(self, start: StageStart[SftRecipe], job: Job, folder: RunFolder, dtype: torch.dtype) -> None:
        if start.stage.average:
            before, _ = start_folders(start.recipe, start.stage, folder)
            average(start.model, load_model(before, dtype=torch.float32), start.stage.average)
        super().leave(start, job, folder, dtype)


@torch.no_grad()
def average(model: Transformer, before: Transformer, share: float) -> None:
    """Move the model's weights that share of the way to those of another model of its shape."""
    others = dict(before.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.lerp_(others[name].to(parameter.device), share)
