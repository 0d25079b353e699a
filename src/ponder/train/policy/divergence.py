"""How far a student's next-token distribution is from a teacher's: whole vocabularies in pieces, or a teacher's top.

Axes: N positions, R of them at a time, V vocabulary, K kept entries. T is the teacher's distribution, S the student's.
Divergences are in nats. Only the student has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from ponder.model.loss import rows_at_once


class Divergence(StrEnum):
    """FORWARD: KL(T | S), which covers all that the teacher does. REVERSE: KL(S | T), which keeps to what the teacher
    surely does. JSD: share x KL(T | M) + (1 - share) x KL(S | M), M = share x T + (1 - share) x S (arXiv 2306.13649,
    equation 1). It vanishes at both ends of the share, where it does not become FORWARD or REVERSE."""

    FORWARD = "forward"
    REVERSE = "reverse"
    JSD = "jsd"


def divergence(student_NV: Tensor, teacher_NV: Tensor, kind: Divergence, *, share: float = 0.5) -> Tensor:
    """divergence_N of distributions that are given as logits or log-probabilities, float32.

    share: the teacher's in JSD's mixture, above 0 and below 1. Raises ValueError otherwise.
    """
    student_NV, teacher_NV = student_NV.float().log_softmax(-1), teacher_NV.float().log_softmax(-1)
    if kind is Divergence.FORWARD:
        return _kl(teacher_NV, student_NV)
    if kind is Divergence.REVERSE:
        return _kl(student_NV, teacher_NV)
    mixture_NV = _mixture(student_NV, teacher_NV, share)
    return share * _kl(teacher_NV, mixture_NV) + (1 - share) * _kl(student_NV, mixture_NV)


LossOfRows = Callable[[Tensor, slice], Tensor]
"""(logits_RV of some rows, which rows they are) → loss_R."""


def linear_divergence(
    x_ND: Tensor,
    weight_VD: Tensor,
    teacher_x_ND: Tensor,
    teacher_weight_VD: Tensor,
    weights_N: Tensor,
    kind: Divergence,
    *,
    share: float = 0.5,
) -> Tensor:
    """Sum over rows of weight x divergence of the logits x W^T of student and teacher, a float32 scalar.

    The two widths D may differ. Where one head is padded further, the ids beyond the other's have no part.
    Raises ValueError for a share outside (0, 1) with JSD.
    """
    vocabulary = min(len(weight_VD), len(teacher_weight_VD))
    teacher_VD = teacher_weight_VD.detach()[:vocabulary].to(teacher_x_ND.dtype)

    def of_rows(logits_RV: Tensor, rows: slice) -> Tensor:
        teacher_RV = teacher_x_ND[rows] @ teacher_VD.t()
        return weights_N[rows] * divergence(logits_RV[:, :vocabulary], teacher_RV, kind, share=share)

    return linear_loss(x_ND, weight_VD, of_rows)


def linear_loss(x_ND: Tensor, weight_VD: Tensor, loss: LossOfRows) -> Tensor:
    """Sum over rows of any loss of the logits x W^T, a float32 scalar.

    As in `linear_cross_entropy`, logits are made for some rows at a time and turned into their gradients at once, so
    that all of them never exist.
    """
    result: Tensor = _LinearLoss.apply(x_ND, weight_VD, loss, torch.is_grad_enabled())
    return result


def top_divergence(student_NV: Tensor, ids_NK: Tensor, teacher_NK: Tensor) -> Tensor:
    """KL(T | S) where of the teacher only the K likeliest ids are known: divergence_N, never negative.

    The rest of the mass is one more event on both sides, so that with K = V it is the full divergence, and equal
    distributions have 0. (Kept entries that are scaled up to 1 instead would pull the student's tail to nothing.)

    student_NV: logits, with gradient.
    ids_NK, teacher_NK: the ids and their log-probabilities.
    """
    student_NV = student_NV.float().log_softmax(-1)
    student_NK = student_NV.gather(1, ids_NK)
    teacher_NK = teacher_NK.float()
    kept_N = (teacher_NK.exp() * (teacher_NK - student_NK)).sum(-1)
    if ids_NK.shape[1] == student_NV.shape[1]:
        return kept_N
    rest_N = 1 - teacher_NK.exp().sum(-1)
    # Rounding of a stored distribution may leave less than nothing; so little teaches nothing.
    rest_N = rest_N.clamp_min(0)
    others_NV = student_NV.scatter(1, ids_NK, -torch.inf)
    tail_N = torch.where(rest_N > 1e-6, rest_N * (rest_N.clamp_min(1e-6).log() - others_NV.logsumexp(-1)), 0)
    return kept_N + tail_N


def _kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    return (p_NV.exp() * (p_NV - q_NV)).sum(-1)


def _mixture(student_NV: Tensor, teacher_NV: Tensor, share: float) -> Tensor:
    """log M."""
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1 (got {share}): use forward or reverse for the ends")
    share_1 = student_NV.new_tensor(share)
    return torch.logaddexp(teacher_NV + share_1.log(), student_NV + (1 - share_1).log())


class _LinearLoss(torch.autograd.Function):
    """Both gradients are ready after the forward pass, up to the factor that the backward pass brings."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, loss: LossOfRows, keep: bool) -> Tensor:
        rounded_VD = weight_VD.detach().to(x_ND.dtype)
        wants_x, wants_weight = (keep and wanted for wanted in ctx.needs_input_grad[:2])
        d_x = torch.empty_like(x_ND) if wants_x else None
        d_weight = torch.zeros_like(weight_VD) if wants_weight else None
        total = torch.zeros((), device=x_ND.device)
        size = rows_at_once(len(weight_VD), x_ND.device)
        for begin in range(0, len(x_ND), size):
            rows = slice(begin, min(begin + size, len(x_ND)))
            logits_RV = (x_ND[rows] @ rounded_VD.t()).float().requires_grad_(wants_x or wants_weight)
            with torch.enable_grad():
                piece = loss(logits_RV, rows).sum()
            total += piece.detach()
            if not logits_RV.requires_grad:
                continue
            gradient_RV = torch.autograd.grad(piece, logits_RV)[0].to(x_ND.dtype)
            if d_x is not None:
                torch.mm(gradient_RV, rounded_VD, out=d_x[rows])
            if d_weight is not None:
                d_weight += gradient_RV.t() @ x_ND[rows]
        ctx.gradients = d_x, d_weight
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, (None, None)
        d_x, d_weight = (None if each is None else each.mul_(factor) for each in gradients)
        return d_x, d_weight, None, None
