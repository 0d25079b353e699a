"""What a critic's values make of rewards: advantages, returns, and the loss of the values. Pure functions on tensors.

Axis N: the tokens of one trajectory in the order in which they came, over all its segments. The value of a token is
the critic's estimate at the position that predicts it: of what is still to come before the token is chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(score: float, kl_N: Tensor, sampled_N: Tensor, coefficient: float) -> Tensor:
    """rewards_N: the score at the last sampled token, less coefficient x the KL estimate of each sampled token.

    kl_N: k1, log-probability when sampled minus the reference's; not read where a token was not sampled.
    The score belongs to the last token itself, not to the place after it. Raises ValueError where nothing was sampled.
    """
    if not sampled_N.any():
        raise ValueError("a trajectory must have a sampled token to be rewarded for")
    rewards_N = torch.where(sampled_N, -coefficient * kl_N, 0.0)
    rewards_N[int(sampled_N.nonzero()[-1])] += score
    return rewards_N


def advantages_and_returns(
    rewards_N: Tensor, values_N: Tensor, sampled_N: Tensor, *, discount: float = 1.0, trace: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv 1506.02438, equation 16): (advantages_N, returns_N), float32.

    Tokens that were not sampled are not actions: the sum runs past them as if they were not there, so that a tool's
    result between two calls neither discounts nor adds. Both results are 0 there. The trajectory ends with its last
    token: nothing is worth anything after it.
    """
    rewards, values = rewards_N[sampled_N].float(), values_N[sampled_N].float()
    following = torch.cat((values[1:], values.new_zeros(1)))
    errors = rewards + discount * following - values
    advantages = torch.empty_like(errors)
    carried = errors.new_zeros(())
    for index in range(len(errors) - 1, -1, -1):
        carried = errors[index] + discount * trace * carried
        advantages[index] = carried
    advantages_N = values_N.new_zeros(values_N.shape, dtype=torch.float32)
    returns_N = advantages_N.clone()
    advantages_N[sampled_N] = advantages
    returns_N[sampled_N] = advantages + values
    return advantages_N, returns_N


def whiten(values_N: Tensor, counted_N: Tensor, *, shift: bool = True) -> Tensor:
    """The counted values scaled to the standard deviation 1 (unbiased variance) and, with `shift`, to mean 0.

    What is not counted is 0. Fewer than two counted values are only shifted.
    """
    counted = values_N[counted_N].float()
    mean = counted.mean() if len(counted) else counted.sum()
    scale = (counted.var() + 1e-8).rsqrt() if len(counted) > 1 else counted.new_ones(())
    made_N = values_N.new_zeros(values_N.shape, dtype=torch.float32)
    made_N[counted_N] = (counted - mean) * scale + (0 if shift else mean)
    return made_N


def value_loss(new_N: Tensor, old_N: Tensor, returns_N: Tensor, weights_N: Tensor, *, clip: float) -> Tensor:
    """Half the squared error of the values, a scalar; a value that moved more than `clip` from what it was when sampled
    gains nothing more (arXiv 1707.06347's code). clip 0: not clipped."""
    errors_N = (new_N - returns_N).square()
    if clip:
        bounded_N = old_N + (new_N - old_N).clamp(-clip, clip)
        errors_N = torch.maximum(errors_N, (bounded_N - returns_N).square())
    return 0.5 * (weights_N * errors_N).sum()


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 one that only knows the mean, below 0 worse.
    0 where the returns are all equal."""
    spread = float(returns.var()) if len(returns) > 1 else 0.0
    return 1 - float((returns - values).var()) / spread if spread > 1e-12 else 0.0


def adapted_kl(coefficient: float, kl: float, *, target: float, horizon: float, answers: int) -> float:
    """The coefficient for the next step, raised where KL is above its target, lowered where it is below.

    arXiv 1909.08593, section 2.2: proportional control, at most 20% off the target is seen.
    kl: of the last step, nats for each answer.
    horizon: in answers; over that many of them the coefficient may change by a fifth.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * answers / horizon)
