"""What stays in the cache is used where it fits, reported exactly, and never outlives the weights it came from."""

from contextlib import suppress

import pytest
import torch

from ponder.engine import Engine
from ponder.engine.cache import SlotCache
from ponder.engine.scheduler import MIN_COPY, SPARE_SLOTS, common_prefix
from ponder.testing.tiny import tiny_model
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams

TOKENS = PhaseTokens()
PROMPT = [(11 * i) % 300 for i in range(40)]
OTHER = [(13 * i + 5) % 300 for i in range(40)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def params(n=6, seed=0):
    return SamplingParams(max_tokens=n, seed=seed)


def cold(prompt, chosen, model=None):
    return Engine(model or tiny_model(), TOKENS).generate([prompt], chosen)[0].segment


def assert_same(segment, expected):
    assert segment.ids == expected.ids
    assert segment.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_a_second_turn_finds_the_first_in_the_cache():
    engine = Engine(tiny_model(), TOKENS)
    first = engine.generate([PROMPT], params())[0]
    assert first.usage.cached_tokens == 0
    second_prompt = [*PROMPT, *first.segment.ids, 1, 2, 3]
    second = engine.generate([second_prompt], params())[0]
    # the last sampled token never ran through the model
    assert second.usage.cached_tokens == len(PROMPT) + len(first.segment.ids) - 1
    assert_same(second.segment, cold(second_prompt, params()))


def test_the_same_prompt_again_computes_only_its_last_token():
    engine = Engine(tiny_model(), TOKENS)
    engine.generate([PROMPT], params())
    again = engine.generate([PROMPT], params(seed=1))[0]
    assert again.usage.cached_tokens == len(PROMPT) - 1
    assert_same(again.segment, cold(PROMPT, params(seed=1)))


def test_samples_of_one_prompt_compute_it_once():
    engine = Engine(tiny_model(), TOKENS)
    finishes = engine.generate([PROMPT] * 5, [params(seed=i) for i in range(5)])
    assert [f.usage.cached_tokens for f in finishes] == [0] + [len(PROMPT) - 1] * 4
    for seed, finish in enumerate(finishes):
        assert_same(finish.segment, cold(PROMPT, params(seed=seed)))


def test_samples_of_one_prompt_compute_it_once_when_it_takes_several_chunks():
    engine = Engine(tiny_model(), TOKENS, prefill_tokens=7)
    finishes = engine.generate([PROMPT] * 3, [params(seed=i) for i in range(3)])
    assert [f.usage.cached_tokens for f in finishes] == [0] + [len(PROMPT) - 1] * 2
    for seed, finish in enumerate(finishes):
        assert_same(finish.segment, cold(PROMPT, params(seed=seed)))


def test_a_branch_copies_a_short_beginning_and_leaves_the_other_branch_whole():
    engine = Engine(tiny_model(), TOKENS)
    engine.generate([PROMPT], params())
    branch = [*PROMPT[:18], 7, 8, 9]
    assert engine.generate([branch], params())[0].usage.cached_tokens == 18
    assert engine.generate([PROMPT], params())[0].usage.cached_tokens == len(PROMPT) - 1
    assert_same(engine.generate([branch], params(seed=3))[0].segment, cold(branch, params(seed=3)))


def test_a_branch_that_keeps_most_of_a_slot_takes_it_over():
    """As when the reasoning of the last turn is dropped from the next prompt."""
    engine = Engine(tiny_model(), TOKENS)
    engine.generate([PROMPT], params())
    branch = [*PROMPT[:35], 7, 8, 9]
    finish = engine.generate([branch], params())[0]
    assert finish.usage.cached_tokens == 35
    assert_same(finish.segment, cold(branch, params()))
    assert engine.generate([PROMPT], params())[0].usage.cached_tokens == 35


def test_a_beginning_too_short_to_copy_is_computed():
    engine = Engine(tiny_model(), TOKENS)
    engine.generate([PROMPT], params())
    branch = [*PROMPT[: MIN_COPY - 1], *OTHER]
    finish = engine.generate([branch], params())[0]
    assert finish.usage.cached_tokens == 0
    assert_same(finish.segment, cold(branch, params()))


def test_a_running_sequence_lends_its_beginning():
    engine = Engine(tiny_model(), TOKENS)
    long = engine.submit(PROMPT, params(60))
    for _ in range(10):
        engine.step()
    engine.submit([*PROMPT, 5], params())
    finishes = [event for _ in range(80) for event in engine.step() if hasattr(event, "usage")]
    assert [f.usage.cached_tokens for f in finishes] == [len(PROMPT), 0]
    assert finishes[1].request == long
    assert_same(finishes[1].segment, cold(PROMPT, params(60)))
    assert_same(finishes[0].segment, cold([*PROMPT, 5], params()))


def test_idle_prefixes_give_way_oldest_first():
    engine = Engine(tiny_model(), TOKENS)
    prompts = [[(17 * i + j) % 300 for j in range(20)] for i in range(SPARE_SLOTS + 1)]
    for prompt in prompts:
        engine.generate([prompt], params())
    cached = [engine.generate([prompt], params(1))[0].usage.cached_tokens for prompt in reversed(prompts)]
    assert cached == [19] * SPARE_SLOTS + [0]


def test_an_aborted_sequence_leaves_only_what_it_computed():
    engine = Engine(tiny_model(), TOKENS, prefill_tokens=10)
    request = engine.submit(PROMPT, params())
    engine.step()
    engine.abort(request)
    finish = engine.generate([PROMPT], params())[0]
    assert finish.usage.cached_tokens == 10
    assert_same(finish.segment, cold(PROMPT, params()))


def test_decoding_over_slots_with_gaps_changes_nothing():
    """Slots are read as one span, or gathered when few of the span are in use: both equal a cold engine."""
    engine = Engine(tiny_model(), TOKENS, max_batch=9)
    prompts = [[(19 * i + j) % 300 for j in range(4 + i)] for i in range(9)]
    lengths = [40, 5, 38, 9, 3, 12, 6, 7, 36]  # what is left over lies far apart
    chosen = [params(n, seed=i) for i, n in enumerate(lengths)]
    for prompt, each, finish in zip(prompts, chosen, engine.generate(prompts, chosen), strict=True):
        assert_same(finish.segment, cold(prompt, each))


# Weights -----------------------------------------------------------------------------------------------------------


def optimizer_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.tensor([OTHER])).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_nothing_cached_survives_a_weight_update():
    model = tiny_model()
    engine = Engine(model, TOKENS)
    before = engine.generate([PROMPT], params())[0]
    with engine.update_weights():
        optimizer_step(model)
    after = engine.generate([PROMPT], params())[0]
    assert after.usage.cached_tokens == 0
    assert_same(after.segment, cold(PROMPT, params(), model))
    assert after.segment.logprobs != pytest.approx(before.segment.logprobs, abs=1e-3), "the step changed the model"
    assert (before.segment.weights_version, after.segment.weights_version, engine.weights_version) == (0, 1, 1)


def test_an_update_that_fails_half_way_counts_as_one():
    model = tiny_model()
    engine = Engine(model, TOKENS)
    engine.generate([PROMPT], params())
    with suppress(KeyError), engine.update_weights():
        optimizer_step(model)
        raise KeyError
    finish = engine.generate([PROMPT], params())[0]
    assert (finish.usage.cached_tokens, engine.weights_version) == (0, 1)
    assert_same(finish.segment, cold(PROMPT, params(), model))


def test_weights_changed_behind_the_engines_back_are_noticed():
    model = tiny_model()
    engine = Engine(model, TOKENS)
    optimizer_step(model)
    with pytest.raises(InvalidRequest, match="outside update_weights"):
        engine.submit(PROMPT, params())


def test_weights_do_not_change_under_a_running_sequence():
    engine = Engine(tiny_model(), TOKENS)
    request = engine.submit(PROMPT, params())
    with pytest.raises(InvalidRequest, match="1 requests are unfinished"), engine.update_weights():
        pass
    engine.abort(request)
    with engine.update_weights(), pytest.raises(InvalidRequest, match="while the weights change"):
        engine.submit(PROMPT, params())


def test_the_cache_follows_the_model_to_another_precision():
    model = tiny_model()
    engine = Engine(model, TOKENS)
    engine.generate([PROMPT], params())
    with engine.update_weights():
        model.to(torch.bfloat16)
    assert_same(engine.generate([PROMPT], params())[0].segment, cold(PROMPT, params(), model))


# The cache itself --------------------------------------------------------------------------------------------------


def test_a_cache_grows_by_doubling_up_to_the_window_and_keeps_what_it_holds():
    cache = SlotCache(2, 1, 2, window=1000, dtype=torch.float32, device=torch.device("cpu"))
    cache.reserve(1, 10)
    assert (cache.num_slots, cache.capacity) == (1, 256)
    cache.keys[1][0, 0, 5] = 3.0
    cache.reserve(3, 257)
    assert (cache.num_slots, cache.capacity) == (3, 512)
    cache.reserve(4, 600)
    assert (cache.num_slots, cache.capacity) == (6, 1000)
    assert cache.keys[1][0, 0, 5].tolist() == [3.0, 3.0]
    assert cache.keys[1].sum() == 6.0, "new memory is zero"


def test_common_prefix():
    long = list(range(200))
    assert common_prefix(long, [*range(130), 0], 200) == 130
    assert common_prefix(long, long, 150) == 150
    assert common_prefix(long, long, 500) == 200
    assert common_prefix([], long, 5) == common_prefix([1], [2], 5) == 0
