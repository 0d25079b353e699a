"""The stage `online_dpo`: of several own answers the best one is preferred to the worst one, by their rewards.

Online DPO (arXiv 2402.04792): the preferences of `dpo`, but between answers of the model as it is now, judged by a
task's grade: a verifier's, or a reward model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.tasks.turns import Attempt
from ponder.train.policy.direct import Preference, implicit_rewards, pair_loss
from ponder.train.policy.gradient import FrozenModel, PolicyGradient, SampledTokens
from ponder.train.policy.lessons import Lesson
from ponder.train.policy.stage import RolloutRecipe, RolloutTraining
from ponder.train.recipe.ranges import Positive
from ponder.train.recipe.sections import ModelRecipe


@dataclass(frozen=True, kw_only=True)
class OnlineDpoRecipe(RolloutRecipe):
    """Direct preference optimisation on own answers.

    loss, beta: as in `dpo`; kto judges no pairs.
    """

    loss: Preference = Preference.SIGMOID
    beta: Positive = 0.1

    name = "online_dpo"
    full_lr = 5e-5

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        return {
            **super().problems(model, runs=runs),
            "online_dpo.loss must judge pairs (got kto): choose sigmoid": self.loss is Preference.KTO,
        }


class OnlineDpo(RolloutTraining[OnlineDpoRecipe]):
    """A pair of each group whose rewards differ."""

    section = OnlineDpoRecipe

    def lessons(self, stage: OnlineDpoRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        """The better answer of each pair, then the worse one: of equal rewards the first."""
        pairs = [
            (group[int(rewards_S.argmax())].trajectory, group[int(rewards_S.argmin())].trajectory)
            for group, rewards_S in zip(groups, rewards_PS, strict=True)
            if bool(rewards_S.min() < rewards_S.max())
        ]
        return [
            Lesson(trajectory, side, 1 / len(pairs))
            for pair in pairs
            for trajectory, side in zip(pair, (1.0, -1.0), strict=True)
        ]

    def gradient(self, stage: OnlineDpoRecipe, model: Transformer) -> PolicyGradient:
        reference = FrozenModel.of(model) if stage.loss.has_reference else None
        # Preferences are of the model's own distribution, whatever the answers were sampled at.
        return PolicyGradient(partial(preferred, stage), sampled_at=stage.temperature, reference=reference, together=2)


def preferred(stage: OnlineDpoRecipe, new_N: Tensor, tokens: SampledTokens) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss of pairs of trajectories, 2 i before 2 i + 1. A `LogprobLoss` but for the recipe."""
    counted_N = (tokens.weights_N != 0).to(new_N.dtype)
    count = int(tokens.trajectories_N.max()) + 1

    def sums(values_N: Tensor) -> Tensor:
        return values_N.new_zeros(count).index_add(0, tokens.trajectories_N, values_N * counted_N).view(-1, 2)

    new_P2, lengths_P2 = sums(new_N), sums(torch.ones_like(new_N))
    weights_P = sums(tokens.weights_N)[:, 0] / lengths_P2[:, 0]
    reference_P2 = None if tokens.reference_N is None else sums(tokens.reference_N)
    losses_P = pair_loss(
        *(new_P2[:, 0], new_P2[:, 1], lengths_P2, stage.loss), reference_P2=reference_P2, beta=stage.beta
    )
    with torch.no_grad():
        rewards_P2 = implicit_rewards(new_P2, reference_P2, stage.beta)
        ahead_P = rewards_P2[:, 0] - rewards_P2[:, 1]
        weight = tokens.weights_N.sum()  # what the reported sums are divided by
        found = {"margin": weight * (weights_P * ahead_P).sum(), "accuracy": weight * (weights_P * (ahead_P > 0)).sum()}
    return (weights_P * losses_P).sum(), found
