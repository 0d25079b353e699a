"""Sampling: the distribution that was asked for, one uniform number per token, exact truncation."""

import pytest
import torch

from ponder.engine.sampling import _draw_truncated, logprobs, sample, uniforms
from ponder.types import SamplingParams

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -3.0, 1.5, -0.5]])


def drawn(params, banned=(), n=4000):
    """How often each id comes, drawn with n seeds."""
    logits_SV = LOGITS.expand(n, -1)
    added_SV = torch.zeros_like(logits_SV)
    added_SV[:, list(banned)] = float("-inf")
    ids_S, _ = sample(logits_SV, [params] * n, uniforms(range(n), [0] * n), added_SV)
    return torch.bincount(ids_S, minlength=LOGITS.shape[-1]) / n


def weights(keep=None, temperature=1.0):
    probs_V = (LOGITS[0] / temperature).softmax(-1)
    if keep is not None:
        probs_V = probs_V * torch.tensor([float(id in keep) for id in range(len(probs_V))])
    return probs_V / probs_V.sum()


@pytest.mark.parametrize(
    ("fields", "keep"),
    [
        ({}, None),
        ({"temperature": 0.5}, None),
        ({"temperature": 3.0}, None),
        ({"top_k": 1}, {0}),
        ({"top_k": 3}, {0, 6, 1}),
        ({"top_k": 100}, None),
        ({"top_p": 0.4}, {0}),  # 0.42, 0.26, 0.16, …
        ({"top_p": 0.5}, {0, 6}),
        ({"top_p": 1e-9}, {0}),
        ({"min_p": 0.5}, {0, 6}),
        ({"min_p": 1.0}, {0}),
        ({"top_k": 3, "top_p": 0.8}, {0, 6}),  # of the three that top-k leaves, two hold 0.81
        ({"top_k": 4, "min_p": 0.3}, {0, 6, 1}),
    ],
)
def test_ids_are_drawn_from_the_distribution_asked_for(fields, keep):
    params = SamplingParams(**fields)
    torch.testing.assert_close(drawn(params), weights(keep, params.temperature), atol=0.03, rtol=0)


@pytest.mark.parametrize("fields", [{}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 0.0}])
def test_a_banned_id_is_never_drawn_and_truncation_counts_what_is_left(fields):
    frequency_V = drawn(SamplingParams(**fields), banned=(0, 6), n=500)
    assert frequency_V[0] == frequency_V[6] == 0
    if fields:
        kept = {"top_k": {1, 2}, "top_p": {1, 2}, "temperature": {1}}[next(iter(fields))]
        assert {id for id, share in enumerate(frequency_V.tolist()) if share} == kept


def test_temperature_zero_takes_the_first_of_the_most_likely():
    ids_S, scaled_SV = sample(torch.tensor([[1.0, 5.0, 5.0]]), [SamplingParams(temperature=0.0)], uniforms([0], [0]))
    assert ids_S.tolist() == [1]
    assert logprobs(scaled_SV, ids_S).item() == pytest.approx(torch.tensor([1.0, 5, 5]).log_softmax(-1)[1].item())


def test_logprobs_are_after_temperature_and_before_masks_and_truncation():
    params = SamplingParams(temperature=0.5, top_k=1)
    ids_S, scaled_SV = sample(
        LOGITS, [params], uniforms([0], [0]), torch.tensor([[float("-inf")] + [0.0] * (LOGITS.shape[1] - 1)])
    )
    assert ids_S.tolist() == [6]
    assert logprobs(scaled_SV, ids_S).item() == pytest.approx((LOGITS[0] / 0.5).log_softmax(-1)[6].item())


def test_a_row_does_not_depend_on_the_others():
    mixed = [
        SamplingParams(),
        SamplingParams(temperature=0.0),
        SamplingParams(top_p=0.9),
        SamplingParams(temperature=2.0),
        SamplingParams(top_k=3, min_p=0.1),
    ]
    logits_SV = torch.randn(5, 50, generator=torch.Generator().manual_seed(0)) * 3
    for index in range(20):
        uniform_S = uniforms([1, 2, 3, 4, 5], [index] * 5)
        together, _ = sample(logits_SV, mixed, uniform_S)
        alone = [sample(logits_SV[i : i + 1], mixed[i : i + 1], uniform_S[i : i + 1])[0].item() for i in range(5)]
        assert together.tolist() == alone


def test_uniforms_are_uniform_independent_and_fixed():
    by_seed, by_index = uniforms(range(4000), [3] * 4000), uniforms([2**64 - 1] * 4000, range(4000))
    for u in (by_seed, by_index):
        assert u.min() >= 0
        assert u.max() < 1
        histogram = torch.histc(u, 10, 0, 1) / 4000
        torch.testing.assert_close(histogram, torch.full((10,), 0.1, dtype=torch.float64), atol=0.02, rtol=0)
        assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1]) < 0.05
    # the first outputs of the reference implementation from state 0
    reference = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert uniforms([0, 0, 0], [0, 1, 2]).tolist() == pytest.approx([x / 2**64 for x in reference], abs=1e-15)


def test_the_largest_uniform_number_still_draws_an_id_of_the_distribution():
    logits_SV = torch.tensor([[0.0, 0.0, -1e9, -float("inf")]])
    for params in (SamplingParams(), SamplingParams(top_k=3)):
        ids_S, _ = sample(logits_SV, [params], torch.tensor([1 - 2.0**-52], dtype=torch.float64))
        assert ids_S.tolist() == [1]


@pytest.mark.parametrize(
    "fields", [{"top_k": 5}, {"top_k": 200}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 50, "top_p": 0.7}]
)
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_looking_at_the_most_likely_first_changes_nothing(fields, spread):
    """With equal probabilities in the rows, and rows whose truncation reaches beyond the candidates."""
    logits_SV = (torch.randn(30, 700, generator=torch.Generator().manual_seed(0)) * spread * 4).round() / 4
    params, uniform_S = [SamplingParams(**fields)] * 30, uniforms(range(30), [0] * 30)
    ids_S, _ = sample(logits_SV, params, uniform_S)
    probs_SV = logits_SV.softmax(-1)
    assert ids_S.tolist() == _draw_truncated(probs_SV, params, uniform_S, num_candidates=700).tolist()
    for candidates in (1, 2, 16):
        assert ids_S.tolist() == _draw_truncated(probs_SV, params, uniform_S, candidates).tolist()
