"""Pages that run out: the sequence that came last is preempted and waits with its tokens; in the end nothing shows."""

import pytest

from ponder.engine import FinishEvent, TokenEvent
from ponder.engine.pages import bytes_per_page
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams, StopReason

TOKENS = PhaseTokens(think_open=300, think_close=301, state_open=302, fold=303, end=(305,))
PROMPTS = [[(7 * i * i + 3 * j) % 290 for j in range(2 + i % 15)] for i in range(48)]


@pytest.fixture
def engine(kernel):
    """engine(pages): one whose cache has this number of pages."""

    def engine(pages, **options):
        model = kernel.tiny_model(num_layers=1)
        page = bytes_per_page(model.config, 16, model.compute_dtype)
        return kernel.engine(model, TOKENS, memory=pages * page, window=128, **options)

    return engine


def greedy(n=75):
    return SamplingParams(max_tokens=n, temperature=0.0)


def sampled(seed, n=75, **fields):
    return SamplingParams(max_tokens=n, seed=seed, **fields)


def drain(running, pages):
    """Step until nothing is left to do. The finishes by request; memory is never exceeded."""
    finished = {}
    while running.has_work:
        finished.update((event.request, event) for event in running.step() if isinstance(event, FinishEvent))
        stats = running.stats
        assert stats.pages_used + stats.pages_cached + stats.pages_free == pages
    assert running.stats.pages_used == 0
    return finished


def assert_same(finish, expected):
    assert (finish.ids, finish.stop_reason) == (expected.ids, expected.stop_reason)
    assert finish.segment.logprobs == pytest.approx(expected.segment.logprobs, abs=1e-4)
    assert finish.usage.completion_tokens == expected.usage.completion_tokens


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"temperature": 0.0}, {}),
        ({}, {}),
        ({"temperature": 0.0}, {"share_prefixes": False}),
        ({"top_p": 0.9}, {"step_tokens": 9}),
    ],
)
def test_a_hundred_preemptions_change_no_token(engine, fields, options):
    params = [sampled(i, **fields) for i in range(len(PROMPTS))]
    calm = engine(1000)
    expected = calm.generate(PROMPTS, params)
    assert calm.stats.counters.preemptions == 0
    short = engine(8, max_batch=12, **options)
    requests = [short.submit(prompt, each) for prompt, each in zip(PROMPTS, params, strict=True)]
    finished = drain(short, pages=8)
    assert short.stats.counters.preemptions >= 100
    for request, other in zip(requests, expected, strict=True):
        assert_same(finished[request], other)


def test_who_came_first_is_never_preempted(engine):
    running = engine(8, max_batch=12)
    requests = [running.submit(prompt, greedy()) for prompt in PROMPTS]
    finished = set()
    for _ in range(400):
        events = running.step()
        oldest = next(request for request in requests if request not in finished)
        assert events[0].request == oldest, "the oldest moves on in every step"
        finished |= {event.request for event in events if isinstance(event, FinishEvent)}
    assert running.stats.counters.preemptions > 20


def test_a_sequence_that_fills_the_whole_cache_finishes_whatever_waits_beside_it(engine):
    running = engine(8, max_batch=4)
    long = running.submit(PROMPTS[3], SamplingParams(temperature=0.0))
    others = [running.submit(prompt, sampled(i)) for i, prompt in enumerate(PROMPTS[4:8])]
    finished, most = {}, 0
    while running.has_work:
        finished.update((e.request, e) for e in running.step() if isinstance(e, FinishEvent))
        most = max(most, running.stats.pages_used)
    assert (finished[long].stop_reason, most) == (StopReason.LENGTH, 8)
    assert len(PROMPTS[3]) + len(finished[long].ids) == 128, "the window, which is the whole cache"
    assert running.stats.counters.preemptions
    calm = engine(1000)
    assert_same(finished[long], calm.generate([PROMPTS[3]], SamplingParams(temperature=0.0))[0])
    for i, request in enumerate(others):
        assert_same(finished[request], calm.generate([PROMPTS[4 + i]], sampled(i))[0])


def test_forks_under_pressure_go_on_as_they_would_in_peace(engine):
    """Forks of everything, taken at the same tokens with the same seeds, with plenty of pages and with few."""

    def run(pages):
        running = engine(pages, max_batch=10)
        made = {running.submit(prompt, sampled(i)): (i,) for i, prompt in enumerate(PROMPTS[:6])}
        finished = {}
        while running.has_work:
            for event in running.step():
                if isinstance(event, FinishEvent):
                    finished[made[event.request]] = event
                    continue
                goes_on = event.id not in TOKENS.end
                if goes_on and event.index + 1 in (7, 30) and len(made[event.request]) < 3:
                    name = (*made[event.request], event.index + 1)
                    fork = running.fork(event.request, seed=sum(name))
                    made[fork] = name
            stats = running.stats
            assert stats.pages_used + stats.pages_cached + stats.pages_free == pages
        assert running.stats.pages_used == 0
        return finished, running.stats.counters.preemptions

    expected, calm = run(1000)
    finished, preemptions = run(9)
    assert (calm, preemptions > 20) == (0, True)
    assert finished.keys() == expected.keys()
    assert len(finished) > 18
    for name, finish in finished.items():
        assert_same(finish, expected[name])


def test_next_turn_prefixes_are_evicted_before_sequences_are_preempted(engine):
    running = engine(8, max_batch=2)
    number = running.open_next_turn([(3 * i) % 290 for i in range(64)])
    request = running.submit(PROMPTS[3], greedy(90))
    for _ in range(3):
        running.step()
    assert running.stats.pages_used >= 5, "four of the next-turn prefix"
    finished = drain(running, pages=8)
    assert running.stats.counters.next_turns_dropped == 1
    assert running.stats.counters.preemptions == 0
    assert running.stats.pages_used == 0
    running.close_next_turn(number, [(3 * i) % 290 for i in range(64)])
    drain(running, pages=8)
    assert (running.stats.next_turns, running.stats.counters.next_turns_finished) == (0, 1), "there is room now"
    assert_same(finished[request], engine(1000).generate([PROMPTS[3]], greedy(90))[0])
    with pytest.raises(InvalidRequest, match=f"next turn {number} is not open"):
        running.extend_next_turn(number, [1, 2, 3])


def test_what_is_only_cached_is_evicted_before_next_turn_prefixes(engine):
    running = engine(8, max_batch=2)
    running.generate([[(5 * i + 1) % 290 for i in range(64)]], greedy(1))
    assert running.stats.pages_cached == 4
    running.open_next_turn([(3 * i) % 290 for i in range(32)])
    request = running.submit(PROMPTS[3], greedy(70))
    finished = drain_until_finished(running)
    assert (running.stats.evictions, running.stats.counters.next_turns_dropped, running.stats.next_turns) == (3, 0, 1)
    assert_same(finished[request], engine(1000).generate([PROMPTS[3]], greedy(70))[0])


def drain_until_finished(running):
    finished = {}
    while running.num_running or running.num_waiting:
        finished.update((event.request, event) for event in running.step() if isinstance(event, FinishEvent))
    return finished


def test_abort_and_fork_of_a_preempted_sequence(engine):
    running = engine(8, max_batch=3)
    first, second = running.submit(PROMPTS[3], sampled(1, 110)), running.submit(PROMPTS[4], sampled(2, 90))
    third = running.submit(PROMPTS[5], sampled(3, 60))
    tokens = {first: [], second: [], third: []}
    while not running.stats.counters.preemptions:
        for event in running.step():
            tokens[event.request].append(event.id)
    assert running.num_waiting == 1
    fork = running.fork(third, seed=3)
    finish = running.abort(third)
    assert list(finish.ids) == tokens[third], "what it had is not lost with its pages"
    assert len(tokens[third]) > 20
    finished = drain(running, pages=8)
    calm = engine(1000)
    for request, prompt, params in (
        (first, 3, sampled(1, 110)),
        (second, 4, sampled(2, 90)),
        (fork, 5, sampled(3, 60)),
    ):
        assert finished[request].ids == calm.generate([PROMPTS[prompt]], params)[0].ids


def test_tokens_are_streamed_once_however_often_a_sequence_is_preempted(engine):
    running = engine(8, max_batch=12)
    streams = {running.submit(prompt, sampled(i)): [] for i, prompt in enumerate(PROMPTS[:15])}
    while running.has_work:
        for event in running.step():
            if isinstance(event, TokenEvent):
                assert event.index == len(streams[event.request])
                streams[event.request].append(event.id)
            else:
                assert list(event.ids) == streams[event.request]
    assert running.stats.counters.preemptions >= 20


def test_memory_that_holds_less_than_the_window_is_refused(engine):
    with pytest.raises(InvalidRequest, match="fewer than the window of 128"):
        engine(7)
