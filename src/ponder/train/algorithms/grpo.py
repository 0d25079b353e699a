"""The stage `grpo`: better answers of a group become likelier than worse ones, by policy optimisation.

GRPO (arXiv 2402.03300) and the field's variants since, as choices in the recipe; the formulas are in `policy.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.tasks.turns import Attempt
from ponder.train.policy.gradient import FrozenModel, PolicyGradient, SampledTokens
from ponder.train.policy.lessons import Lesson, weigh
from ponder.train.policy.losses import Baseline, Ratio, Weighting, group_advantages, policy_loss
from ponder.train.policy.stage import RolloutRecipe, RolloutTraining
from ponder.train.recipe.ranges import Range, Share


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe(RolloutRecipe):
    """Reinforcement learning from verifiable rewards: answers are sampled, graded, and made likelier or less likely.

    baseline, weighting, ratio: see the enums.
    clip_low, clip_high: ratios beyond 1 - clip_low and 1 + clip_high gain nothing more.
    kl: weight of the penalty for leaving the model that the stage started from; 0: no penalty, and no copy of it.
    """

    baseline: Baseline = Baseline.GRPO
    weighting: Weighting = Weighting.TOKEN
    ratio: Ratio = Ratio.TOKEN
    clip_low: Share = 0.2
    clip_high: Annotated[float, Range(0)] = 0.28
    kl: Annotated[float, Range(0, 1e12)] = 0.0

    name = "grpo"
    gone = dict.fromkeys(
        ("objective", "per_prompt"),
        'leave it out; rejection sampling is the stage "rejection", with its own section [rejection]',
    )


class Grpo(RolloutTraining[GrpoRecipe]):
    """Clipped policy gradients, with a penalty for leaving the start model where the recipe has one."""

    section = GrpoRecipe

    def lessons(self, stage: GrpoRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        """An answer without advantage has no gradient, unless the penalty gives it one, and is left out; it counts in
        the weights of the others."""
        advantages_M = group_advantages(rewards_PS, stage.baseline).flatten().tolist()
        trajectories = [each.trajectory for group in groups for each in group]
        lessons = weigh(trajectories, advantages_M, stage.weighting, longest=stage.max_tokens)
        return [each for each in lessons if each.teaches or stage.kl]

    def gradient(self, stage: GrpoRecipe, model: Transformer) -> PolicyGradient:
        reference = FrozenModel.of(model) if stage.kl else None
        return PolicyGradient(partial(clipped_loss, stage), temperature=stage.temperature, reference=reference)


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
