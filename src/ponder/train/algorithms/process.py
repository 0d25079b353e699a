"""The stage `process`: a model that scores the steps of a thought, from labels of steps (arXiv 2305.20050, 2312.08935).

The head is that of the stage `reward`, read at the end of each step; the loss is the binary cross entropy of labels.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ponder.dialogue.format import Format
from ponder.dialogue.load import load_format
from ponder.dialogue.messages import Message
from ponder.model.checkpoint import atomic_folder
from ponder.model.loss import Backend, last_hidden, training_stack
from ponder.model.scoring import Reads, ScoreScale, ScoringHead, ScoringModel, write_scoring_model
from ponder.model.transformer import Transformer
from ponder.tasks.verifiers.steps import step_ids
from ponder.tokenizer import Tokenizer
from ponder.train.data.comparisons import ComparisonRecipe, Unusable
from ponder.train.data.packing import Batch, Example, fill, gather
from ponder.train.data.preferences import Stepwise, fault_of, is_held_out, read_stepwise
from ponder.train.loop.fit import Job
from ponder.train.loop.folder import RunFolder
from ponder.train.loop.learner import Beside, StepReport, on
from ponder.train.loop.stage import StageStart, Training, padding
from ponder.train.loop.world import world
from ponder.train.recipe.sections import Rate
from ponder.types import DataError, FormatError


class AfterMistake(StrEnum):
    """Whether the labels of steps after the first wrong one are learned: IGNORE (arXiv 2305.20050), or LEARN."""

    IGNORE = "ignore"
    LEARN = "learn"


@dataclass(frozen=True, kw_only=True)
class ProcessRecipe(ComparisonRecipe):
    """A scorer of steps from labels.

    rankings: how many labelled thoughts an update is made from.
    after_mistake: see the enum.
    head_lr: learning rate of the head; None: the stage's.
    """

    after_mistake: AfterMistake = AfterMistake.IGNORE
    head_lr: Rate | None = None

    name = "process"

    def check_data(self) -> None:
        for _ in read_stepwise(Path(self.preferences)):
            pass


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSteps(Example):
    """A thought as ids.

    labels: of each id, read where it is learned: how likely the step that ends before it is right.
    """

    labels: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A micro-batch of thoughts; its weights are 1 at the ends of labelled steps."""

    batch: Batch
    labels_BT: NDArray[np.float32]

    @property
    def num_positions(self) -> int:
        return self.batch.num_positions


class ProcessTraining(Training[ProcessRecipe]):
    """It leaves STAGE/model, for sequence classification; the run's model/ stays what it is."""

    section = ProcessRecipe

    def open(self, start: StageStart[ProcessRecipe]) -> Job:
        stage = start.stage
        train, held_out = load_steps(stage, load_format(start.tokenizer), start.tokenizer)
        learner = ProcessLearner(start, train, held_out)
        return start.job(
            learner.batches,
            learner,
            num_steps=math.ceil(len(train) * stage.epochs / stage.rankings),
            watch=learner.watch if held_out else None,
        )

    def leave(self, start: StageStart[ProcessRecipe], job: Job, folder: RunFolder, dtype: torch.dtype) -> None:
        learner = job.learner
        assert isinstance(learner, ProcessLearner)
        lengths = [len(each.ids) for each in learner.train]
        scale = ScoreScale(reads=Reads.STEPS, shortest=min(lengths), longest=max(lengths))
        with atomic_folder(start.folder / "model", replace=True) as temporary:
            write_scoring_model(ScoringModel(start.model, learner.head, scale), temporary)
            start.tokenizer.save(temporary)


def load_steps(
    recipe: ProcessRecipe, format: Format, tokenizer: Tokenizer
) -> tuple[list[LabelledSteps], list[LabelledSteps]]:
    """(to learn from, held out). Raises DataError, with the line, for steps that cannot be told apart in the ids."""
    train: list[LabelledSteps] = []
    held_out: list[LabelledSteps] = []
    for where, judged in read_stepwise(Path(recipe.preferences)):
        why = fault_of(judged)
        try:
            made = None if why else labelled_steps(judged, format, tokenizer, recipe.after_mistake)
        except FormatError as error:
            raise DataError(f"{where}: {error}") from error
        if made is not None and len(made.ids) > recipe.sequence + 1:
            why = f"it takes {len(made.ids)} tokens, more than sequence = {recipe.sequence}"
        if why or made is None:
            if recipe.unusable is Unusable.REFUSE:
                raise DataError(f'{where}: {why}: mend the line, or set {recipe.name}.unusable to "leave_out"')
            continue
        (held_out if is_held_out(judged.prompt, recipe.held_out) else train).append(made)
    if not train:
        raise DataError(f"{recipe.preferences}: holds no labelled steps to learn from: add some, or lower held_out")
    return train, held_out


def labelled_steps(
    judged: Stepwise, format: Format, tokenizer: Tokenizer, after_mistake: AfterMistake
) -> LabelledSteps:
    """Raises FormatError where the ids have other steps than were labelled."""
    text = "\n".join(judged.steps)
    message = Message.assistant(text) if judged.answer is None else Message.assistant(judged.answer, text)
    read = step_ids(format, tokenizer, judged.prompt, message)
    if len(read.places) != len(judged.steps):
        raise FormatError(
            f"{len(judged.steps)} steps are labelled, and its ids have {len(read.places)}: write one line a step, and "
            "no line break within one"
        )
    learned = np.zeros(len(read.ids) + 1, np.float32)
    labels = np.zeros(len(read.ids) + 1, np.float32)
    for place, label in zip(read.places, judged.labels, strict=True):
        if label is not None:
            learned[place + 1], labels[place + 1] = 1, label
        if label == 0 and after_mistake is AfterMistake.IGNORE:
            break
    return LabelledSteps(ids=(*read.ids, read.ids[-1]), learned=learned, labels=labels)


class ProcessLearner:
    """Trains transformer and head on labels of steps; every labelled step of an update counts the same."""

    def __init__(
        self,
        start: StageStart[ProcessRecipe],
        train: Sequence[LabelledSteps],
        held_out: Sequence[LabelledSteps],
    ) -> None:
        self.recipe, self.train, self.held_out, self.model = start.stage, train, held_out, start.model
        self.seed = f"{self.recipe.name}/{start.seed}"
        device = next(start.model.parameters()).device
        self.head = ScoringHead(start.model.config.hidden_size, seed=start.seed).to(device)
        self.beside: Beside | None = Beside(module=self.head, lr=self.recipe.head_lr)
        self._pad = padding(start.model)
        self._right = self._count = torch.zeros(())

    def batches(self, step: int) -> Generator[list[StepBatch], None, None]:
        count, each = len(self.train), self.recipe.rankings
        while True:
            places = range(step * each, min((step + 1) * each, count * self.recipe.epochs))
            orders = {epoch: self._order(epoch) for epoch in {place // count for place in places}}
            yield self._lay_out([self.train[orders[place // count][place % count]] for place in places])
            step += 1

    def _order(self, epoch: int) -> list[int]:
        return Random(f"{self.seed}/{epoch}").sample(range(len(self.train)), len(self.train))

    def _lay_out(self, thoughts: Sequence[LabelledSteps]) -> list[StepBatch]:
        made = []
        for members in gather(([each] for each in thoughts), self.recipe.batch, self.recipe.sequence):
            batch = Batch.empty(len(members), self.recipe.sequence, self._pad)
            labels_BT = np.zeros(batch.ids_BT.shape, np.float32)
            for row, contents in enumerate(members):
                fill(batch, row, contents)
                begin = 0
                for each in contents:
                    end = begin + len(each.ids) - 1
                    labels_BT[row, begin:end] = each.labels[1:]
                    begin = end
            made.append(StepBatch(batch, labels_BT))
        return made

    def updates(self, batches: Sequence[StepBatch]) -> Sequence[Sequence[StepBatch]]:
        return [batches]

    def losses(self, model: Transformer, batches: Sequence[StepBatch], backend: Backend) -> Iterator[Tensor]:
        total = max(1.0, sum(float(each.batch.weights_BT.sum()) for each in batches))
        stack = training_stack(model) if backend is Backend.KERNELS else None
        self._right = self._count = torch.zeros(())
        for each in world().own(batches):
            device = next(model.parameters()).device
            ids, _, weights, documents, positions = on(device, each.batch)
            x_ND = last_hidden(model, ids, documents, positions, backend=backend, stack=stack)
            at_N = weights.flatten().nonzero()[:, 0]
            scores_N, labels_N = self.head(x_ND[at_N]), torch.from_numpy(each.labels_BT).to(device).flatten()[at_N]
            self._right = self._right + ((scores_N > 0) == (labels_N > 0.5)).sum().cpu()
            self._count = self._count + len(at_N)
            yield F.binary_cross_entropy_with_logits(scores_N, labels_N, reduction="sum") / total

    def updating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def report(self) -> StepReport:
        """accuracy: the share of the step's labelled steps that are scored on the right side."""
        sums = world().sums({"right": float(self._right), "count": float(self._count)})
        accuracy = sums["right"] / max(1.0, sums["count"])
        return StepReport(metrics={"accuracy": accuracy}, headline=f"right {100 * accuracy:3.0f}%")

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass

    def watch(self, step: int, model: Transformer) -> Mapping[str, float]:
        """On held-out prompts. right, wrong: the accuracy on right and on wrong steps; f1: their harmonic mean."""
        sides: dict[bool, list[bool]] = {True: [], False: []}
        for each in self._lay_out(self.held_out):
            ids, _, weights, documents, positions = on(next(model.parameters()).device, each.batch)
            x_ND = last_hidden(model, ids, documents, positions)
            at_N = weights.flatten().nonzero()[:, 0]
            labels = (torch.from_numpy(each.labels_BT).flatten()[at_N.cpu()] > 0.5).tolist()
            for score, label in zip(self.head(x_ND[at_N]).tolist(), labels, strict=True):
                sides[label].append((score > 0) == label)
        right, wrong = (sum(side) / max(1, len(side)) for side in (sides[True], sides[False]))
        f1 = 2 * right * wrong / (right + wrong) if right + wrong else 0.0
        return {"held_out/right": right, "held_out/wrong": wrong, "held_out/f1": f1}
