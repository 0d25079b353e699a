"""Losses of preferences between answers, as functions of the answers' log-probabilities: pure functions on tensors.

Axes: P pairs of a better and a worse answer; M single answers. Log-probabilities are sums over an answer's own tokens,
in nats, at temperature 1. Every loss comes for each pair or answer, so that micro-batches add up.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional as F


class Preference(StrEnum):
    """How a pair is judged. `margin` is what the better answer's log-ratio to the reference has over the worse one's.

    SIGMOID: -log sigmoid(beta margin) (DPO, arXiv 2305.18290, equation 7). With smoothing it is cDPO: the label is
        wrong with that probability (arXiv 2305.18290's code).
    ROBUST: the unbiased loss under labels that are wrong with probability `smoothing` (arXiv 2403.00409, equation 12).
    HINGE: max(0, 1 - beta margin) (SLiC, arXiv 2305.10425).
    IPO: (margin - 1 / 2 beta)^2, of log-ratios averaged over each answer's tokens (arXiv 2310.12036, equation 17).
    IPO_SUM: the same of sums.
    SIGMOID_NORM: SIGMOID of log-ratios averaged over each answer's tokens.
    SIMPO: -log sigmoid(beta margin - gamma), of mean log-probabilities without a reference (arXiv 2405.14734).
    ORPO: beta x -log sigmoid of the log odds ratio, of mean log-probabilities without a reference, and the better
        answer's mean negative log-likelihood (arXiv 2403.07691).
    KTO: single answers, wanted or not, against the mean log-ratio of mismatched ones (`kto_loss`).
    """

    SIGMOID = "sigmoid"
    ROBUST = "robust"
    HINGE = "hinge"
    IPO = "ipo"
    IPO_SUM = "ipo_sum"
    SIGMOID_NORM = "sigmoid_norm"
    SIMPO = "simpo"
    ORPO = "orpo"
    KTO = "kto"

    @property
    def has_reference(self) -> bool:
        return self not in (Preference.SIMPO, Preference.ORPO)

    @property
    def has_offsets(self) -> bool:
        """Whether a judgement's margin can be kept to."""
        return self not in (Preference.IPO, Preference.IPO_SUM, Preference.ORPO, Preference.KTO)


_MEANS = (Preference.IPO, Preference.SIGMOID_NORM, Preference.SIMPO, Preference.ORPO)


def pair_loss(
    chosen_P: Tensor,
    rejected_P: Tensor,
    lengths_P2: Tensor,
    kind: Preference,
    *,
    reference_P2: Tensor | None = None,
    offsets_P: Tensor | None = None,
    beta: float = 0.1,
    smoothing: float = 0.0,
    gamma: float = 0.0,
) -> Tensor:
    """loss_P, to be minimised.

    chosen_P, rejected_P: log-probabilities of the better and of the worse answer, with gradient.
    lengths_P2: the tokens that they are sums over, at least 1.
    reference_P2: the same log-probabilities under the reference. SIMPO and ORPO have none.
    offsets_P: by how much beta x margin should exceed 0 (arXiv 2402.10571); not for IPO and ORPO. None: 0.
    beta: how much a log-ratio counts.
    smoothing: the share of labels taken as wrong, for SIGMOID and ROBUST, below 1/2.
    gamma: SimPO's margin.
    Raises ValueError for KTO, for a reference that is missing or has no place, and for settings that do not apply.
    """
    _check(kind, reference_P2, offsets_P, smoothing, gamma)
    logprobs_P2 = torch.stack((chosen_P, rejected_P), 1)
    if reference_P2 is not None:
        logprobs_P2 = logprobs_P2 - reference_P2
    if kind in _MEANS:
        logprobs_P2 = logprobs_P2 / lengths_P2
    margin_P = logprobs_P2[:, 0] - logprobs_P2[:, 1]
    gain_P = beta * margin_P - (0 if offsets_P is None else offsets_P)
    right_P, wrong_P = -F.logsigmoid(gain_P), -F.logsigmoid(-gain_P)
    match kind:
        case Preference.HINGE:
            return F.relu(1 - gain_P)
        case Preference.IPO | Preference.IPO_SUM:
            return (margin_P - 1 / (2 * beta)).square()
        case Preference.SIMPO:
            return -F.logsigmoid(gain_P - gamma)
        case Preference.ORPO:
            odds_P2 = logprobs_P2 - log_one_minus_exp(logprobs_P2)
            return -beta * F.logsigmoid(odds_P2[:, 0] - odds_P2[:, 1]) - logprobs_P2[:, 0]
        case Preference.ROBUST:
            return ((1 - smoothing) * right_P - smoothing * wrong_P) / (1 - 2 * smoothing)
        case _:
            return (1 - smoothing) * right_P + smoothing * wrong_P


def _check(
    kind: Preference, reference_P2: Tensor | None, offsets_P: Tensor | None, smoothing: float, gamma: float
) -> None:
    if kind is Preference.KTO:
        raise ValueError("KTO judges single answers, not pairs: call kto_loss")
    if kind.has_reference == (reference_P2 is None):
        raise ValueError(f"{kind} {'needs' if kind.has_reference else 'has no'} reference_P2")
    if smoothing and kind not in (Preference.SIGMOID, Preference.ROBUST):
        raise ValueError(f"smoothing must be 0 for {kind} (got {smoothing})")
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must be at least 0 and below 0.5 (got {smoothing})")
    if offsets_P is not None and not kind.has_offsets and bool(offsets_P.any()):
        raise ValueError(f"offsets_P must be 0 for {kind}")
    if gamma and kind is not Preference.SIMPO:
        raise ValueError(f"gamma must be 0 for {kind} (got {gamma})")


def kto_loss(
    ratios_M: Tensor, wanted_M: Tensor, baseline: Tensor, *, beta: float, wanted: float = 1.0, unwanted: float = 1.0
) -> Tensor:
    """loss_M of single answers (KTO, arXiv 2402.01306, equation 8), to be minimised.

    ratios_M: log-probability minus the reference's, with gradient.
    wanted_M: bool.
    baseline: `kto_baseline`, without gradient.
    wanted, unwanted: how much an answer of each kind counts.
    """
    gain_M = beta * torch.where(wanted_M, ratios_M - baseline, baseline - ratios_M)
    return torch.where(wanted_M, wanted, unwanted) * torch.sigmoid(-gain_M)


def kto_baseline(ratios_M: Tensor) -> Tensor:
    """The log-ratio that an answer is compared with: the mean over answers to *other* prompts, at least 0, a scalar
    without gradient. It estimates KL(policy | reference) from above 0."""
    return ratios_M.detach().mean().clamp_min(0)


def log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, exact near 0 too, where float32 would give log(0) (Mächler 2012).

    A log-probability of 0 counts as -1e-7: the odds of a sure thing are not finite.
    """
    x = x.clamp_max(-1e-7)
    near = x > -0.6931
    # Each branch sees only what it is exact for: else its gradient would be NaN even where it is not chosen.
    return torch.where(near, (-torch.expm1(x.where(near, -1.0))).log(), torch.log1p(-x.masked_fill(near, -1.0).exp()))


def implicit_rewards(logprobs: Tensor, reference: Tensor | None, beta: float) -> Tensor:
    """What a preference loss takes as the rewards of answers: beta x log-ratio (arXiv 2305.18290, equation 5)."""
    return beta * (logprobs if reference is None else logprobs - reference)
