"""The stage `rejection`: tuning on the solved ones of the model's own answers, the control for policy optimisation.

Rejection-sampling tuning, or expert iteration (STaR, arXiv 2203.14465). Problems, answers and grades are those of
`grpo`; what policy optimisation gains beyond this stage comes from the worse answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.tasks.turns import Attempt
from ponder.train.policy.gradient import PolicyGradient, SampledTokens
from ponder.train.policy.lessons import Lesson, weigh
from ponder.train.policy.losses import Weighting
from ponder.train.policy.stage import RolloutRecipe, RolloutTraining
from ponder.train.recipe.ranges import Width


@dataclass(frozen=True, kw_only=True)
class RejectionRecipe(RolloutRecipe):
    """Next-token loss on solved answers.

    per_prompt: the largest number of them that is kept of each problem.
    """

    per_prompt: Width = 4

    name = "rejection"


class Rejection(RolloutTraining[RejectionRecipe]):
    """The first solved answers of each group, every token of them with the same weight."""

    section = RejectionRecipe

    def lessons(self, stage: RejectionRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        solved = [[each.trajectory for each in group if each.grade.solved][: stage.per_prompt] for group in groups]
        trajectories = [each for group in solved for each in group]
        return weigh(trajectories, [1.0] * len(trajectories), Weighting.TOKEN, longest=stage.max_tokens)

    def gradient(self, stage: RejectionRecipe, model: Transformer) -> PolicyGradient:
        return PolicyGradient(likelihood_loss, sampled_at=stage.temperature)  # tuning has no temperature


def likelihood_loss(new_N: Tensor, tokens: SampledTokens) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The next-token loss, nats. A `LogprobLoss`."""
    return -(tokens.weights_N * new_N).sum(), {}
