"""What is looked at is what the model computed: its own log-probabilities, attention whose rows are whole."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ponder.lens.look import Look, neighbours, observe, packed, unpacked
from ponder.model.transformer import Transformer
from ponder.sampler.protocol import Request
from ponder.sampler.threads import run_sync
from ponder.testing.tiny import tiny_model, tiny_sampler
from ponder.types import InvalidRequest, Phase, SamplingParams

IDS = [int(id) for id in np.random.default_rng(0).integers(1, 200, 60)]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model()


@pytest.fixture(scope="module")
def seen(model: Transformer) -> Look:
    return observe(model, IDS, top=5)


def own_attention(model: Transformer, ids: Sequence[int]) -> list[list[np.ndarray]]:
    """Every head's weights, as torch's own attention gives them for values that are the unit vectors."""
    found: list[list[np.ndarray]] = []

    def attend(layer: int, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor) -> Tensor:
        group = q_BHTd.shape[1] // k_BKTd.shape[1]
        k_BHTd, v_BHTd = (x.repeat_interleave(group, dim=1) for x in (k_BKTd, v_BKTd))
        places = torch.eye(q_BHTd.shape[2]).expand(*q_BHTd.shape[:2], -1, -1)
        attention = torch.nn.functional.scaled_dot_product_attention
        found.append(list(attention(q_BHTd, k_BHTd, places, is_causal=True)[0].numpy()))
        return attention(q_BHTd, k_BHTd, v_BHTd, is_causal=True)

    with torch.inference_mode():
        model(torch.tensor(ids)[None], attend=attend)
    return found


def test_rows_of_attention_are_whole_and_close(model: Transformer, seen: Look) -> None:
    own = own_attention(model, IDS)
    assert len(seen.heads) == model.config.num_layers
    for kept_heads, own_heads in zip(seen.heads, own, strict=True):
        assert len(kept_heads) == model.config.num_heads
        for kept, weights_TT in zip(kept_heads, own_heads, strict=True):
            rows = unpacked(kept, seen.queries_R)
            assert [len(row) for row in rows] == [place + 1 for place in range(len(IDS))]
            for place, row in enumerate(rows):
                assert row.sum(dtype=np.int64) == 255
                assert np.abs(row / 255 - weights_TT[place, : place + 1]).max() <= 0.004
            np.testing.assert_array_equal(kept.strongest_R, weights_TT.argmax(-1))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300).filter(lambda w: sum(w) > 1e-3))
@settings(max_examples=100, deadline=None)
def test_any_row_is_rounded_whole(weights: list[float]) -> None:
    row = np.array(weights, np.float32) / np.float32(sum(weights))
    queries = np.array([len(row) - 1])
    (rounded,) = unpacked(packed(row[None], queries), queries.astype(np.int32))
    assert rounded.sum(dtype=np.int64) == 255
    assert np.abs(rounded / 255 - row / row.sum(dtype=np.float64)).max() < 1 / 255 + 1e-6


def test_log_probabilities_are_those_of_the_engine(model: Transformer) -> None:
    sampler = tiny_sampler(model=model)
    params = SamplingParams(max_tokens=40, temperature=1.0, seed=3)
    try:
        (completion,) = run_sync(sampler.sample(Request(prompt=tuple(IDS), params=params, start=Phase.ANSWER)))
    finally:
        run_sync(sampler.close())
    (segment,) = completion.segments
    seen = observe(model, (*segment.prompt_ids, *segment.ids))
    here = seen.logprobs_T[len(segment.prompt_ids) :]
    assert np.abs(here - np.array(segment.logprobs)).max() < 1e-4


def test_distributions_are_those_of_the_forward_pass(model: Transformer, seen: Look) -> None:
    with torch.inference_mode():
        logprobs_TV = model(torch.tensor(IDS)[None])[0].log_softmax(-1)
    values, places = logprobs_TV.topk(5)
    np.testing.assert_array_equal(seen.top_ids_TN[1:], places[:-1])
    np.testing.assert_allclose(seen.top_logprobs_TN[1:], values[:-1], atol=1e-4)
    np.testing.assert_array_equal(seen.next_ids_N, places[-1])
    own = [float(logprobs_TV[place, id]) for place, id in enumerate(IDS[1:])]
    np.testing.assert_allclose(seen.logprobs_T[1:], own, atol=1e-4)
    entropy = -(logprobs_TV.exp() * logprobs_TV).sum(-1) / np.log(2)
    np.testing.assert_allclose(seen.entropy_T[1:], entropy[:-1], atol=1e-3)
    assert np.isnan([seen.logprobs_T[0], seen.entropy_T[0]]).all()


def test_the_last_layer_says_what_the_model_says(model: Transformer, seen: Look) -> None:
    assert seen.layer_ids_LT.shape == (model.config.num_layers + 1, len(IDS))
    np.testing.assert_array_equal(seen.layer_ids_LT[-1, 1:], seen.top_ids_TN[1:, 0])
    np.testing.assert_allclose(seen.layer_logprobs_LT[-1, 1:], seen.logprobs_T[1:], atol=1e-6)
    assert (seen.layer_ids_LT[0] != seen.layer_ids_LT[-1]).any()


def test_only_the_rows_asked_for_are_kept(model: Transformer, seen: Look) -> None:
    part = observe(model, IDS, queries=[7, 3, 59])
    np.testing.assert_array_equal(part.queries_R, [3, 7, 59])
    for kept, whole in zip(part.heads[1], seen.heads[1], strict=True):
        rows = unpacked(whole, seen.queries_R)
        for row, place in zip(unpacked(kept, part.queries_R), (3, 7, 59), strict=True):
            np.testing.assert_array_equal(row, rows[place])
    assert observe(model, IDS, queries=[]).heads == ()


def test_the_mean_head_is_the_mean(model: Transformer) -> None:
    own = own_attention(model, IDS)
    seen = observe(model, IDS, mean_head=True)
    for (kept,), heads in zip(seen.heads, own, strict=True):
        mean_TT = np.mean(heads, axis=0)
        for place, row in enumerate(unpacked(kept, seen.queries_R)):
            assert np.abs(row / 255 - mean_TT[place, : place + 1]).max() <= 0.004


def test_one_token_can_be_looked_at(model: Transformer) -> None:
    seen = observe(model, IDS[:1])
    assert len(seen.ids_T) == 1
    assert np.isnan(seen.logprobs_T).all()
    assert np.isfinite(seen.next_logprobs_N).all()


@pytest.mark.parametrize("count", [0, 257])
def test_what_does_not_fit_the_window_is_refused(model: Transformer, count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{count} tokens cannot be looked at: give 1 to 256"):
        observe(model, [1] * count)


def test_neighbours_are_the_nearest_by_cosine(model: Transformer) -> None:
    table = torch.nn.functional.normalize(model.model.embed_tokens.weight.detach(), dim=-1)
    cosines_VV = (table @ table.T).fill_diagonal_(-2)
    ids, values = neighbours(model, [5, 9], around=3)
    for row, id in enumerate((5, 9)):
        best, places = cosines_VV[id].topk(3)
        np.testing.assert_array_equal(ids[row], places)
        np.testing.assert_allclose(values[row], best, atol=1e-6)
