"""The stage `pass_at_k`: policy optimisation of the best of k answers, instead of the mean answer.

An answer is worth what it adds to k - 1 others of its group, so that effort goes into problems that are solved now and
then, and different ways to an answer are kept. PKPO (arXiv 2505.15201), with the baseline of k - 1 samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Annotated

import torch
from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.tasks.turns import Attempt
from ponder.train.policy.gradient import PolicyGradient, SampledTokens
from ponder.train.policy.lessons import Lesson, weigh
from ponder.train.policy.losses import Weighting
from ponder.train.policy.stage import RolloutRecipe, RolloutTraining
from ponder.train.recipe.ranges import Range
from ponder.train.recipe.sections import ModelRecipe


@dataclass(frozen=True, kw_only=True)
class PassAtKRecipe(RolloutRecipe):
    """Reinforcement learning for the best of several answers.

    k: the number of answers whose best one counts.
    """

    k: Annotated[int, Range(2, 1 << 20)] = 4

    name = "pass_at_k"

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        return {
            **super().problems(model, runs=runs),
            f"pass_at_k.k must be at most pass_at_k.samples (got {self.k} and {self.samples})": (self.k > self.samples),
            "pass_at_k.minibatches and epochs must be 1: the gradient holds for the weights that sampled": (
                self.minibatches > 1 or self.epochs > 1
            ),
        }


class PassAtK(RolloutTraining[PassAtKRecipe]):
    """Plain policy gradients (REINFORCE): a step makes one update, from answers of the very weights that it changes."""

    section = PassAtKRecipe

    def lessons(self, stage: PassAtKRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        advantages_M = gains(rewards_PS, stage.k).flatten().tolist()
        trajectories = [each.trajectory for group in groups for each in group]
        lessons = weigh(trajectories, advantages_M, Weighting.CONSTANT, longest=stage.max_tokens)
        return [each for each in lessons if each.teaches]

    def gradient(self, stage: PassAtKRecipe, model: Transformer) -> PolicyGradient:
        return PolicyGradient(reinforce_loss, temperature=stage.temperature)


def gains(rewards_PS: Tensor, k: int) -> Tensor:
    """advantages_PS: k times the expected gain of the largest reward by this answer over k - 1 others of its group.

    Advantage x gradient of the answer's log-probability, averaged over a group, is an unbiased estimate of the gradient
    of pass@k: of the expected largest reward of k answers (arXiv 2505.15201, the "loo - 1" estimator).
    Raises ValueError where k is not in [2, S].
    """
    samples = rewards_PS.shape[1]
    if not 2 <= k <= samples:
        raise ValueError(f"k must be from 2 to {samples}, the number of samples (got {k})")
    others = [[j for j in range(samples) if j != i] for i in range(samples)]
    others_PSO = rewards_PS.float()[:, others].sort(-1).values
    # The chance that the largest of k - 1 of the others is the one of this rank.
    chances_O = torch.tensor([comb(rank, k - 2) / comb(samples - 1, k - 1) for rank in range(samples - 1)])
    return k * ((rewards_PS.float()[..., None] - others_PSO).clamp_min(0) * chances_O).sum(-1)


def reinforce_loss(new_N: Tensor, tokens: SampledTokens) -> tuple[Tensor, Mapping[str, Tensor]]:
    """-advantage x log-probability. A `LogprobLoss`."""
    return -(tokens.weights_N * tokens.advantages_N * new_N).sum(), {}
