"""A critic's advantages and returns by hand; what was not sampled is passed over; whitening; adaptive KL."""

import pytest
import torch

from ponder.train.policy.values import (
    adapted_kl,
    advantages_and_returns,
    explained_variance,
    token_rewards,
    value_loss,
    whiten,
)

ALL = torch.ones(3, dtype=torch.bool)
REWARDS, VALUES = torch.tensor([-0.1, 0.2, 1.0]), torch.tensor([0.5, 0.4, 0.3])


def test_advantages_by_hand() -> None:
    advantages, returns = advantages_and_returns(REWARDS, VALUES, ALL, discount=1.0, trace=0.95)
    assert advantages.tolist() == pytest.approx([0.52675, 0.765, 0.7])
    assert returns.tolist() == pytest.approx([1.02675, 1.165, 1.0])
    assert whiten(advantages, ALL).tolist() == pytest.approx([-1.11377, 0.82078, 0.29299], abs=1e-5)


def test_a_score_after_the_end_token_would_give_other_advantages() -> None:
    """Where TRL 1.12 puts it: one place later, with a value there."""
    rewards, values = torch.tensor([-0.1, 0.2, 0.0, 1.0]), torch.tensor([0.5, 0.4, 0.3, 0.25])
    advantages, _ = advantages_and_returns(rewards, values, torch.ones(4, dtype=torch.bool))
    assert advantages.tolist() == pytest.approx([0.492906, 0.729375, 0.6625, 0.75], abs=1e-6)


def test_a_trace_of_one_is_all_that_comes_less_the_value() -> None:
    advantages, returns = advantages_and_returns(REWARDS, VALUES, ALL, trace=1.0)
    assert returns.tolist() == pytest.approx([1.1, 1.2, 1.0])
    assert (advantages + VALUES).tolist() == pytest.approx(returns.tolist())


def test_a_tools_tokens_are_passed_over() -> None:
    sampled = torch.tensor([True, False, False, True, True, False])
    rewards, values = torch.full((6,), torch.nan), torch.full((6,), torch.nan)
    rewards[sampled], values[sampled] = REWARDS, VALUES
    with_tool = advantages_and_returns(rewards, values, sampled, discount=0.9)
    without = advantages_and_returns(REWARDS, VALUES, ALL, discount=0.9)
    for one, other in zip(with_tool, without, strict=True):
        assert one[sampled].tolist() == other.tolist()
        assert not one[~sampled].any()


def test_the_score_stands_at_the_last_sampled_token() -> None:
    sampled = torch.tensor([True, False, True, False])
    kl = torch.tensor([0.3, torch.nan, -0.2, torch.nan])
    assert token_rewards(1.0, kl, sampled, 0.5).tolist() == pytest.approx([-0.15, 0, 1.1, 0])
    with pytest.raises(ValueError, match="a sampled token"):
        token_rewards(1.0, kl, torch.zeros(4, dtype=torch.bool), 0.5)


def test_whitening_reads_only_what_counts() -> None:
    values = torch.tensor([1.0, 99.0, 3.0, 2.0])
    counted = torch.tensor([True, False, True, True])
    assert whiten(values, counted).tolist() == pytest.approx([-1, 0, 1, 0])
    assert whiten(values, counted, shift=False).tolist() == pytest.approx([1, 0, 3, 2])
    assert whiten(values, torch.tensor([True, False, False, False])).tolist() == [0, 0, 0, 0]


def test_a_value_that_went_too_far_gains_nothing_more() -> None:
    old, returns, weights = torch.zeros(2), torch.tensor([1.0, 1.0]), torch.full((2,), 0.5)
    new = torch.tensor([0.1, 0.9], requires_grad=True)
    loss = value_loss(new, old, returns, weights, clip=0.2)
    assert float(loss.detach()) == pytest.approx(0.5 * 0.5 * (0.9**2 + 0.8**2))
    loss.backward()
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([-0.45, 0])
    free = value_loss(new, old, returns, weights, clip=0.0)
    assert float(free.detach()) == pytest.approx(0.25 * (0.9**2 + 0.1**2))


def test_how_good_a_critic_is() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1)
    assert explained_variance(torch.zeros(3), returns) == pytest.approx(0)
    assert explained_variance(torch.zeros(3), torch.ones(3)) == 0


def test_the_penalty_follows_what_was_seen() -> None:
    assert adapted_kl(0.1, 12.0, target=6, horizon=1000, answers=100) == pytest.approx(0.102)
    assert adapted_kl(0.1, 6.0, target=6, horizon=1000, answers=100) == pytest.approx(0.1)
    assert adapted_kl(0.1, 5.4, target=6, horizon=1000, answers=100) == pytest.approx(0.099)
    assert adapted_kl(0.1, 0.0, target=6, horizon=1000, answers=100) == pytest.approx(0.098)
