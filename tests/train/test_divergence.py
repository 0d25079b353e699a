"""Divergences of whole vocabularies: values by hand, in pieces as in one, and of a teacher's likeliest ids."""

import pytest
import torch

from ponder.train.policy import divergence as module
from ponder.train.policy.divergence import Divergence, divergence, linear_divergence, top_divergence
from ponder.train.policy.losses import k3

TEACHER, STUDENT = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.5, 0.3, 0.2]]).log()


@pytest.mark.parametrize(
    ("kind", "share", "expected"),
    [
        (Divergence.FORWARD, 0.5, 0.0851228),
        (Divergence.REVERSE, 0.5, 0.0920329),
        (Divergence.JSD, 0.1, 0.00769469),
        (Divergence.JSD, 0.5, 0.0219012),
        (Divergence.JSD, 0.9, 0.00818476),
    ],
)
def test_values_by_hand(kind: Divergence, share: float, expected: float) -> None:
    assert float(divergence(STUDENT, TEACHER, kind, share=share)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_a_mixture_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share must be above 0"):
        divergence(STUDENT, TEACHER, Divergence.JSD, share=share)


@pytest.mark.parametrize("kind", Divergence)
def test_in_pieces_it_is_what_it_is_at_once(kind: Divergence, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(7, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    teacher_x, teacher_weight, weights = torch.randn(7, 3), torch.randn(11, 3), torch.rand(7)
    whole = (weights * divergence(x @ weight.t(), teacher_x @ teacher_weight.t(), kind)).sum()
    exact = torch.autograd.grad(whole, (x, weight))
    monkeypatch.setattr(module, "rows_at_once", lambda vocabulary, device: 3)
    pieces = linear_divergence(x, weight, teacher_x, teacher_weight, weights, kind)
    torch.testing.assert_close(pieces, whole)
    for made, expected in zip(torch.autograd.grad(2 * pieces, (x, weight)), exact, strict=True):
        torch.testing.assert_close(made, 2 * expected)


@pytest.mark.parametrize("kind", Divergence)
def test_a_student_that_is_its_teacher_learns_nothing(kind: Divergence) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 5, requires_grad=True), torch.randn(9, 5, requires_grad=True)
    loss = linear_divergence(x, weight, x.detach(), weight.detach(), torch.ones(4), kind)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    for gradient in torch.autograd.grad(loss, (x, weight)):
        assert float(gradient.abs().max()) < 1e-6


def test_the_rest_of_a_teachers_mass_is_one_event() -> None:
    ids = torch.tensor([[0, 1]])
    made = float(top_divergence(STUDENT, ids, TEACHER[:, :2]))
    rest = (
        0.7 * torch.log(torch.tensor(1.4)) + 0.2 * torch.log(torch.tensor(2 / 3)) + 0.1 * torch.log(torch.tensor(0.5))
    )
    assert made == pytest.approx(float(rest), abs=1e-6)
    everything = top_divergence(STUDENT, torch.tensor([[0, 1, 2]]), TEACHER)
    assert float(everything) == pytest.approx(0.0851228, abs=1e-6)
    # Kept entries scaled up to 1 would give this instead, and pull the rest of the student's mass to nothing.
    scaled = TEACHER[:, :2] - TEACHER[:, :2].logsumexp(1)
    assert float((scaled.exp() * (scaled - STUDENT[:, :2])).sum()) == pytest.approx(0.276958, abs=1e-6)


def test_of_equal_distributions_it_is_nothing_and_never_less() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(20, 30).log_softmax(-1)
    top = teacher.topk(8)
    student = teacher.clone().requires_grad_()
    same = top_divergence(student, top.indices, top.values)
    assert float(same.detach().abs().max()) < 1e-6
    (gradient,) = torch.autograd.grad(same.sum(), student)
    assert float(gradient.abs().max()) < 1e-6
    other = torch.randn(20, 30)
    known, full = top_divergence(other, top.indices, top.values), divergence(other, teacher, Divergence.FORWARD)
    assert bool((known >= 0).all())
    assert bool((known <= full + 1e-6).all())


def test_stored_in_half_precision_the_mass_may_exceed_one() -> None:
    values = torch.tensor([[0.9, 0.1002]]).log().half()
    made = top_divergence(torch.randn(1, 6), torch.tensor([[3, 2]]), values)
    assert bool(made.isfinite().all())


def test_estimates_of_a_divergence_by_hand() -> None:
    gap = torch.tensor([0.3, -0.2])  # log-probability when sampled minus the other's
    assert (gap.square() / 2).tolist() == pytest.approx([0.045, 0.02])
    assert k3(gap, torch.zeros(2)).tolist() == pytest.approx([0.040818, 0.021403], abs=1e-6)
