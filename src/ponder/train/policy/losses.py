"""Rewards into advantages, and the loss of policy optimisation: pure functions on tensors.

Axes: P prompts, S samples of each; M trajectories; N sampled tokens, one flat list, whatever rows they stood in. The
field's variants differ in four choices: what a reward is compared with (`group_advantages`), how a token is weighted
(`token_weights`), what a ratio is taken over, and where it is clipped (`policy_loss`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_EPS = 1e-4  # beside a group's standard deviation


class Baseline(StrEnum):
    """What a reward is compared with.

    GRPO: the group's mean, in units of its standard deviation (arXiv 2402.03300, section 4.1.2).
    DR_GRPO: the mean alone, so that hard and easy prompts are not scaled up (arXiv 2503.20783, section 3.1).
    RLOO: the mean of the others (arXiv 2402.14740, section 3.2), which leaves the expected gradient as it is.
    """

    GRPO = "grpo"
    DR_GRPO = "dr_grpo"
    RLOO = "rloo"


class Weighting(StrEnum):
    """How much each sampled token counts. The weights of an update sum to 1, but for CONSTANT.

    TRAJECTORY: every answer the same, shared by its tokens (GRPO, arXiv 2402.03300, equation 3).
    TOKEN: every token the same, so that long answers count for more (DAPO, arXiv 2503.14476, section 3.3).
    CONSTANT: every token 1 over (answers x longest answer allowed), which leaves no bias for length (Dr. GRPO, arXiv
        2503.20783, section 3.1).
    """

    TRAJECTORY = "trajectory"
    TOKEN = "token"
    CONSTANT = "constant"


class Ratio(StrEnum):
    """What importance ratios are taken over.

    TOKEN: each token (PPO, GRPO).
    SEQUENCE: a whole trajectory, the geometric mean of its tokens' (GSPO, arXiv 2507.18071, equation 7).
    """

    TOKEN = "token"
    SEQUENCE = "sequence"


def group_advantages(rewards_PS: Tensor, baseline: Baseline) -> Tensor:
    """What each answer of a group is worth beside the others: advantages_PS, float32.

    A group whose rewards are all equal gets zeros: it teaches nothing.

    Raises ValueError for fewer than two samples, or rewards that are not finite.
    """
    if rewards_PS.dim() != 2 or rewards_PS.shape[1] < 2:
        raise ValueError(
            f"rewards must have the shape (P, S) with at least 2 samples in a group (got {tuple(rewards_PS.shape)})"
        )
    rewards_PS = rewards_PS.float()
    if not rewards_PS.isfinite().all():
        raise ValueError("every reward must be finite: mend the grader")
    centred_PS = rewards_PS - rewards_PS.mean(1, keepdim=True)
    # The mean of equal numbers may be off by a rounding error, which a small deviation would magnify.
    centred_PS = centred_PS.masked_fill(flat(rewards_PS)[:, None], 0)
    if baseline is Baseline.GRPO:
        return centred_PS / (rewards_PS.std(1, keepdim=True) + _EPS)
    if baseline is Baseline.RLOO:
        samples = rewards_PS.shape[1]
        return centred_PS * (samples / (samples - 1))
    return centred_PS


def step_advantages(
    rewards: Sequence[Sequence[tuple[int, float]]], lengths: Sequence[int]
) -> list[NDArray[np.float32]]:
    """What each id of the answers of one group is worth by the scores of their steps (process supervision, arXiv
    2402.03300, section 4.1.3): the sum, over the steps that end at it or later, of the scores less the group's mean, in
    units of its deviation. Zeros where all scores are equal.

    rewards: of each answer, (place of a step's last id, its score).
    lengths: of each answer, in ids.
    """
    scores = np.array([score for own in rewards for _, score in own], np.float64)
    deviation = scores.std() if len(scores) else 0.0
    made = []
    for own, length in zip(rewards, lengths, strict=True):
        at_N = np.zeros(length, np.float64)
        for place, score in own if deviation > 0 else ():
            at_N[place] += (score - scores.mean()) / (deviation + _EPS)
        made.append(at_N[::-1].cumsum()[::-1].astype(np.float32))
    return made


def flat(rewards_PS: Tensor) -> Tensor:
    """Which groups have one reward for all samples, (P,) bool: those that dynamic sampling (arXiv 2503.14476, section
    3.2) replaces."""
    return (rewards_PS == rewards_PS[:, :1]).all(1)


def overlong_penalty(lengths_N: Tensor, limit: int, margin: int) -> Tensor:
    """What to add to the rewards of answers of these lengths, in [-1, 0] (DAPO, arXiv 2503.14476, equation 13).

    It is 0 up to limit - margin, then falls in a straight line, and is -1 from the limit on. With margin 0 it is 0.
    Raises ValueError for a margin outside [0, limit].
    """
    if not 0 <= margin <= limit:
        raise ValueError(f"margin must be from 0 to the limit {limit} (got {margin})")
    if margin == 0:
        return torch.zeros_like(lengths_N, dtype=torch.float32)
    return ((limit - margin - lengths_N.float()) / margin).clamp(-1, 0)


@dataclass(frozen=True, slots=True)
class PolicyStats:
    """Sums over the batch's tokens, by their weights, as tensors without gradient.

    clipped: the weight whose gradient the clip has stopped.
    kl: the k3 estimate of KL(old | new).
    reference_kl: that of KL(new | reference).
    """

    clipped: Tensor
    kl: Tensor
    reference_kl: Tensor


def token_weights(lengths_M: Tensor, weighting: Weighting, longest: int) -> Tensor:
    """The weight of each token of a trajectory, (M,).

    lengths_M: sampled tokens of each trajectory of one update, over all its segments. Micro-batches then add up.
    longest: the largest length allowed, for CONSTANT.
    """
    lengths_M = lengths_M.float()
    if weighting is Weighting.TRAJECTORY:
        return 1 / (len(lengths_M) * lengths_M.clamp_min(1))
    if weighting is Weighting.TOKEN:
        return torch.full_like(lengths_M, 1 / max(1.0, float(lengths_M.sum())))
    return torch.full_like(lengths_M, 1 / (len(lengths_M) * longest))


def policy_loss(
    new_N: Tensor,
    old_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    ratio: Ratio = Ratio.TOKEN,
    trajectories_N: Tensor | None = None,
    reference_N: Tensor | None = None,
    kl: float = 0.0,
) -> tuple[Tensor, PolicyStats]:
    """The clipped surrogate (PPO, arXiv 1707.06347, equation 7) to be minimised, a scalar, and its statistics.

    new_N: log-probabilities under the weights that train, with gradient.
    old_N: under those that sampled.
    weights_N: `token_weights` of each token's trajectory, 0 for what was not sampled.
    clip_low, clip_high: ratios beyond 1 - clip_low and 1 + clip_high gain nothing more (they differ in DAPO's
        clip-higher).
    trajectories_N: needed for Ratio.SEQUENCE; numbers from 0, all tokens of a trajectory in this call.
    reference_N, kl: the k3 penalty (arXiv 2402.03300, equation 4) for leaving a reference model.
    Raises ValueError for Ratio.SEQUENCE without trajectories_N.
    """
    difference_N = new_N - old_N
    if ratio is Ratio.SEQUENCE:
        if trajectories_N is None:
            raise ValueError("the ratio over sequences needs trajectories_N: give it")
        ratio_N = _mean_within(difference_N, trajectories_N, weights_N != 0).exp()
    else:
        ratio_N = difference_N.exp()
    gain_N = ratio_N * advantages_N
    bounded_N = ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    loss = -(weights_N * torch.minimum(gain_N, bounded_N)).sum()
    reference_kl = new_N.new_zeros(())
    if reference_N is not None:
        reference_kl = (weights_N * k3(new_N, reference_N)).sum()
        loss = loss + kl * reference_kl
    with torch.no_grad():
        clipped = (weights_N * (bounded_N < gain_N)).sum()
        moved = (weights_N * k3(old_N, new_N)).sum()
    return loss, PolicyStats(clipped=clipped, kl=moved, reference_kl=reference_kl.detach())


def k3(sampled_N: Tensor, other_N: Tensor) -> Tensor:
    """An estimate of KL(sampled | other) at each token that is never negative: r - 1 - log r, r the ratio other over
    sampled (Schulman, "Approximating KL divergence", 2020)."""
    log_ratio_N = other_N - sampled_N
    return log_ratio_N.exp() - 1 - log_ratio_N


def _mean_within(values_N: Tensor, groups_N: Tensor, counted_N: Tensor) -> Tensor:
    """Each value replaced by the mean of the counted ones in its group."""
    count = int(groups_N.max()) + 1 if len(groups_N) else 0
    counts_N = counted_N.to(values_N.dtype)
    sums_M = values_N.new_zeros(count).index_add(0, groups_N, values_N * counts_N)
    sizes_M = values_N.new_zeros(count).index_add(0, groups_N, counts_N)
    return (sums_M / sizes_M.clamp_min(1))[groups_N]
