"""The stage `grpo`: better answers of a group become likelier than worse ones, by policy optimisation.

GRPO (arXiv 2402.03300) and the field's variants since, as choices in the recipe; the formulas are in `policy.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.tasks.turns import Attempt
from ponder.tasks.verifiers.steps import StepScorer
from ponder.train.policy.gradient import FrozenModel, PolicyGradient, SampledTokens
from ponder.train.policy.lessons import Lesson, weigh
from ponder.train.policy.losses import Baseline, Ratio, Weighting, group_advantages, policy_loss, step_advantages
from ponder.train.policy.stage import RolloutRecipe, RolloutTraining
from ponder.train.recipe.ranges import Range, Share


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe(RolloutRecipe):
    """Reinforcement learning from verifiable rewards: answers are sampled, graded, and made likelier or less likely.

    baseline, weighting, ratio: see the enums.
    clip_low, clip_high: ratios beyond 1 - clip_low and 1 + clip_high gain nothing more.
    kl: weight of the penalty for leaving the model that the stage started from; 0: no penalty, and no copy of it.
    step_scorer: folder of a model of the stage process, whose scores of the steps give each token an advantage beside
        that of the whole answer (`step_advantages`); "": none.
    step_weight: of those advantages.
    """

    baseline: Baseline = Baseline.GRPO
    weighting: Weighting = Weighting.TOKEN
    ratio: Ratio = Ratio.TOKEN
    clip_low: Share = 0.2
    clip_high: Annotated[float, Range(0)] = 0.28
    kl: Annotated[float, Range(0, 1e12)] = 0.0
    step_scorer: str = ""
    step_weight: Annotated[float, Range(0, 1e6)] = 1.0

    name = "grpo"
    corrects = True  # by the ratio to the weights that sampled, and its clips
    gone = dict.fromkeys(
        ("objective", "per_prompt"),
        'leave it out; rejection sampling is the stage "rejection", with its own section [rejection]',
    )

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        folder = Path(self.step_scorer)
        own = {str(file): [file] for file in sorted(folder.glob("*")) if file.is_file()} if self.step_scorer else {}
        return {**super().data_files(), **own}


class Grpo(RolloutTraining[GrpoRecipe]):
    """Clipped policy gradients, with a penalty for leaving the start model where the recipe has one."""

    section = GrpoRecipe

    def lessons(self, stage: GrpoRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        """An answer without advantage has no gradient, unless the penalty gives it one, and is left out; it counts in
        the weights of the others."""
        advantages_M: list[Any] = group_advantages(rewards_PS, stage.baseline).flatten().tolist()
        if stage.step_scorer:
            own = [each for group in groups for each in _step_advantages(stage, group)]
            advantages_M = [whole + each for whole, each in zip(advantages_M, own, strict=True)]
        trajectories = [each.trajectory for group in groups for each in group]
        lessons = weigh(trajectories, advantages_M, stage.weighting, longest=stage.max_tokens)
        return [each for each in lessons if each.teaches or stage.kl]

    def gradient(self, stage: GrpoRecipe, model: Transformer) -> PolicyGradient:
        reference = FrozenModel.of(model) if stage.kl else None
        loss, stale = partial(clipped_loss, stage), stage.staleness > 0
        return PolicyGradient(loss, temperature=stage.temperature, stale=stale, reference=reference)


@cache
def _step_scorer(folder: str) -> StepScorer:
    return StepScorer.load(folder)


def _step_advantages(stage: GrpoRecipe, group: Sequence[Attempt]) -> list[NDArray[np.float32]]:
    """Of each answer of a group, for the ids of its segments, end to end."""
    scorer = _step_scorer(stage.step_scorer)
    rewards: list[list[tuple[int, float]]] = []
    lengths: list[int] = []
    for each in group:
        found: list[tuple[int, float]] = []
        done = 0
        for segment in each.trajectory.segments:
            found += [(done + at, score) for at, score in scorer.rewards(segment.prompt_ids, segment.ids)]
            done += len(segment.ids)
        rewards.append(found)
        lengths.append(done)
    return [stage.step_weight * made for made in step_advantages(rewards, lengths)]


def clipped_loss(stage: GrpoRecipe, new_N: Tensor, tokens: SampledTokens) -> tuple[Tensor, Mapping[str, Tensor]]:
    """`policy_loss` as the recipe sets it. A `LogprobLoss` but for the recipe."""
    loss, stats = policy_loss(
        *(new_N, tokens.old_N, tokens.advantages_N, tokens.weights_N),
        clip_low=stage.clip_low,
        clip_high=stage.clip_high,
        ratio=stage.ratio,
        trajectories_N=tokens.trajectories_N,
        reference_N=tokens.reference_N,
        kl=stage.kl,
    )
    sums = {"clipped": stats.clipped, "kl": stats.kl}
    return loss, sums if tokens.reference_N is None else {**sums, "reference_kl": stats.reference_kl}
