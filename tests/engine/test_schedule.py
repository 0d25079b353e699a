"""Whatever the schedule of submitting, stepping and aborting: each sequence is what it would be alone."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder.engine import FinishEvent
from ponder.types import Origin, Phase, PhaseTokens, SamplingParams, StopReason, ThinkingLimits

OPEN, CLOSE, CALL, END_CALL, END = range(8, 13)
TOKENS = PhaseTokens(
    think_open=OPEN, think_close=CLOSE, call_open=CALL, call_close=END_CALL, continuation=(1, 2), end=(END,)
)
pytestmark = pytest.mark.property

prompts = st.integers(0, 40).flatmap(
    lambda shared: st.lists(st.integers(0, 7), min_size=1, max_size=4).map(
        lambda tail: [3, 1, 4] * (shared // 3) + tail
    )
)
limits = st.builds(ThinkingLimits, cap=st.none() | st.integers(1, 12), floor=st.integers(0, 8))
requests = st.builds(
    SamplingParams,
    max_tokens=st.integers(12, 30),
    temperature=st.sampled_from([0.0, 1.0, 2.0]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.8]),
    seed=st.integers(0, 2**64 - 1),
    thinking=limits,
    answer_room=st.integers(0, 11),
)
actions = st.lists(
    st.tuples(st.just("submit"), prompts, requests, st.sampled_from([Phase.THINK, Phase.ANSWER]))
    | st.tuples(st.just("step"), st.integers(1, 6))
    | st.tuples(st.just("abort"), st.integers(0, 20)),
    max_size=25,
)


def assert_limits_kept(params, start, segment):
    thought = [i for i, phase in enumerate(segment.phases) if phase is Phase.THINK]
    cap, room = params.thinking.cap, params.answer_room
    if cap is not None:
        assert len(thought) <= cap
    if room and thought:
        assert thought[-1] < params.max_tokens - room
    if start is Phase.THINK and CLOSE in segment.ids:
        least = params.thinking.floor if cap is None else min(params.thinking.floor, cap)
        least = min(least, params.max_tokens - room) if room else least
        assert segment.ids.index(CLOSE) + 1 >= least
    for id, origin, phase in zip(segment.ids, segment.origins, segment.phases, strict=True):
        assert origin is Origin.SAMPLED or (phase is Phase.THINK and id in (CLOSE, *TOKENS.continuation))


# The fixture that hypothesis warns of chooses a kernel: for all examples the same.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions, st.integers(1, 5), st.sampled_from([3, 16, 2048]))
def test_every_schedule_gives_each_sequence_what_it_gets_alone(kernel, schedule, max_batch, step_tokens):
    model = kernel.tiny_model(vocab_size=32, num_layers=1)
    engine = kernel.engine(model, TOKENS, max_batch=max_batch, step_tokens=step_tokens)
    submitted, finished = {}, {}

    def step():
        finished.update((e.request, e) for e in engine.step() if isinstance(e, FinishEvent))
        assert engine.num_running <= max_batch

    for action, *arguments in schedule:
        if action == "submit":
            prompt, params, start = arguments
            submitted[engine.submit(prompt, params, start=start)] = (prompt, params, start)
        elif action == "step":
            for _ in range(arguments[0]):
                step()
        elif submitted:
            request = list(submitted)[arguments[0] % len(submitted)]
            ended = engine.abort(request)
            assert (ended is None) == (request in finished)
            finished.setdefault(request, ended)
    while engine.has_work:
        step()

    assert (engine.num_running, engine.num_waiting) == (0, 0)
    assert set(finished) == set(submitted)
    for request, (prompt, params, start) in submitted.items():
        segment, usage = finished[request].segment, finished[request].usage
        alone = kernel.engine(model, TOKENS).generate([prompt], params, start=start)[0]
        made = len(segment.ids)
        if finished[request].stop_reason is not StopReason.ABORTED:
            assert (made, finished[request].stop_reason) == (len(alone.segment.ids), alone.stop_reason)
        assert segment.ids == alone.segment.ids[:made]
        assert segment.phases == alone.segment.phases[:made]
        assert segment.logprobs == pytest.approx(alone.segment.logprobs[:made], abs=1e-3)
        assert 0 <= usage.cached_tokens < len(prompt)
        assert_limits_kept(params, start, segment)
