"""Deterministic mode: a token's logits depend on the ids before it alone, bit for bit. And in any mode the engine says
what the training forward says."""

from functools import cache

import pytest
import torch

from ponder.engine import Engine, FinishEvent
from ponder.engine.pages import bytes_per_page
from ponder.model.config import ModelConfig
from ponder.model.transformer import Transformer
from ponder.testing.parity import assert_logprobs_are_those_of_training
from ponder.testing.tiny import tiny_model
from ponder.types import PhaseTokens, SamplingParams

TOKENS = PhaseTokens()
CONFIG = ModelConfig(
    vocab_size=512,
    hidden_size=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=224,
    max_positions=512,
)
KINDS = {  # how a model is placed, and the kernel; "fused" is torch again where no compiler is
    "float32": ({"dtype": torch.float32}, "torch"),
    "bfloat16": ({"dtype": torch.bfloat16}, "torch"),
    "fused": ({"dtype": torch.bfloat16}, "auto"),
    "cuda": ({"device": "cuda"}, "auto"),
    "cuda-bfloat16": ({"device": "cuda", "dtype": torch.bfloat16}, "auto"),
}
PROMPTS = [[(7 * i + j * j) % 500 for j in range(5 + 11 * i % 90)] for i in range(38)]
AT = 5  # the prompt whose logits are compared
NEW = 20

each_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.cuda) if "cuda" in kind else kind for kind in KINDS]
)


@pytest.fixture
def seen(watch_logits):
    """(ids before the token) → its logits, of everything that engines sample from while the test runs."""
    seen = {}

    def see(ready, logits_SV):
        for sequence, logits_V in zip(ready, logits_SV, strict=True):
            ids = tuple(sequence.tokens)
            assert ids not in seen or torch.equal(seen[ids], logits_V)
            seen[ids] = logits_V.clone()

    watch_logits(see)
    return seen


@cache
def model_of(kind):
    return Transformer(CONFIG).to(**KINDS[kind][0])


def deterministic(kind, **options):
    return Engine(model_of(kind), TOKENS, deterministic=True, kernel=KINDS[kind][1], **options)


def params(seed=3, n=NEW, **fields):
    return SamplingParams(max_tokens=n, seed=seed, **fields)


def alone(kind, seen, **fields):
    """The reference: one request by itself, whole prompt at once. Logits by the ids before them; its segment."""
    segment = deterministic(kind).generate([PROMPTS[AT]], params(**fields))[0].segment
    reference = dict(seen)
    assert len(reference) == NEW
    seen.clear()
    return reference, segment


def assert_bitwise(seen, reference):
    missing = reference.keys() - seen.keys()
    assert not missing, f"{len(missing)} tokens were never sampled: ids differ"
    different = [len(ids) for ids, logits_V in reference.items() if not torch.equal(seen[ids], logits_V)]
    assert not different, f"logits differ behind {different} tokens"


@each_kind
@pytest.mark.parametrize("neighbours", [1, 3, 37])
def test_neighbours_change_no_bit(kind, neighbours, seen):
    reference, segment = alone(kind, seen)
    others = [prompt for prompt in PROMPTS if prompt is not PROMPTS[AT]][:neighbours]
    prompts = [*others[: neighbours // 2], PROMPTS[AT], *others[neighbours // 2 :]]
    chosen = [params(3 if prompt is PROMPTS[AT] else 100 + i, temperature=1.0) for i, prompt in enumerate(prompts)]
    finishes = deterministic(kind).generate(prompts, chosen)
    assert_bitwise(seen, reference)
    together = finishes[neighbours // 2].segment
    assert (together.ids, together.logprobs) == (segment.ids, segment.logprobs)


@each_kind
@pytest.mark.parametrize("step_tokens", [1, 3, 31, 32, 33, 64])
def test_chunking_changes_no_bit(kind, step_tokens, seen):
    reference, segment = alone(kind, seen)
    chunked = deterministic(kind, step_tokens=step_tokens)
    assert chunked.generate([PROMPTS[AT]], params())[0].segment == segment
    assert chunked.stats.counters.steps >= NEW + len(PROMPTS[AT]) // step_tokens - 1
    assert_bitwise(seen, reference)


@each_kind
def test_many_neighbours_in_small_chunks_change_no_bit(kind, seen):
    reference, _ = alone(kind, seen)
    deterministic(kind, step_tokens=50, max_batch=9).generate(PROMPTS, [params(3)] * len(PROMPTS))
    assert_bitwise(seen, reference)


@each_kind
@pytest.mark.parametrize("step_tokens", [7, 2048])
def test_a_token_that_was_decoded_equals_one_behind_a_prompt(kind, step_tokens, seen):
    reference, segment = alone(kind, seen, temperature=0.0)
    ids = [*PROMPTS[AT], *segment.ids]
    for at in range(NEW):
        fresh = deterministic(kind, step_tokens=step_tokens)
        finish = fresh.generate([ids[: len(PROMPTS[AT]) + at]], params(n=1, temperature=0.0))[0]
        assert (finish.ids[0], finish.segment.logprobs[0]) == (segment.ids[at], segment.logprobs[at])
    assert_bitwise(seen, reference)


@each_kind
def test_what_is_cached_changes_no_bit(kind, seen):
    reference, segment = alone(kind, seen)
    warm = deterministic(kind)
    warm.generate([[*PROMPTS[AT], 9, 9, 9]], params(n=1))
    finish = warm.generate([PROMPTS[AT]], params())[0]
    assert finish.usage.cached_tokens == (len(PROMPTS[AT]) - 1) // 16 * 16 > 0
    assert finish.segment == segment
    assert_bitwise(seen, reference)


@each_kind
def test_prompts_of_one_beginning_share_pages_and_change_no_bit(kind, seen):
    reference, _ = alone(kind, seen)
    together = deterministic(kind)
    finishes = together.generate([PROMPTS[AT]] * 8, [params(i) for i in range(8)])
    assert sum(finish.usage.cached_tokens for finish in finishes) == 7 * ((len(PROMPTS[AT]) - 1) // 16 * 16) > 0
    assert_bitwise(seen, reference)


@each_kind
def test_preemption_changes_no_bit(kind, seen):
    reference, segment = alone(kind, seen)
    pages = 9
    short = deterministic(
        kind,
        memory=pages * bytes_per_page(CONFIG, 16, model_of(kind).compute_dtype),
        max_batch=4,
        window=16 * pages,
    )
    request = {}
    for prompt in (PROMPTS[1], PROMPTS[9], PROMPTS[AT]):
        request[short.submit(prompt, params(3, NEW if prompt is PROMPTS[AT] else 80))] = prompt
    finished, preempted = {}, False
    while short.has_work:
        finished.update((event.request, event) for event in short.step() if isinstance(event, FinishEvent))
        preempted |= any(s.prompt_ids == tuple(PROMPTS[AT]) and s.num_generated for s in short._scheduler.waiting)
    assert preempted, "the sequence that is compared gave way in the middle"
    assert finished[max(request)].segment == segment
    assert_bitwise(seen, reference)


@each_kind
def test_a_fork_changes_no_bit(kind, seen):
    reference, segment = alone(kind, seen)
    running = deterministic(kind)
    first = running.submit(PROMPTS[AT], params())
    for _ in range(8):
        running.step()
    fork, other = running.fork(first, seed=3), running.fork(first, seed=4)
    finished = {}
    while running.has_work:
        finished.update((event.request, event) for event in running.step() if isinstance(event, FinishEvent))
    assert finished[first].segment == finished[fork].segment == segment
    assert finished[other].ids[:8] == segment.ids[:8]
    assert finished[other].ids != segment.ids
    assert_bitwise(seen, reference)


@pytest.mark.parametrize("threads", [1, 2])
def test_log_probabilities_of_a_large_vocabulary_do_not_depend_on_the_batch(threads):
    """A library may sum one long row in another order than one of several."""
    torch.set_num_threads(threads)
    model = tiny_model(vocab_size=65536, num_layers=1)
    chosen = [params(i, n=3, top_logprobs=3, temperature=0.8 + 0.1 * (i % 3)) for i in range(5)]
    prompts = [[11 * i + j for j in range(6 + i)] for i in range(5)]
    together = Engine(model, TOKENS, deterministic=True).generate(prompts, chosen)
    for prompt, each, finish in zip(prompts, chosen, together, strict=True):
        assert Engine(model, TOKENS, deterministic=True).generate([prompt], each)[0].segment == finish.segment


# The training forward ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("step_tokens", [13, 2048])
def test_log_probabilities_are_those_of_training(kernel, exact, step_tokens):
    """With prefixes found in the tree, chunks, groups that share pages, and forks."""
    model = kernel.tiny_model(seed=3, max_positions=512)
    running = kernel.engine(model, TOKENS, deterministic=exact, step_tokens=step_tokens)
    prefix = [(3 * i * i) % 300 for i in range(150)]
    running.generate([prefix], params(n=2))
    requests = [running.submit([*prefix, *([i] * i), 7], params(i, n=12)) for i in range(9)]
    finished, forks = {}, []
    while running.has_work:
        for event in running.step():
            if isinstance(event, FinishEvent):
                finished[event.request] = event
            elif event.index == 5 and event.request in requests:
                forks.append(running.fork(event.request, seed=event.request + 50))
    assert [finished[request].usage.cached_tokens for request in requests] == [144] * 9
    assert len(forks) == 9
    assert len({finish.ids for finish in finished.values()}) == 18
    for finish in finished.values():
        assert_logprobs_are_those_of_training(model, finish.segment)


def test_log_probabilities_are_those_of_training_after_preemption(kernel):
    model = kernel.tiny_model(seed=3)
    memory = 10 * bytes_per_page(model.config, 16, model.compute_dtype)
    running = kernel.engine(model, TOKENS, memory=memory, max_batch=10, window=160)
    prompts = [[(7 * i * i + j) % 300 for j in range(4 + 3 * i)] for i in range(10)]
    finishes = running.generate(prompts, [params(i, n=50) for i in range(10)])
    assert running.stats.counters.preemptions > 5
    for finish in finishes:
        assert_logprobs_are_those_of_training(model, finish.segment)
