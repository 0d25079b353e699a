"""Pages that run out: whoever came last gives way, waits with its tokens, and in the end nothing shows."""

import pytest
import torch

from ponder.engine import Engine, FinishEvent
from ponder.engine.pages import bytes_per_page
from ponder.testing.tiny import tiny_config, tiny_model
from ponder.types import InvalidRequest, Phase, PhaseTokens, SamplingParams, StopReason, ThinkingLimits

OPEN, CLOSE, STATE, FOLD, END = 300, 301, 302, 303, 305
TOKENS = PhaseTokens(think_open=OPEN, think_close=CLOSE, state_open=STATE, fold=FOLD, end=(END,))
PAGE_BYTES = bytes_per_page(tiny_config(), 16, torch.float32)
PROMPTS = [[(7 * i * i + 3 * j) % 290 for j in range(3 + (11 * i) % 45)] for i in range(24)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def engine(pages, **options):
    return Engine(tiny_model(), TOKENS, memory=pages * PAGE_BYTES, window=128, **options)


def plenty(**options):
    return engine(1000, **options)


def greedy(n=50):
    return SamplingParams(max_tokens=n, temperature=0.0)


def sampled(seed, n=50, **fields):
    return SamplingParams(max_tokens=n, seed=seed, **fields)


def drain(running):
    """Step until nothing is left to do; the finishes by request, and the most pages that were ever used."""
    finished, most = {}, 0
    while running.has_work:
        finished.update((event.request, event) for event in running.step() if isinstance(event, FinishEvent))
        stats = running.stats
        most = max(most, stats.pages_used)
        assert stats.pages_used + stats.pages_cached + stats.pages_free == running._blocks.num_pages
    return finished, most


@pytest.mark.parametrize("options", [{}, {"share_prefixes": False}, {"step_tokens": 9}])
@pytest.mark.parametrize("chosen", [lambda i: greedy(), lambda i: sampled(i), lambda i: sampled(i, top_p=0.9)])
def test_a_hundred_preemptions_change_no_token(chosen, options):
    params = [chosen(i) for i in range(len(PROMPTS))]
    calm, short = plenty(), engine(9, max_batch=9, **options)
    expected = calm.generate(PROMPTS, params)
    finishes = short.generate(PROMPTS, params)
    assert calm.stats.counters.preemptions == 0
    assert short.stats.counters.preemptions >= 30
    assert [f.ids for f in finishes] == [f.ids for f in expected]
    assert [f.stop_reason for f in finishes] == [f.stop_reason for f in expected]
    for finish, other in zip(finishes, expected, strict=True):
        assert finish.segment.logprobs == pytest.approx(other.segment.logprobs, abs=1e-4)
        assert finish.usage.completion_tokens == len(finish.ids)
    assert short.stats.pages_used == 0
