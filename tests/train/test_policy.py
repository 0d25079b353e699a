"""Advantages and policy losses, against small cases computed by hand and against each other."""

import math

import pytest
import torch

from ponder.train.policy.losses import (
    Baseline,
    Ratio,
    Weighting,
    flat,
    group_advantages,
    k3,
    overlong_penalty,
    policy_loss,
    token_weights,
)

CLIP = {"clip_low": 0.2, "clip_high": 0.2}


def test_advantages_of_a_group_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    deviation = math.sqrt(1 / 3)  # of (1, 0, 0, 1), with n - 1
    grpo = group_advantages(rewards, Baseline.GRPO)
    assert grpo[0].tolist() == pytest.approx(
        [0.5 / deviation, -0.5 / deviation, -0.5 / deviation, 0.5 / deviation], rel=1e-3
    )
    assert group_advantages(rewards, Baseline.DR_GRPO)[1].tolist() == pytest.approx([-0.25, -0.25, -0.25, 0.75])
    # Leave one out: 1 against the mean 0 of the others; 0 against the mean 1/3.
    assert group_advantages(rewards, Baseline.RLOO)[1].tolist() == pytest.approx([-1 / 3, -1 / 3, -1 / 3, 1.0])


@pytest.mark.parametrize("baseline", Baseline)
def test_a_group_of_equal_rewards_teaches_nothing(baseline):
    rewards = torch.full((2, 7), 0.1)
    rewards[1, 0] = 0.9
    advantages = group_advantages(rewards, baseline)
    assert advantages[0].tolist() == [0.0] * 7
    assert float(advantages[1].sum()) == pytest.approx(0, abs=1e-5)
    assert flat(rewards).tolist() == [True, False]


@pytest.mark.parametrize("rewards", [torch.ones(3, 1), torch.ones(4), torch.tensor([[0.0, math.nan]])])
def test_groups_that_say_nothing_are_refused(rewards):
    with pytest.raises(ValueError, match="reward"):
        group_advantages(rewards, Baseline.GRPO)


def test_overlong_answers_lose_in_a_straight_line():
    lengths = torch.tensor([10, 80, 90, 100, 130])
    assert overlong_penalty(lengths, 100, 20).tolist() == pytest.approx([0, 0, -0.5, -1, -1])
    assert overlong_penalty(lengths, 100, 0).tolist() == [0] * 5
    with pytest.raises(ValueError, match=r"margin must be .*got 101"):
        overlong_penalty(lengths, 100, 101)


def test_weights_of_tokens_by_hand():
    lengths = torch.tensor([2, 8])
    assert token_weights(lengths, Weighting.TRAJECTORY, 10).tolist() == pytest.approx([1 / 4, 1 / 16])
    assert token_weights(lengths, Weighting.TOKEN, 10).tolist() == pytest.approx([1 / 10, 1 / 10])
    assert token_weights(lengths, Weighting.CONSTANT, 10).tolist() == pytest.approx([1 / 20, 1 / 20])


def spread(lengths, weighting=Weighting.TRAJECTORY, longest=16):
    """Weights and trajectory numbers of each token."""
    trajectories = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return token_weights(torch.tensor(lengths), weighting, longest)[trajectories], trajectories


def test_the_clip_stops_what_goes_too_far_and_nothing_else():
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    new = ratios.log().requires_grad_()
    weights = torch.full((5,), 0.2)
    loss, stats = policy_loss(new, torch.zeros(5), advantages, weights, clip_low=0.2, clip_high=0.28)
    # min(r A, clip(r) A): 1.28, -1.5, 0.5, -0.8, 2.2
    assert float(loss.detach()) == pytest.approx(-0.2 * (1.28 - 1.5 + 0.5 - 0.8 + 2.2))
    assert float(stats.clipped) == pytest.approx(0.4)
    loss.backward()
    assert new.grad.tolist() == pytest.approx([0.0, 0.3, -0.1, 0.0, -0.44])


def test_on_policy_the_gradient_is_that_of_the_advantage_weighted_log_likelihood():
    new = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantages, weights = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([0.25, 0.25, 0.5])
    loss, stats = policy_loss(new, new.detach(), advantages, weights, **CLIP)
    loss.backward()
    assert new.grad.tolist() == pytest.approx((-advantages * weights).tolist())
    assert float(stats.kl) == float(stats.clipped) == 0


def test_a_ratio_over_sequences_is_the_geometric_mean():
    new = torch.tensor([0.3, -0.1, 0.05], requires_grad=True)
    weights, trajectories = spread([2, 1])
    advantages = torch.tensor([1.0, 1.0, -1.0])
    loss, _ = policy_loss(
        new, torch.zeros(3), advantages, weights, ratio=Ratio.SEQUENCE, trajectories_N=trajectories, **CLIP
    )
    assert float(loss.detach()) == pytest.approx(-(math.exp(0.1) - math.exp(0.05)) / 2, rel=1e-5)
    loss.backward()
    # d/dx of -(1/2) exp((x + y) / 2) is half of the ratio's share.
    assert new.grad.tolist() == pytest.approx([-math.exp(0.1) / 4] * 2 + [math.exp(0.05) / 2])
    with pytest.raises(ValueError, match="trajectories_N"):
        policy_loss(new, new.detach(), advantages, weights, ratio=Ratio.SEQUENCE, **CLIP)


@pytest.mark.parametrize("ratio", Ratio)
def test_tokens_that_were_not_sampled_change_nothing(ratio):
    """Where rows are compiled, prompts and padding come along with weight 0."""
    torch.manual_seed(0)
    new, old, advantages = torch.randn(6), torch.randn(6), torch.tensor([1.0, 1.0, 0.0, -1.0, 0.0, 0.0])
    weights, trajectories = torch.tensor([0.3, 0.3, 0.0, 0.4, 0.0, 0.0]), torch.tensor([0, 0, 0, 1, 1, 0])
    sampled = weights > 0
    told = [
        policy_loss(
            *(each[kept] for each in (new, old, advantages, weights)),
            ratio=ratio,
            trajectories_N=trajectories[kept],
            **CLIP,
        )
        for kept in (sampled, torch.ones_like(sampled))
    ]
    assert float(told[0][0]) == pytest.approx(float(told[1][0]), rel=1e-6)
    assert float(told[0][1].clipped) == pytest.approx(float(told[1][1].clipped), rel=1e-6)


def test_leaving_the_reference_costs():
    new = torch.tensor([-1.0, -1.0], requires_grad=True)
    reference = torch.tensor([-1.0, -2.0])
    weights = torch.tensor([0.5, 0.5])
    zero = torch.zeros(2)
    loss, stats = policy_loss(new, new.detach(), zero, weights, reference_N=reference, kl=0.1, **CLIP)
    expected = 0.5 * (math.exp(-1) - 1 + 1)
    assert float(stats.reference_kl) == pytest.approx(expected)
    assert float(loss.detach()) == pytest.approx(0.1 * expected)
    loss.backward()
    assert new.grad[1] > 0
    assert float(new.grad[0]) == 0


def test_k3_is_never_negative_and_right_on_average():
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(6, generator=generator).softmax(0) for _ in range(2))
    drawn = torch.multinomial(p, 200_000, replacement=True, generator=generator)
    estimates = k3(p.log()[drawn], q.log()[drawn])
    assert float(estimates.min()) >= -1e-6
    assert float(estimates.mean()) == pytest.approx(float((p * (p / q).log()).sum()), rel=0.02)


@pytest.mark.parametrize("ratio", Ratio)
@pytest.mark.parametrize("weighting", Weighting)
def test_micro_batches_add_up_to_the_batch(weighting, ratio):
    generator = torch.Generator().manual_seed(1)
    lengths = [3, 7, 1, 5]
    weights, trajectories = spread(lengths, weighting)
    new, old = (torch.randn(16, generator=generator) * 0.3 for _ in range(2))
    advantages = torch.randn(4, generator=generator)[trajectories]

    def gradient(pieces):
        leaf = new.clone().requires_grad_()
        for begin, end, first in pieces:
            part = slice(begin, end)
            loss, _ = policy_loss(
                *(leaf[part], old[part], advantages[part], weights[part]),
                ratio=ratio,
                trajectories_N=trajectories[part] - first,
                **CLIP,
            )
            loss.backward()
        return leaf.grad

    torch.testing.assert_close(gradient([(0, 16, 0)]), gradient([(0, 10, 0), (10, 16, 2)]))
