"""The compiled sampling rules against torch's: the same id for the same seed wherever the uniform number is not right
at an edge, the same log-probabilities; and the distribution that was asked for."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder.engine import sampling
from ponder.engine.sampling import uniforms
from ponder.kernels import BuildError, NotFinite, Pick, Rule, fused
from ponder.kernels.build import library
from ponder.types import ConfidenceStop, SamplingParams, ThinkingLimits

EDGE = 1e-6  # of the mass: what float32 exponentials of two libraries may differ by


def builds(target):
    try:
        library(target)
    except BuildError:
        return False
    return True


TARGETS = [target for target in ("native", "x86-64-v3", "x86-64") if builds(target)]
pytestmark = [pytest.mark.property, pytest.mark.skipif(not TARGETS, reason="the fused step cannot be built here")]


def compiled(logits_SV, picks, target="native"):
    fused.pick_compiled(logits_SV, picks, target=target)


def kept(scores_V, params):
    """(id, float64 weight) of what truncation leaves, the likeliest first; None where a rounding decides which."""
    weights_V = (scores_V.double() - scores_V.max()).exp()
    order = sorted(range(len(weights_V)), key=lambda id: (-weights_V[id], id))
    pairs = [(id, float(weights_V[id])) for id in order]
    if params.top_k:
        if params.top_k < len(pairs) and alike(pairs[params.top_k - 1], pairs[params.top_k]):
            return None
        pairs = pairs[: params.top_k]
    whole, before, count = sum(weight for _, weight in pairs), 0.0, 0
    for _, weight in pairs:
        if params.top_p < 1 and abs(before - params.top_p * whole) < EDGE * whole and count:
            return None
        if params.min_p and abs(weight - params.min_p) < EDGE and count:
            return None
        if count and ((params.top_p < 1 and before >= params.top_p * whole) or weight < params.min_p):
            break
        before, count = before + weight, count + 1
    return pairs[:count]


def drawn(scores_V, params, number):
    """The id that the rules draw; None at an edge."""
    truncates = params.top_k or params.top_p < 1 or params.min_p
    pairs = kept(scores_V, params)
    if pairs is None:
        return None
    pairs = pairs if truncates else sorted(pairs)
    target, before = number * sum(weight for _, weight in pairs), 0.0
    for place, (id, weight) in enumerate(pairs):
        before += weight
        if abs(before - target) < EDGE * sum(weight for _, weight in pairs):
            return None
        if before > target:
            beside = pairs[max(place - 1, 0) : place + 2] if truncates else ()
            return None if any(alike(pairs[place], other) for other in beside) else id
    return None


def alike(one, other):
    """Whether weights differ by no more than a rounding, and so may stand in either order."""
    return 0 < abs(one[1] - other[1]) <= EDGE * max(one[1], other[1])


logits = st.tuples(
    st.integers(0, 2**32), st.sampled_from([2, 3, 31, 64, 300, 1500]), st.sampled_from([0.0, 0.3, 3.0, 30.0])
)
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.0, 2.5]),
    top_k=st.sampled_from([0, 0, 1, 2, 20, 100, 10**12]),
    top_p=st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.5, 1e-9]),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.3, 1.0]),
)


def made(seed, V, spread, *, steps=0):
    """Logits from a seed; with steps, many of them are equal."""
    logits_V = torch.randn(V, generator=torch.Generator().manual_seed(seed)) * spread
    return (logits_V * steps).round() / steps if steps else logits_V


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logits, params, st.integers(0, 2**64 - 1), st.integers(0, 2**20), st.sampled_from([0, 1, 4]), st.data())
def test_the_same_seed_draws_the_same_id(source, params, seed, index, steps, data):
    logits_V = made(*source, steps=steps)
    V, ids = len(logits_V), st.integers(0, len(logits_V) - 1)
    bias = data.draw(st.lists(st.tuples(ids, st.sampled_from([-20.0, -0.5, 1.0, 7.0])), max_size=3))
    banned = tuple(data.draw(st.lists(ids, max_size=min(3, V - 1))))
    mask_V = torch.rand(V, generator=torch.Generator().manual_seed(seed % 997)) < 0.3
    mask_V[data.draw(ids)] = True
    allowed_V = data.draw(st.sampled_from([None, mask_V]))
    params = replace(params, logit_bias=tuple(bias), top_logprobs=min(data.draw(st.integers(0, 20)), V))
    params = replace(params, thinking=ThinkingLimits(confidence=ConfidenceStop(threshold=1.0, top=7)))
    frequency, presence = data.draw(st.sampled_from([(0.0, 0.0), (0.5, 0.0), (0.0, 1.5), (-0.4, 2.0)]))
    repetition = data.draw(st.sampled_from([1.0, 1.3, 0.5]))
    params = replace(params, frequency_penalty=frequency, presence_penalty=presence, repetition_penalty=repetition)
    prompt = data.draw(st.lists(ids, max_size=4))
    said = data.draw(st.lists(ids, max_size=40))
    scaled_V = logits_V / max(params.temperature, 1e-30) if params.temperature else logits_V
    scores_V = scaled_V.clone()
    for id in {*prompt, *said}:
        scores_V[id] = scores_V[id] / repetition if scores_V[id] > 0 else scores_V[id] * repetition
    for id in set(said):
        scores_V[id] -= (said.count(id) * frequency + presence) / (params.temperature or 1.0)
    for id, value in bias:
        scores_V[id] += value / (params.temperature or 1.0)
    scores_V[list(banned)] = -math.inf
    if allowed_V is not None:
        scores_V[~allowed_V] = -math.inf
    if scores_V.max() == -math.inf:
        return
    picks = [Pick(params, seed) for _ in (*TARGETS, "torch")]
    for pick in picks:
        pick.read(prompt)
        for id in said:
            pick.said(id)
    for pick in picks:
        pick.constrain(index, Rule(banned=banned), allowed_V)
    for pick, target in zip(picks, TARGETS, strict=False):
        compiled(logits_V[None], [pick], target)
    sampling.pick_with_torch(logits_V[None], picks[-1:])
    if params.temperature:
        expected = drawn(scores_V, params, float(uniforms([seed], [index])))
    else:
        expected = int(scores_V.argmax())
    logprobs_V = scaled_V.double().log_softmax(-1)
    # A difference of large scores is as exact as they are themselves.
    atol = 1e-5 + 2**-22 * float(scaled_V[scaled_V.isfinite()].abs().max())
    for pick in picks:
        assert expected in (None, pick.id)
        assert not pick.put_in
        assert scores_V[pick.id] > -math.inf
        assert pick.logprob == pytest.approx(float(logprobs_V[pick.id]), abs=atol)
        values = [value for _, value in pick.likeliest()]
        best = logprobs_V.topk(max(7, params.top_logprobs) if V > 20 else min(7, V)).values
        assert values == pytest.approx(logprobs_V.topk(params.top_logprobs).values.tolist(), abs=atol)
        assert all(value == pytest.approx(float(logprobs_V[id]), abs=atol) for id, value in pick.likeliest())
        assert pick.confidence == pytest.approx(-float(best[:7].mean()), abs=atol)
    for pick in picks[: len(TARGETS)]:
        ids_named = [id for id, _ in pick.likeliest()]
        order = sorted(range(V), key=lambda id: (-float(scaled_V[id]), id))
        assert ids_named == order[: len(ids_named)]


@pytest.mark.parametrize("fields", [{}, {"top_k": 40}, {"top_p": 0.95}, {"min_p": 0.01}, {"top_k": 5000, "top_p": 0.9}])
@pytest.mark.parametrize("spread", [0.05, 1.0, 4.0])
def test_a_large_vocabulary_is_drawn_from_by_the_same_rules(fields, spread):
    params, undecided = SamplingParams(temperature=0.8, **fields), 0
    for seed in range(8):
        logits_V = made(seed, 151_936, spread, steps=64 if seed % 2 else 0)
        pick = Pick(params, seed)
        pick.constrain(seed)
        compiled(logits_V[None], [pick])
        scores_V = logits_V / torch.tensor(0.8)
        expected = large(scores_V, params, float(uniforms([seed], [seed])))
        undecided += expected is None
        assert expected in (None, pick.id)
        assert pick.logprob == pytest.approx(float(scores_V.double().log_softmax(-1)[pick.id]), abs=1e-5)
    assert undecided < 8


def large(scores_V, params, number):
    """`drawn`, for rows that would take long in plain Python."""
    weights_V, order_V = (scores_V.double() - scores_V.max()).exp().sort(descending=True, stable=True)
    count = params.top_k or len(weights_V)
    cumulative_V = weights_V[:count].cumsum(-1)
    if params.top_p < 1:
        count = int((cumulative_V - weights_V[:count] < params.top_p * cumulative_V[-1]).sum())
        if abs(float(cumulative_V[count - 1] / cumulative_V[-1]) - params.top_p) < EDGE:
            return None
    count = min(count, int((weights_V >= params.min_p).sum()))
    truncates = params.top_k or params.top_p < 1 or params.min_p
    ids_V = order_V[:count] if truncates else torch.arange(count)
    weights_V = (scores_V.double() - scores_V.max()).exp()[ids_V]
    cumulative_V = weights_V.cumsum(-1)
    target = number * cumulative_V[-1]
    place = int(torch.searchsorted(cumulative_V, target, right=True))
    if float((cumulative_V - target).abs().min() / cumulative_V[-1]) < EDGE:
        return None
    beside = weights_V[max(place - 1, 0) : place + 2] if truncates else ()
    return None if any(alike((0, float(weights_V[place])), (0, float(w))) for w in beside) else int(ids_V[place])


@pytest.mark.parametrize("fields", [{}, {"top_k": 12}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 0.4}])
def test_frequencies_pass_a_chi_square_test(fields):
    """99.9% of runs would; the seeds are fixed."""
    params, V, draws = SamplingParams(**fields), 40, 40_000
    logits_V = made(5, V, 1.2)
    pick = Pick(params, 9)
    counts = torch.zeros(V, dtype=torch.float64)
    for index in range(draws):
        pick.constrain(index)
        compiled(logits_V[None], [pick])
        counts[pick.id] += 1
    pairs = kept(logits_V / params.temperature, params)
    total = sum(weight for _, weight in pairs)
    expected = torch.zeros(V, dtype=torch.float64)
    for id, weight in pairs:
        expected[id] = draws * weight / total
    assert counts[expected == 0].sum() == 0
    degrees = len(pairs) - 1
    statistic = float(((counts - expected) ** 2 / expected)[expected > 0].sum())
    # Wilson and Hilferty's approximation of the 99.9% quantile
    assert statistic < degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_the_uniform_number_is_that_of_the_torch_rules(seed, index):
    """Two thirds of the way through V equal weights stands what two thirds says."""
    V = 4096
    pick = Pick(SamplingParams(), seed)
    pick.constrain(index)
    compiled(torch.zeros(1, V), [pick])
    assert pick.id == int(float(uniforms([seed], [index])) * V)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_forced_or_replaced_is_reported_with_the_probability_the_model_gave_it(target):
    logits_V = torch.tensor([1.0, 5.0, 0.0, -2.0])
    logprobs = logits_V.log_softmax(-1).tolist()
    pick = Pick(SamplingParams(), 1)
    for rule, id, put_in in (
        (Rule(forced=3), 3, 1),
        (Rule(forced=1), 1, 1),
        (Rule(banned=(0, 2, 3), closing=(1,), instead=2), 2, 1),
        (Rule(banned=(0, 2, 3), closing=(0, 2), instead=3), 1, 0),
        (Rule(), None, 0),
    ):
        pick.constrain(0, rule)
        compiled(logits_V[None], [pick], target)
        assert id in (None, pick.id)
        assert pick.put_in == put_in
        assert pick.logprob == pytest.approx(logprobs[pick.id], abs=1e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "row", [[0.0, math.nan], [math.inf, 0.0], [-math.inf] * 2, [math.nan] * 70, [0.0] * 69 + [math.inf]]
)
def test_logits_that_are_not_finite_are_refused(row, target):
    good = torch.zeros(len(row))
    picks = [Pick(SamplingParams(), 0), Pick(SamplingParams(), 0)]
    with pytest.raises(NotFinite):
        compiled(torch.stack([good, torch.tensor(row)]), picks, target)
    with pytest.raises(NotFinite):
        sampling.pick_with_torch(torch.stack([good, torch.tensor(row)]), picks)


@pytest.mark.parametrize("rules", [*TARGETS, "torch"])
@pytest.mark.parametrize(("top_p", "kept"), [(0.5, {0, 1}), (0.25, {0}), (0.75, {0, 1, 2}), (0.76, {0, 1, 2, 3})])
def test_top_p_ends_with_the_id_that_reaches_it(rules, top_p, kept):
    ids = set()
    for seed in range(60):
        pick = Pick(SamplingParams(top_p=top_p), seed)
        pick.constrain(0)
        if rules == "torch":
            sampling.pick_with_torch(torch.ones(1, 4), [pick])
        else:
            compiled(torch.ones(1, 4), [pick], rules)
        ids.add(pick.id)
    assert ids == kept


def test_a_mask_of_another_vocabulary_is_refused():
    pick = Pick(SamplingParams(), 0)
    pick.constrain(0, allowed_V=torch.ones(7, dtype=torch.bool))
    with pytest.raises(ValueError, match="a mask of 7 ids for a vocabulary of 8"):
        compiled(torch.zeros(1, 8), [pick])


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_model_gives_no_chance_is_never_drawn(target):
    logits_V = torch.full((50,), -math.inf)
    logits_V[[7, 31]] = 3.0
    for fields in ({}, {"top_k": 30}, {"top_p": 0.99}, {"min_p": 1e-9}):
        for seed in range(20):
            pick = Pick(SamplingParams(top_logprobs=4, **fields), seed)
            pick.constrain(seed)
            compiled(logits_V[None], [pick], target)
            assert pick.id in (7, 31)
            assert [id for id, _ in pick.likeliest()] == [7, 31, 0, 1]
            assert pick.likeliest()[2][1] == -math.inf


@pytest.mark.parametrize("rules", [*TARGETS, "torch"])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1e-300),
        SamplingParams(temperature=1e-45, top_p=0.9),
        SamplingParams(temperature=0.01, logit_bias=((0, -1e300), (1, -3e38))),
        SamplingParams(top_k=2, logit_bias=((2, 1e300),)),
    ],
)
def test_extreme_values_overflow_nothing(params, rules):
    pick = Pick(params, 3)
    pick.constrain(0)
    rows_SV = torch.tensor([[3.0, 2.0, 90.0, -90.0]])
    if rules == "torch":
        sampling.pick_with_torch(rows_SV, [pick])
    else:
        compiled(rows_SV, [pick], rules)
    assert pick.id == 2
    assert pick.logprob == pytest.approx(0.0, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(logits, params), min_size=2, max_size=6), st.integers(0, 1000))
def test_a_row_does_not_depend_on_the_others(rows, seed):
    V = rows[0][0][1]
    logits_SV = torch.stack([made(source[0], V, source[2]) for source, _ in rows])
    together = [Pick(replace(params, top_logprobs=min(V, 3)), seed) for _, params in rows]
    alone = [Pick(replace(params, top_logprobs=min(V, 3)), seed) for _, params in rows]
    compiled(logits_SV, together)
    for row, pick in enumerate(alone):
        compiled(logits_SV[row : row + 1], [pick])
    results = [[(p.id, p.logprob, p.likeliest()) for p in picks] for picks in (together, alone)]
    assert results[0] == results[1]
