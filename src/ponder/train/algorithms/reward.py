"""The stage `reward`: a model that scores answers as people rank them, for policies to be optimised against.

A head of one number stands beside the transformer and is read at the end of an answer (arXiv 1909.08593, 2203.02155);
the loss is Plackett-Luce's over rankings, which for pairs is Bradley-Terry's (`policy.preference`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import combinations, takewhile
from statistics import fmean, pstdev
from typing import Annotated, Any

import torch
from torch import Tensor

from ponder.dialogue.format import Format
from ponder.dialogue.load import load_format
from ponder.evaluate.preferred import ScoredPair, agreement
from ponder.kernels.training import TrainingStack
from ponder.model.checkpoint import atomic_folder
from ponder.model.loss import Backend, last_hidden, training_stack
from ponder.model.scoring import Reads, ScoreScale, ScoringHead, ScoringModel, write_scoring_model
from ponder.model.transformer import Transformer
from ponder.tasks.verifiers.reward import scored_ids
from ponder.train.data.comparisons import (
    Comparison,
    ComparisonBatch,
    ComparisonRecipe,
    Comparisons,
    Contexts,
    lay_out_comparisons,
    load_comparisons,
)
from ponder.train.data.packing import Example
from ponder.train.data.preferences import Ranking
from ponder.train.loop.fit import Job
from ponder.train.loop.folder import RunFolder
from ponder.train.loop.learner import Beside, StepReport, on
from ponder.train.loop.stage import StageStart, Training, padding
from ponder.train.loop.world import world
from ponder.train.policy.preference import centring_loss, ranking_loss
from ponder.train.recipe.ranges import Count, Range
from ponder.train.recipe.sections import Rate
from ponder.types import RecipeError


@dataclass(frozen=True, kw_only=True)
class RewardRecipe(ComparisonRecipe):
    """A reward model from judgements.

    centring: weight of the penalty that keeps the scores of each judgement's answers around 0.
    head_lr: learning rate of the head; None: the stage's.
    references: at most this many judgements, held-out ones where there are any, set the scale: over their answers the
        reward has the mean 0 and the deviation 1.
    """

    centring: Annotated[float, Range(0, 1e6)] = 0.01
    head_lr: Rate | None = None
    references: Count = 512

    name = "reward"


class RewardTraining(Training[RewardRecipe]):
    """It leaves STAGE/model, for sequence classification; the run's model/ stays what it is."""

    section = RewardRecipe

    def open(self, start: StageStart[RewardRecipe]) -> Job:
        stage = start.stage
        data = load_comparisons(stage, scored_answer(load_format(start.tokenizer)))
        if data.train[0].answers[0][0].ids[-1] == start.model.config.pad_token_id:
            raise RecipeError(
                f"{stage.start}: the padding token is the one that ends a turn, so that other programs would read a "
                "score before it: set pad_token_id in its config.json to another token"
            )
        learner = RewardLearner(start, data)
        return start.job(
            learner.batches,
            learner,
            num_steps=data.steps(stage.rankings, stage.epochs),
            watch=learner.watch if data.held_out else None,
        )

    def leave(self, start: StageStart[RewardRecipe], job: Job, folder: RunFolder, dtype: torch.dtype) -> None:
        learner = job.learner
        assert isinstance(learner, RewardLearner)
        scoring = ScoringModel(start.model, learner.head, learner.scale())
        with atomic_folder(start.folder / "model", replace=True) as temporary:
            write_scoring_model(scoring, temporary)
            start.tokenizer.save(temporary)


def scored_answer(format: Format) -> Contexts:
    """What the reward model reads of an answer. Rows drop the last id of a document, so one more stands after it."""

    def contexts(ranking: Ranking, number: int) -> list[Example]:
        ids = scored_ids(format, ranking.prompt, ranking.answers[number], ranking.tools)
        return [Example(ids=(*ids, ids[-1]), learned=[False] * len(ids) + [True])]

    return contexts


class RewardLearner:
    """Trains transformer and head on rankings."""

    def __init__(self, start: StageStart[RewardRecipe], data: Comparisons) -> None:
        self.recipe, self.data, self.model = start.stage, data, start.model
        self.seed = f"{self.recipe.name}/{start.seed}"
        device = next(start.model.parameters()).device
        self.head = ScoringHead(start.model.config.hidden_size, seed=start.seed).to(device)
        self.beside: Beside | None = Beside(module=self.head, lr=self.recipe.head_lr)
        self._pad = padding(start.model)
        self._sums: dict[str, Tensor] = {}

    def batches(self, step: int) -> Generator[list[ComparisonBatch], None, None]:
        while True:
            yield self._lay_out(self.data.draw(step, self.recipe.rankings, self.recipe.epochs, self.seed))
            step += 1

    def _lay_out(self, comparisons: Sequence[Comparison]) -> list[ComparisonBatch]:
        return lay_out_comparisons(comparisons, rows=self.recipe.batch, sequence=self.recipe.sequence, pad=self._pad)

    def updates(self, batches: Sequence[ComparisonBatch]) -> Sequence[Sequence[ComparisonBatch]]:
        return [batches]

    def losses(self, model: Transformer, batches: Sequence[ComparisonBatch], backend: Backend) -> Iterator[Tensor]:
        """Means over the update's rankings, by their weights."""
        total = sum(float(each.weights_G.sum()) for each in batches)
        stack = training_stack(model) if backend is Backend.KERNELS else None
        self._sums = {}
        for each in world().own(batches):
            scores_M = end_scores(model, self.head, each, backend, stack)
            groups_M, ranks_M, margins_G, weights_G = (
                torch.from_numpy(array).to(scores_M.device)
                for array in (each.groups_M, each.ranks_M, each.margins_G, each.weights_G)
            )
            loss, stats = ranking_loss(scores_M, groups_M, ranks_M, margins_G, weights_G)
            for name, value in (("pairs", stats.pairs), ("right", stats.right), ("ranking_loss", loss.detach())):
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            yield (loss + self.recipe.centring * centring_loss(scores_M, groups_M, weights_G)) / total

    def updating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def report(self) -> StepReport:
        """accuracy: the share of the step's pairs whose better answer has the higher score."""
        sums = world().sums({name: float(total) for name, total in self._sums.items()})
        accuracy, ranked = (sums[name] / sums["pairs"] for name in ("right", "ranking_loss"))
        headline = f"right {100 * accuracy:3.0f}%  loss {ranked:6.4f}"
        return StepReport(metrics={"accuracy": accuracy, "ranking_loss": ranked}, headline=headline)

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass

    def watch(self, step: int, model: Transformer) -> Mapping[str, float]:
        """On held-out prompts; see `evaluate.preferred`."""
        pairs = scored_pairs(self.data.held_out, self.scores(self.data.held_out))
        return {f"held_out/{name}": value for name, value in agreement(pairs).metrics().items()}

    def scores(self, comparisons: Sequence[Comparison]) -> list[list[float]]:
        """Of each answer of each ranking, without the scale."""
        self.model.eval()
        scores: list[list[float]] = []
        with torch.no_grad():
            for batch in self._lay_out(comparisons):
                flat = end_scores(self.model, self.head, batch, Backend.TORCH, None).tolist()
                groups = batch.groups_M.tolist()
                own: list[list[float]] = [[] for _ in batch.weights_G]
                for group, score in zip(groups, flat, strict=True):
                    own[group].append(score)
                scores += own
        return scores

    def scale(self) -> ScoreScale:
        references = (self.data.held_out or self.data.train)[: self.recipe.references]
        scores = [score for each in self.scores(references) for score in each]
        gain = 1 / max(pstdev(scores), 1e-6)
        lengths = [len(example.ids) - 1 for each in self.data.train for (example,) in each.answers]
        return ScoreScale(
            reads=Reads.ANSWER,
            gain=gain,
            bias=-gain * fmean(scores),
            shortest=min(lengths),
            longest=max(lengths),
        )


def end_scores(
    model: Transformer, head: ScoringHead, each: ComparisonBatch, backend: Backend, stack: TrainingStack | None
) -> Tensor:
    """scores_M: the head at the marked position of each answer, in the order of the answers."""
    device = next(model.parameters()).device
    ids, _, weights, documents, positions = on(device, each.batch)
    x_ND = last_hidden(model, ids, documents, positions, backend=backend, stack=stack)
    marked_M = weights.flatten().nonzero()[:, 0]
    answers_M = torch.from_numpy(each.answers_BT).to(device).flatten()[marked_M]
    scores_M: Tensor = head(x_ND.index_select(0, marked_M[answers_M.argsort()]))
    return scores_M


def scored_pairs(comparisons: Sequence[Comparison], scores: Sequence[Sequence[float]]) -> list[ScoredPair]:
    """Every two answers of a ranking whose ranks differ. Lengths are in tokens after what all its answers begin with,
    the prompt."""
    found = []
    for each, own in zip(comparisons, scores, strict=True):
        contexts = [examples[-1].ids for examples in each.answers]
        begins = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*contexts, strict=False)))
        lengths = [len(ids) - begins for ids in contexts]
        for pair in combinations(range(len(own)), 2):
            better, worse = sorted(pair, key=lambda at: each.ranks[at])
            if each.ranks[better] != each.ranks[worse]:
                found.append(ScoredPair(each.number, own[better], own[worse], lengths[better], lengths[worse]))
    return found
