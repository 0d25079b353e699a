"""What stays in the cache is used where it fits, reported exactly, and never outlives the weights it came from."""

import resource
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from ponder.engine import FinishEvent
from ponder.engine.pages import bytes_per_page
from ponder.engine.scheduler import common_prefix
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams

TOKENS = PhaseTokens()
PROMPT = [(11 * i) % 300 for i in range(40)]
OTHER = [(13 * i + 5) % 300 for i in range(40)]


def params(n=6, seed=0):
    return SamplingParams(max_tokens=n, seed=seed)


@pytest.fixture
def cold(kernel):
    """cold(prompt, params): what an engine with an empty cache generates."""

    def cold(prompt, chosen, model=None):
        return kernel.engine(model or kernel.tiny_model(), TOKENS).generate([prompt], chosen)[0].segment

    return cold


@pytest.fixture
def page_bytes(kernel):
    model = kernel.tiny_model()
    return bytes_per_page(model.config, 16, model.compute_dtype)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def assert_same(segment, expected):
    assert segment.ids == expected.ids
    assert segment.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_a_second_turn_finds_the_whole_pages_of_the_first(kernel, cold):
    engine = kernel.engine(kernel.tiny_model(), TOKENS)
    first = engine.generate([PROMPT], params(20))[0]
    assert first.usage.cached_tokens == 0
    second_prompt = [*PROMPT, *first.segment.ids, 1, 2, 3]
    second = engine.generate([second_prompt], params())[0]
    assert second.usage.cached_tokens == 48, "of 60 tokens, the last of which never ran through the model"
    assert_same(second.segment, cold(second_prompt, params()))


def test_the_last_token_of_a_prompt_is_computed_even_where_its_page_is_cached(kernel, cold):
    engine = kernel.engine(kernel.tiny_model(), TOKENS)
    engine.generate([PROMPT[:33]], params())
    again = engine.generate([PROMPT[:32]], params(seed=1))[0]
    assert again.usage.cached_tokens == 16
    assert_same(again.segment, cold(PROMPT[:32], params(seed=1)))


@pytest.mark.parametrize("step_tokens", [2048, 7])
def test_samples_of_one_prompt_compute_and_hold_it_once(kernel, cold, step_tokens):
    engine = kernel.engine(kernel.tiny_model(), TOKENS, step_tokens=step_tokens)
    requests = [engine.submit(PROMPT, params(seed=i)) for i in range(5)]
    most, finished = 0, {}
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, FinishEvent):
                finished[event.request] = event
        most = max(most, engine.stats.pages_used)
    finishes = [finished[request] for request in requests]
    assert [f.usage.cached_tokens for f in finishes] == [0] + [32] * 4
    assert most <= 2 + 5, "two pages that all share, and one of its own for each"
    for seed, finish in enumerate(finishes):
        assert_same(finish.segment, cold(PROMPT, params(seed=seed)))


def test_a_branch_shares_the_pages_before_it_leaves_the_path(kernel, cold):
    engine = kernel.engine(kernel.tiny_model(), TOKENS)
    engine.generate([PROMPT], params())
    branch = [*PROMPT[:18], *OTHER]
    assert engine.generate([branch], params())[0].usage.cached_tokens == 16
    assert engine.generate([PROMPT], params())[0].usage.cached_tokens == 32
    assert_same(engine.generate([branch], params(seed=3))[0].segment, cold(branch, params(seed=3)))


def test_a_running_sequence_lends_its_beginning(kernel, cold):
    engine = kernel.engine(kernel.tiny_model(), TOKENS)
    long = engine.submit(PROMPT, params(60))
    for _ in range(10):
        engine.step()
    engine.submit([*PROMPT, 5], params())
    finishes = [event for _ in range(80) for event in engine.step() if hasattr(event, "usage")]
    assert [f.usage.cached_tokens for f in finishes] == [32, 0]
    assert finishes[1].request == long
    assert_same(finishes[1].segment, cold(PROMPT, params(60)))
    assert_same(finishes[0].segment, cold([*PROMPT, 5], params()))


def test_what_was_not_used_for_longest_gives_way_first(kernel, page_bytes):
    engine = kernel.engine(kernel.tiny_model(), TOKENS, window=64, memory=8 * page_bytes)
    prompts = [[(17 * i + j) % 300 for j in range(40)] for i in range(4)]
    for prompt in prompts:
        engine.generate([prompt], params(1))  # two pages stay of each, a third is given back
    assert engine.stats.evictions == 1
    cached = [engine.generate([prompt], params(1))[0].usage.cached_tokens for prompt in (prompts[3], prompts[0])]
    assert cached == [32, 16], "the oldest lost its last page"


def test_nothing_is_shared_between_tenants(kernel):
    engine = kernel.engine(kernel.tiny_model(), TOKENS)
    finishes = []
    for tenant in ("", "b", "b"):
        engine.submit(PROMPT, params(), tenant=tenant)
        while engine.has_work:
            finishes += [event for event in engine.step() if isinstance(event, FinishEvent)]
    assert [f.usage.cached_tokens for f in finishes] == [0, 0, 32]


def test_an_aborted_sequence_leaves_the_whole_pages_it_computed(kernel, cold):
    engine = kernel.engine(kernel.tiny_model(), TOKENS, step_tokens=20)
    request = engine.submit(PROMPT, params())
    engine.step()
    engine.abort(request)
    assert (engine.stats.pages_used, engine.stats.pages_cached) == (0, 1)
    finish = engine.generate([PROMPT], params())[0]
    assert finish.usage.cached_tokens == 16
    assert_same(finish.segment, cold(PROMPT, params()))


def test_without_sharing_every_prompt_is_computed(kernel, cold):
    engine = kernel.engine(kernel.tiny_model(), TOKENS, share_prefixes=False)
    finishes = engine.generate([PROMPT] * 3, [params(seed=i) for i in range(3)])
    assert [f.usage.cached_tokens for f in finishes] == [0, 0, 0]
    assert engine.stats.pages_cached == 0
    for seed, finish in enumerate(finishes):
        assert_same(finish.segment, cold(PROMPT, params(seed=seed)))


def test_contexts_of_very_different_lengths_in_one_step_change_nothing(kernel, cold):
    engine = kernel.engine(kernel.tiny_model(max_positions=2048), TOKENS, max_batch=9)
    prompts = [[(19 * i + j) % 300 for j in range(4 + 150 * i)] for i in range(9)]
    chosen = [params(12, seed=i) for i in range(9)]
    for prompt, each, finish in zip(prompts, chosen, engine.generate(prompts, chosen), strict=True):
        assert_same(finish.segment, cold(prompt, each, kernel.tiny_model(max_positions=2048)))


# Memory ------------------------------------------------------------------------------------------------------------


def test_memory_is_one_number_in_bytes_or_a_fraction(kernel, page_bytes):
    assert kernel.engine(kernel.tiny_model(), TOKENS, memory=20 * page_bytes + 1).stats.pages_free == 20
    free = kernel.engine(kernel.tiny_model(), TOKENS, memory=1e-3).stats.pages_free
    assert 0 < free < kernel.engine(kernel.tiny_model(), TOKENS, memory=2e-3).stats.pages_free


def test_without_a_window_of_its_own_an_engine_takes_what_the_memory_holds(kernel, page_bytes):
    assert kernel.engine(kernel.tiny_model(), TOKENS, memory=4 * page_bytes).window == 64
    with pytest.raises(InvalidRequest, match=f"64 tokens, fewer than the window of 65: .* {5 * page_bytes} bytes"):
        kernel.engine(kernel.tiny_model(), TOKENS, memory=4 * page_bytes, window=65)


@pytest.mark.parametrize("memory", [0, -5, 1.5, 0.0, True, "1GB"])
def test_an_impossible_memory_is_refused(kernel, memory):
    with pytest.raises(InvalidRequest, match="memory must be"):
        kernel.engine(kernel.tiny_model(), TOKENS, memory=memory)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory is resident")
def test_memory_is_not_taken_before_it_is_used(kernel):
    model = kernel.tiny_model()
    before = resident_bytes()
    kernel.engine(model, TOKENS, memory=1 << 30)
    assert resident_bytes() - before < 100 << 20


# Weights -----------------------------------------------------------------------------------------------------------


def optimizer_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.tensor([OTHER], device=model.model.norm.weight.device)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_nothing_cached_survives_a_weight_update(kernel, cold):
    model = kernel.tiny_model()
    engine = kernel.engine(model, TOKENS)
    before = engine.generate([PROMPT], params())[0]
    with engine.update_weights():
        optimizer_step(model)
    after = engine.generate([PROMPT], params())[0]
    assert after.usage.cached_tokens == 0
    assert_same(after.segment, cold(PROMPT, params(), model))
    assert after.segment.logprobs != pytest.approx(before.segment.logprobs, abs=1e-3), "the step changed the model"
    assert (before.segment.weights_version, after.segment.weights_version, engine.weights_version) == (0, 1, 1)


def test_an_update_that_fails_half_way_counts_as_one(kernel, cold):
    model = kernel.tiny_model()
    engine = kernel.engine(model, TOKENS)
    engine.generate([PROMPT], params())
    with suppress(KeyError), engine.update_weights():
        optimizer_step(model)
        raise KeyError
    finish = engine.generate([PROMPT], params())[0]
    assert (finish.usage.cached_tokens, engine.weights_version) == (0, 1)
    assert_same(finish.segment, cold(PROMPT, params(), model))


def test_weights_changed_behind_the_engines_back_are_noticed(kernel):
    model = kernel.tiny_model()
    engine = kernel.engine(model, TOKENS)
    optimizer_step(model)
    with pytest.raises(InvalidRequest, match="outside update_weights"):
        engine.submit(PROMPT, params())


def test_weights_do_not_change_under_a_running_sequence(kernel):
    engine = kernel.engine(kernel.tiny_model(), TOKENS)
    request = engine.submit(PROMPT, params())
    with pytest.raises(InvalidRequest, match="1 requests are unfinished"), engine.update_weights():
        pass
    engine.abort(request)
    with engine.update_weights(), pytest.raises(InvalidRequest, match="while the weights change"):
        engine.submit(PROMPT, params())


def test_the_cache_follows_the_model_to_another_precision(kernel, cold):
    model = kernel.tiny_model()
    engine = kernel.engine(model, TOKENS)
    engine.generate([PROMPT], params())
    with engine.update_weights():
        model.to(torch.bfloat16 if model.compute_dtype == torch.float32 else torch.float32)
    assert_same(engine.generate([PROMPT], params())[0].segment, cold(PROMPT, params(), model))


def test_common_prefix():
    long = list(range(200))
    assert common_prefix(long, [*range(130), 0], 200) == 130
    assert common_prefix(long, long, 150) == 150
    assert common_prefix(long, long, 500) == 200
    assert common_prefix([], long, 5) == common_prefix([1], [2], 5) == 0
