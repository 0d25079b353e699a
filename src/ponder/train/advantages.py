"""What a group of answers to one prompt says about each of them: rewards in, advantages out.

Axes: P prompts, S samples of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ponder.train.recipe import Baseline

_EPS = 1e-4


def group_advantages(rewards_PS: Tensor, baseline: Baseline) -> Tensor:
    """advantages_PS, float32. A group whose rewards are all equal gets zeros: it teaches nothing.

    Raises ValueError for fewer than two samples, or rewards that are not finite.
    """
    if rewards_PS.dim() != 2 or rewards_PS.shape[1] < 2:
        raise ValueError(f"rewards of shape {tuple(rewards_PS.shape)}: groups need at least 2 samples, (P, S)")
    rewards_PS = rewards_PS.float()
    if not rewards_PS.isfinite().all():
        raise ValueError("a reward is not finite")
    centred_PS = rewards_PS - rewards_PS.mean(1, keepdim=True)
    # The mean of equal numbers may be off by a rounding error, which a small deviation would blow up.
    centred_PS = centred_PS.masked_fill(flat(rewards_PS)[:, None], 0)
    if baseline is Baseline.GRPO:
        return centred_PS / (rewards_PS.std(1, keepdim=True) + _EPS)
    if baseline is Baseline.RLOO:
        samples = rewards_PS.shape[1]
        return centred_PS * (samples / (samples - 1))
    return centred_PS


def flat(rewards_PS: Tensor) -> Tensor:
    """Which groups have one reward for all samples, (P,) bool: what dynamic sampling (arXiv 2503.14476, section 3.2)
    draws anew."""
    return (rewards_PS == rewards_PS[:, :1]).all(1)


def overlong_penalty(lengths_N: Tensor, limit: int, margin: int) -> Tensor:
    """What to add to the reward of an answer of so many tokens, in [-1, 0] (DAPO, arXiv 2503.14476, equation 13): none
    up to limit - margin, then falling in a straight line, -1 from the limit on. margin 0: none at all."""
    if not 0 <= margin <= limit:
        raise ValueError(f"margin is {margin}: allowed are 0 to the limit, {limit}")
    if margin == 0:
        return torch.zeros_like(lengths_N, dtype=torch.float32)
    return ((limit - margin - lengths_N.float()) / margin).clamp(-1, 0)
