"""Losses of preferences: values by hand, gradients, micro-batches."""

import math

import pytest
import torch
from torch import Tensor

from ponder.train.policy.direct import (
    Preference,
    implicit_rewards,
    kto_baseline,
    kto_loss,
    log_one_minus_exp,
    pair_loss,
)

# The better answer has 4 tokens, the worse one 5.
CHOSEN, REJECTED = torch.tensor([-10.0]), torch.tensor([-12.0])
REFERENCE, LENGTHS = torch.tensor([[-11.0, -11.0]]), torch.tensor([[4.0, 5.0]])


def loss(kind: Preference, chosen: Tensor = CHOSEN, **options: float) -> Tensor:
    reference = REFERENCE if kind.has_reference else None
    return pair_loss(chosen, REJECTED, LENGTHS, kind, reference_P2=reference, **options)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (Preference.SIGMOID, {"beta": 0.1}, 0.598139),
        (Preference.SIGMOID, {"beta": 0.5}, 0.313262),
        (Preference.SIGMOID, {"beta": 0.1, "smoothing": 0.1}, 0.618139),
        (Preference.ROBUST, {"beta": 0.1, "smoothing": 0.1}, 0.573139),
        (Preference.HINGE, {"beta": 0.1}, 0.8),
        (Preference.IPO, {"beta": 0.1}, 20.7025),
        (Preference.IPO_SUM, {"beta": 0.1}, 9.0),
        (Preference.SIGMOID_NORM, {"beta": 0.1}, 0.670900),
        (Preference.SIMPO, {"beta": 2.0, "gamma": 0.5}, 1.103186),
        (Preference.ORPO, {"beta": 0.1}, 2.5 + 0.1 * math.log1p(math.exp(0.109449))),
    ],
)
def test_values_by_hand(kind: Preference, options: dict[str, float], expected: float) -> None:
    assert float(loss(kind, **options)) == pytest.approx(expected, rel=1e-6)


def test_gradients_by_hand() -> None:
    chosen = CHOSEN.clone().requires_grad_()
    loss(Preference.SIGMOID, chosen, beta=0.1).sum().backward()
    assert float(chosen.grad) == pytest.approx(-0.0450166, abs=1e-7)


def test_answers_that_stand_alone_by_hand() -> None:
    made = kto_loss(torch.tensor([1.0, -1.0]), torch.tensor([True, False]), torch.tensor(0.3), beta=0.1)
    assert made.tolist() == pytest.approx([0.482507, 0.467546], abs=1e-6)
    weighed = kto_loss(
        torch.tensor([1.0, -1.0]), torch.tensor([True, False]), torch.tensor(0.3), beta=0.1, wanted=2.0, unwanted=0.5
    )
    assert (weighed / made).tolist() == pytest.approx([2.0, 0.5])
    assert float(kto_baseline(torch.tensor([0.5, 0.1]))) == pytest.approx(0.3)
    assert float(kto_baseline(torch.tensor([-0.5, 0.1]))) == 0


@pytest.mark.parametrize("kind", [kind for kind in Preference if kind.has_reference and kind is not Preference.KTO])
def test_where_the_policy_is_the_reference_no_side_is_ahead(kind: Preference) -> None:
    made = pair_loss(CHOSEN, REJECTED, LENGTHS, kind, reference_P2=torch.tensor([[-10.0, -12.0]]), beta=0.1)
    plain = {Preference.HINGE: 1.0, Preference.IPO: 25.0, Preference.IPO_SUM: 25.0}
    assert float(made) == pytest.approx(plain.get(kind, math.log(2)), abs=1e-6)


def test_odds_are_finite_where_an_answer_is_certain() -> None:
    x = torch.tensor([-1e-8, -1e-3, -0.5, -1.0, -50.0, 0.0], requires_grad=True)
    made = log_one_minus_exp(x)
    made.sum().backward()
    exact = [math.log(-math.expm1(min(float(each), -1e-7))) for each in x.detach()]
    assert made.tolist() == pytest.approx(exact, rel=1e-5)
    assert x.grad is not None
    assert x.grad.isfinite().all()
    sure = torch.tensor([-1e-8], requires_grad=True)
    pair_loss(sure, REJECTED, LENGTHS, Preference.ORPO).sum().backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def test_the_robust_loss_is_right_on_average_under_wrong_labels() -> None:
    """Over labels that are flipped with probability 0.2 it is the plain loss of the right ones."""
    right, wrong = (
        pair_loss(a, b, LENGTHS, Preference.ROBUST, reference_P2=REFERENCE, smoothing=0.2)
        for a, b in ((CHOSEN, REJECTED), (REJECTED, CHOSEN))
    )
    assert float(0.8 * right + 0.2 * wrong) == pytest.approx(float(loss(Preference.SIGMOID)), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (Preference.KTO, {}, "call kto_loss"),
        (Preference.HINGE, {"smoothing": 0.1}, "smoothing must be 0 for hinge"),
        (Preference.SIGMOID, {"smoothing": 0.5}, "below 0.5"),
        (Preference.SIGMOID, {"gamma": 1.0}, "gamma must be 0 for sigmoid"),
    ],
)
def test_what_does_not_apply_is_refused(kind: Preference, options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loss(kind, **options)


def test_a_reference_is_given_where_there_is_one_and_only_there() -> None:
    with pytest.raises(ValueError, match="sigmoid needs reference_P2"):
        pair_loss(CHOSEN, REJECTED, LENGTHS, Preference.SIGMOID)
    with pytest.raises(ValueError, match="simpo has no reference_P2"):
        pair_loss(CHOSEN, REJECTED, LENGTHS, Preference.SIMPO, reference_P2=REFERENCE)


def test_one_token_reaches_the_closed_form() -> None:
    """With exact labels, the answers of a bandit end where pi ~ reference x exp(reward / beta)."""
    beta, rewards, reference = 0.5, torch.tensor([1.0, 0.4, -0.3]), torch.tensor([0.2, 0.5, 0.3]).log()
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    better, worse = (torch.tensor(side) for side in zip(*pairs, strict=True))
    likely = torch.sigmoid(rewards[better] - rewards[worse])

    def closure() -> Tensor:
        optimizer.zero_grad()
        logprobs = logits.log_softmax(0)
        losses = pair_loss(
            *(logprobs[better], logprobs[worse], torch.ones(len(pairs), 2), Preference.SIGMOID),
            reference_P2=torch.stack((reference[better], reference[worse]), 1),
            beta=beta,
        )
        total = (likely * losses).sum()
        total.backward()
        return total

    optimizer.step(closure)
    expected = (reference + rewards / beta).softmax(0)
    torch.testing.assert_close(logits.detach().softmax(0), expected, atol=1e-4, rtol=0)
    ratios = implicit_rewards(logits.detach().log_softmax(0), reference, beta)
    torch.testing.assert_close(ratios - ratios[0], rewards - rewards[0], atol=1e-3, rtol=0)
