"""The losses of preferences: pure functions on tensors. Axes: M answers, G rankings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RankingStats:
    """Sums over the rankings of a batch, as tensors without gradient.

    pairs: how many pairs of answers differ in rank, each as a share of its ranking's pairs times the ranking's weight.
    right: those of them whose better answer has the higher score; equal scores count half.
    """

    pairs: Tensor
    right: Tensor


def ranking_loss(
    scores_M: Tensor, groups_M: Tensor, ranks_M: Tensor, margins_G: Tensor, weights_G: Tensor
) -> tuple[Tensor, RankingStats]:
    """The Plackett-Luce loss of rankings, a scalar to be minimised: the sum over rankings of weight x loss.

    The loss of a ranking is the mean over its stages of log(e^s_i + sum of e^(s_j + margin) over the answers j that are
    ranked worse) - s_i. There is a stage for each answer i that some other is worse than. Ties are not compared. For
    two answers it is Bradley-Terry's -log sigmoid(better - worse - margin).

    groups_M: the ranking of each answer, numbered from 0.
    ranks_M: of each answer in its ranking, 1 is the best.
    Divide by the sum of the weights of an update, so that its micro-batches add up.
    """
    worse_MM = (groups_M[:, None] == groups_M[None]) & (ranks_M[None] > ranks_M[:, None])
    stages_M = worse_MM.any(1)
    margins_M = margins_G[groups_M]
    others_MM = (scores_M[None] + margins_M[:, None]).masked_fill(~worse_MM, float("-inf"))
    lost_M = torch.cat([scores_M[:, None], others_MM], 1).logsumexp(1) - scores_M
    zeros_G = scores_M.new_zeros(len(weights_G))
    stages_G = zeros_G.index_add(0, groups_M, stages_M.to(scores_M.dtype))
    share_M = (weights_G / stages_G.clamp_min(1))[groups_M] * stages_M
    with torch.no_grad():
        ahead_MM = scores_M[:, None] - scores_M[None]
        right_M = (((ahead_MM > 0) + 0.5 * (ahead_MM == 0)) * worse_MM).sum(1)
        pairs_M = worse_MM.sum(1).to(scores_M.dtype)
        per_pair_M = (weights_G / zeros_G.index_add(0, groups_M, pairs_M).clamp_min(1))[groups_M]
        stats = RankingStats(pairs=(per_pair_M * pairs_M).sum(), right=(per_pair_M * right_M).sum())
    return (share_M * lost_M).sum(), stats


def centring_loss(scores_M: Tensor, groups_M: Tensor, weights_G: Tensor) -> Tensor:
    """The sum over rankings of weight x (2 x mean score)^2, which keeps scores near 0. For two answers it is TRL's
    (better + worse)^2 (its `center_rewards_coefficient`)."""
    zeros_G = scores_M.new_zeros(len(weights_G))
    sums_G = zeros_G.index_add(0, groups_M, scores_M)
    counts_G = zeros_G.index_add(0, groups_M, torch.ones_like(scores_M))
    return (weights_G * (2 * sums_G / counts_G) ** 2).sum()
