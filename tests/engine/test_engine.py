"""The engine's contract: what is generated depends on the request alone, and everything asked for is kept."""

from dataclasses import replace

import pytest
import torch

from ponder.engine import FinishEvent, TokenEvent
from ponder.testing.parity import TOLERANCE, assert_logprobs_are_those_of_training, training_logprobs
from ponder.types import (
    InvalidRequest,
    Origin,
    Phase,
    PhaseTokens,
    PonderError,
    SamplingParams,
    StopReason,
    Usage,
    WindowExceeded,
)

OPEN, CLOSE, CALL, END_CALL, WAIT, END = 300, 301, 302, 303, 304, 305
TOKENS = PhaseTokens(
    think_open=OPEN, think_close=CLOSE, call_open=CALL, call_close=END_CALL, continuation=(WAIT,), end=(END,)
)
PROMPTS = [[(7 * i + j) % 290 for j in range(3 + 5 * i)] for i in range(9)]


@pytest.fixture
def engine(kernel):
    return lambda **options: kernel.engine(kernel.tiny_model(), TOKENS, **options)


def sampled(n=12, seed=5, **fields):
    return SamplingParams(max_tokens=n, seed=seed, **fields)


GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


@pytest.mark.parametrize("params", [GREEDY, sampled(), sampled(top_k=20, top_p=0.9, min_p=0.01, temperature=0.7)])
def test_batched_equals_single(engine, params):
    alone = [engine().generate([prompt], params)[0].segment for prompt in PROMPTS]
    together = [finish.segment for finish in engine().generate(PROMPTS, params)]
    assert [s.ids for s in together] == [s.ids for s in alone]
    for a, b in zip(alone, together, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_a_batch_smaller_than_the_queue_changes_nothing(engine):
    whole = engine(max_batch=16).generate(PROMPTS, sampled())
    assert [f.segment.ids for f in engine(max_batch=2).generate(PROMPTS, sampled())] == [f.segment.ids for f in whole]


@pytest.mark.parametrize("step_tokens", [1, 2, 7, 64])
def test_chunked_prefill_changes_nothing(engine, step_tokens):
    whole = engine().generate(PROMPTS, sampled())
    chunked = engine(step_tokens=step_tokens).generate(PROMPTS, sampled())
    assert [f.segment.ids for f in chunked] == [f.segment.ids for f in whole]


def test_the_same_seed_gives_the_same_tokens_whatever_the_neighbours(engine):
    alone = engine().generate([PROMPTS[2]], sampled(seed=11))[0].segment.ids
    for neighbours in ([GREEDY], [sampled(seed=1), sampled(top_k=3)], [sampled(temperature=2.0)] * 6):
        prompts = [PROMPTS[2], *PROMPTS[3 : 3 + len(neighbours)]]
        for order in (1, -1):
            results = engine().generate(prompts[::order], [sampled(seed=11), *neighbours][::order])[::order]
            assert results[0].segment.ids == alone


def test_different_seeds_give_different_tokens_and_no_seed_is_drawn_anew(engine):
    with_seeds = engine().generate([PROMPTS[3]] * 4, [sampled(seed=i) for i in range(4)])
    unseeded = engine().generate([PROMPTS[3]] * 4, sampled(seed=None))
    assert len({f.segment.ids for f in with_seeds}) == 4
    assert len({f.segment.ids for f in unseeded}) == 4


def test_streamed_equals_whole(engine):
    running = engine()
    requests = [running.submit(prompt, sampled(seed=i), start=Phase.THINK) for i, prompt in enumerate(PROMPTS)]
    streams = {request: [] for request in requests}
    finished = {}
    while running.has_work:
        for event in running.step():
            assert event.request not in finished, "nothing follows a request's end"
            if isinstance(event, TokenEvent):
                assert event.index == len(streams[event.request])
                streams[event.request].append(event)
            else:
                finished[event.request] = event
    for request in requests:
        segment, events = finished[request].segment, streams[request]
        assert segment.ids == tuple(e.id for e in events)
        assert segment.logprobs == tuple(e.logprob for e in events)
        assert segment.phases == tuple(e.phase for e in events)
        assert segment.origins == tuple(e.origin for e in events)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 1.7])
def test_logprobs_equal_the_training_forward(kernel, temperature):
    model = kernel.tiny_model(seed=3)
    running = kernel.engine(model, TOKENS)
    params = [sampled(seed=i, temperature=temperature, top_k=i) for i in range(len(PROMPTS))]
    for finish in running.generate(PROMPTS, params, start=Phase.THINK):
        assert_logprobs_are_those_of_training(model, finish.segment, temperature)


def test_greedy_takes_the_most_likely_token_of_the_training_forward(kernel):
    model = kernel.tiny_model(seed=4)
    segment = kernel.engine(model, TOKENS).generate([PROMPTS[4]], GREEDY)[0].segment
    expected_TV = training_logprobs(model, segment)
    taken_T = expected_TV.gather(-1, torch.tensor(segment.ids)[:, None])[:, 0]
    torch.testing.assert_close(taken_T, expected_TV.amax(-1), atol=TOLERANCE[model.compute_dtype], rtol=0)


def test_bfloat16_runs_in_the_models_own_precision(kernel):
    model = kernel.tiny_model(seed=3).to(torch.bfloat16)
    segment = kernel.engine(model, TOKENS).generate([PROMPTS[4]], GREEDY)[0].segment
    assert_logprobs_are_those_of_training(model, segment)


# Ends --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole_ids(engine):
    """What a request generates when nothing stops it early."""
    return engine().generate([PROMPTS[3]], sampled(30, seed=2))[0].segment.ids


def test_max_tokens_ends_with_length(engine):
    for n in (1, 2, 5):
        finish = engine().generate([PROMPTS[0]], sampled(n))[0]
        assert finish.stop_reason is StopReason.LENGTH
        assert len(finish.segment.ids) == n


def test_the_window_ends_with_length(engine):
    prompt = PROMPTS[4]
    finish = engine(window=len(prompt) + 6).generate([prompt], SamplingParams(temperature=0.0))[0]
    assert finish.stop_reason is StopReason.LENGTH
    assert len(finish.segment.ids) == 6


def test_a_stop_id_ends_with_stop_and_is_kept(engine, whole_ids):
    finish = engine().generate([PROMPTS[3]], sampled(30, seed=2, stop_ids=(whole_ids[4],)))[0]
    assert finish.stop_reason is StopReason.STOP
    assert finish.segment.ids == whole_ids[: whole_ids.index(whole_ids[4]) + 1]


def test_the_end_token_ends_with_end_and_is_kept(kernel, whole_ids):
    ends = kernel.engine(kernel.tiny_model(), replace(TOKENS, end=(whole_ids[6],)))
    finish = ends.generate([PROMPTS[3]], sampled(30, seed=2, stop_ids=(whole_ids[6],)))[0]
    assert finish.stop_reason is StopReason.END
    assert finish.segment.ids == whole_ids[: whole_ids.index(whole_ids[6]) + 1]


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_abort_at_any_point_frees_the_slot_and_keeps_what_was_made(engine, after):
    running = engine(max_batch=2, step_tokens=16)
    requests = [running.submit(prompt, sampled()) for prompt in PROMPTS[3:8]]
    events = [event for _ in range(after) for event in running.step()]
    for request in requests:
        finish = running.abort(request)
        made = tuple(e.id for e in events if isinstance(e, TokenEvent) and e.request == request)
        assert isinstance(finish, FinishEvent)
        assert finish.stop_reason is StopReason.ABORTED
        assert finish.segment.ids == made
        assert running.abort(request) is None
    assert (running.num_running, running.num_waiting, running.has_work, running.step()) == (0, 0, False, [])
    after_aborts = [f.segment.ids for f in running.generate(PROMPTS, sampled())]
    assert after_aborts == [f.segment.ids for f in engine().generate(PROMPTS, sampled())]


def test_usage_counts_every_token_once(engine):
    finish = engine().generate([PROMPTS[2]], sampled(seed=1), start=Phase.THINK)[0]
    phases = finish.segment.phases
    assert finish.usage == Usage(len(PROMPTS[2]), len(phases), phases.count(Phase.THINK), 0)
    assert finish.segment.origins == (Origin.SAMPLED,) * len(phases)


def test_a_broken_model_is_an_error_and_what_it_computed_is_gone(kernel, engine):
    model = kernel.tiny_model()
    running = kernel.engine(model, TOKENS)
    with running.update_weights(), torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(PonderError, match="not finite"):
        running.generate([PROMPTS[3]], GREEDY)
    with running.update_weights(), torch.no_grad():
        model.model.norm.weight[0] = 1.0
    assert (
        running.generate([PROMPTS[3]], GREEDY)[0].segment.ids == engine().generate([PROMPTS[3]], GREEDY)[0].segment.ids
    )


@pytest.mark.cuda
@pytest.mark.parametrize("kernel", ["torch"], indirect=True)
def test_a_gpu_gives_what_the_cpu_gives(kernel):
    there = kernel.engine(kernel.tiny_model().to("cuda"), TOKENS, max_batch=4, step_tokens=16)
    params = [SamplingParams(max_tokens=12, temperature=0.0), sampled(), sampled(top_p=0.9)] * 3
    for finish in there.generate(PROMPTS, params):
        assert_logprobs_are_those_of_training(kernel.tiny_model(), finish.segment, atol=1e-3)


# Refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"max_tokens": 0}, "max_tokens must be an integer of at least 1 (got 0)"),
        ({"max_tokens": 1.5}, "max_tokens must be an integer of at least 1 (got 1.5)"),
        ({"max_tokens": True}, "max_tokens must be an integer of at least 1 (got True)"),
        ({"temperature": -0.1}, "temperature must be a finite number of at least 0 (got -0.1)"),
        ({"temperature": float("nan")}, "temperature must be a finite number of at least 0 (got nan)"),
        ({"temperature": float("inf")}, "temperature must be a finite number of at least 0 (got inf)"),
        ({"top_k": -1}, "top_k must be an integer of at least 0 (got -1)"),
        ({"top_p": 0.0}, "top_p must be a number above 0 and at most 1 (got 0.0)"),
        ({"top_p": 1.1}, "top_p must be a number above 0 and at most 1 (got 1.1)"),
        ({"min_p": 1.1}, "min_p must be a number from 0 to 1 (got 1.1)"),
        ({"seed": -1}, "seed must be an integer from 0 to 18446744073709551615 (got -1)"),
        ({"seed": 2**64}, "seed must be an integer from 0 to 18446744073709551615 (got 18446744073709551616)"),
        ({"stop_ids": (320,)}, "stop_ids must be an integer from 0 to 319 (got 320)"),
        ({"answer_room": -1}, "answer_room must be an integer of at least 0 (got -1)"),
    ],
)
def test_a_bad_parameter_is_refused_by_name_value_and_range(engine, fields, text):
    with pytest.raises(InvalidRequest) as refused:
        engine().submit([1], SamplingParams(**fields))
    assert text in str(refused.value)


def test_a_bad_prompt_is_refused(engine):
    for prompt, text in (
        ([], "empty"),
        ([5, 320], r"ids\[1\] must be .*got 320"),
        ([1.0], r"ids\[0\] must be .*got 1.0"),
    ):
        with pytest.raises(InvalidRequest, match=text):
            engine().submit(prompt, GREEDY)


def test_a_prompt_that_fills_the_window_is_refused_with_the_counts(engine):
    with pytest.raises(WindowExceeded, match="the prompt has 20 tokens, but the window of 20") as refused:
        engine(window=20).submit(list(range(20)), GREEDY)
    assert (refused.value.prompt_tokens, refused.value.window) == (20, 20)


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"window": 1}, {"window": 257}, {"step_tokens": 0}])
def test_impossible_sizes_are_refused(engine, options):
    with pytest.raises(InvalidRequest, match=f"{next(iter(options))} must be .*got {next(iter(options.values()))}"):
        engine(**options)


def test_phase_tokens_outside_the_vocabulary_are_refused(kernel):
    with pytest.raises(InvalidRequest, match="320"):
        kernel.engine(kernel.tiny_model(), replace(TOKENS, continuation=(320,)))


def test_generate_needs_an_idle_engine(engine):
    running = engine()
    running.submit([1], GREEDY)
    with pytest.raises(InvalidRequest, match="idle engine"):
        running.generate([[1]], GREEDY)


def test_a_refused_prompt_among_many_leaves_nothing_behind(engine):
    running = engine()
    with pytest.raises(InvalidRequest):
        running.generate([[1], []], GREEDY)
    assert not running.has_work
