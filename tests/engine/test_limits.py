"""Control over one sequence: limits beside grammars and stops, confidence, bias, top log-probabilities, deadlines, the
queue, forks, two engines at once. What cannot be kept is refused by name."""

import time

import pytest
import torch

from ponder.engine import FinishEvent, TokenEvent
from ponder.testing.parity import TOLERANCE, assert_logprobs_are_those_of_training, training_logprobs
from ponder.types import (
    ConfidenceStop,
    InvalidRequest,
    Origin,
    Overloaded,
    Phase,
    PhaseTokens,
    SamplingParams,
    StopReason,
    ThinkingLimits,
)

DIGITS = range(10)
LEAD = (24, 25)
WAIT = (20, 21)
OPEN, CLOSE, END = 29, 30, 31
TOKENS = PhaseTokens(think_open=OPEN, think_close=CLOSE, continuation=WAIT, lead=LEAD, end=(END,))
NEVER_CLOSES = ((CLOSE, -60.0), (END, -60.0), (OPEN, -60.0))
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
THINK, ANSWER = Phase.THINK, Phase.ANSWER
CAPS = range(65)


@pytest.fixture
def model(kernel):
    return kernel.tiny_model(vocab_size=32, num_layers=1)


@pytest.fixture
def engine(kernel, model):
    return lambda **options: kernel.engine(model, TOKENS, **options)


class Number:
    """`count` digits, then the end."""

    def __init__(self, count=5, seen=()):
        self.count = count
        self.seen = list(seen)

    def allowed(self):
        allowed_V = torch.zeros(32, dtype=torch.bool)
        allowed_V[list(DIGITS) if len(self.seen) < self.count else [END]] = True
        return allowed_V

    def advance(self, id):
        assert self.allowed()[id], "only what was allowed is produced"
        self.seen.append(id)

    def fork(self):
        return Number(self.count, self.seen)


def drain(running):
    finished = {}
    while running.has_work:
        finished.update((event.request, event) for event in running.step() if isinstance(event, FinishEvent))
    return finished


@pytest.fixture
def run_all(engine):
    """run_all(params of a cap): one request per cap in one batch. cap → (segment, finish, constraint). A cap of 0 is a
    direct prompt."""

    def run_all(each, constraint=True):
        running = engine()
        requests = {}
        for cap in CAPS:
            number = Number() if constraint else None
            start = ANSWER if cap == 0 else THINK
            requests[cap] = running.submit(PROMPT, each(cap), start=start, constraint=number), number
        finished = drain(running)
        ends = {cap: (finished[request], number) for cap, (request, number) in requests.items()}
        return {cap: (finish.segment, finish, number) for cap, (finish, number) in ends.items()}

    return run_all


# Limits beside a grammar and stops ---------------------------------------------------------------------------------


def test_a_grammar_begins_behind_the_cap_and_what_is_forced_there(run_all):
    results = run_all(
        lambda cap: SamplingParams(
            max_tokens=200, seed=cap, thinking=ThinkingLimits(cap=cap), logit_bias=NEVER_CLOSES, stop_ids=(CLOSE + 1,)
        )
    )
    for cap, (segment, finish, number) in results.items():
        lead = LEAD if cap else ()
        assert segment.phases == (THINK,) * cap + (ANSWER,) * (len(lead) + 6)
        assert segment.ids[max(cap - 1, 0) : cap] == (CLOSE,) * bool(cap)
        answer = segment.ids[cap:]
        assert answer[: len(lead)] == lead
        assert list(answer[len(lead) :]) == number.seen, "the grammar has seen neither thoughts nor lead"
        assert set(number.seen[:5]) <= set(DIGITS)
        assert number.seen[5] == END
        assert finish.stop_reason is StopReason.END
        forced = [at for at, origin in enumerate(segment.origins) if origin is Origin.FORCED]
        assert forced == ([cap - 1, cap, cap + 1] if cap else [])


def test_stops_end_an_answer_under_a_grammar_and_a_thought_before_it(run_all):
    stops = (3, 7)
    results = run_all(
        lambda cap: SamplingParams(
            max_tokens=200, seed=cap, thinking=ThinkingLimits(cap=cap), logit_bias=NEVER_CLOSES, stop_ids=stops
        )
    )
    reasons = []
    for cap, (segment, finish, _) in results.items():
        hit = next((at for at, id in enumerate(segment.ids) if id in stops), None)
        assert segment.phases.count(THINK) == (cap if ANSWER in segment.phases else len(segment.ids))
        assert segment.phases.count(THINK) <= cap
        if hit is None:
            assert finish.stop_reason is StopReason.END
        else:
            assert (hit, finish.stop_reason) == (len(segment.ids) - 1, StopReason.STOP)
        reasons.append((finish.stop_reason, segment.phases[-1]))
    assert {(StopReason.STOP, THINK), (StopReason.STOP, ANSWER), (StopReason.END, ANSWER)} <= set(reasons)


@pytest.mark.parametrize("floor", [1, 5, 40])
def test_floor_continuation_cap_and_grammar_together(run_all, floor):
    """A model that wants to close all the time."""
    eager = ((CLOSE, 60.0), (OPEN, -60.0))
    results = run_all(
        lambda cap: SamplingParams(
            max_tokens=200, seed=cap, thinking=ThinkingLimits(cap=cap, floor=floor), logit_bias=eager
        )
    )
    for cap, (segment, _, number) in results.items():
        if not cap:
            continue
        thought = segment.ids[: segment.phases.count(THINK)]
        #  "Wait" has two tokens: one that has begun is finished, unless the cap cuts it short
        whole = floor + (floor % 2 == 0)
        assert len(thought) == min(cap, whole)
        assert thought == (*(WAIT * floor)[: len(thought) - 1], CLOSE)
        assert segment.ids[len(thought) :][:2] == LEAD
        assert number.seen == list(segment.ids[len(thought) + 2 :])


@pytest.mark.parametrize("room", [1, 3, 9])
def test_room_cap_and_grammar_together(run_all, room):
    results = run_all(
        lambda cap: SamplingParams(
            max_tokens=40, seed=cap, thinking=ThinkingLimits(cap=cap), answer_room=room, logit_bias=NEVER_CLOSES
        )
    )
    for cap, (segment, finish, number) in results.items():
        thought = min(cap, 40 - room)
        assert segment.phases.count(THINK) == thought
        assert segment.phases == (THINK,) * thought + (ANSWER,) * (len(segment.ids) - thought)
        answer = len(segment.ids) - thought
        whole = (2 if cap else 0) + 6
        assert answer == min(whole, 40 - thought)
        assert finish.stop_reason is (StopReason.END if answer == whole else StopReason.LENGTH)
        assert list(segment.ids[thought + 2 * bool(cap) :]) == number.seen


def test_without_a_grammar_nothing_is_put_before_the_answer(run_all):
    results = run_all(
        lambda cap: SamplingParams(max_tokens=90, seed=1, thinking=ThinkingLimits(cap=cap), logit_bias=NEVER_CLOSES),
        constraint=False,
    )
    for cap, (segment, _, _) in results.items():
        assert segment.phases == (THINK,) * cap + (ANSWER,) * (90 - cap)
        assert [o is Origin.FORCED for o in segment.origins] == [at == cap - 1 for at in range(90)]


def test_a_grammar_changes_no_log_probability_only_the_choice(model, engine):
    running = engine()
    request = running.submit(PROMPT, SamplingParams(max_tokens=9, seed=1), constraint=Number())
    segment = drain(running)[request].segment
    assert_logprobs_are_those_of_training(model, segment)
    assert min(segment.logprobs) < -3, "the model would hardly have said so by itself"


def test_a_fork_takes_its_own_copy_of_the_grammar(engine):
    running = engine()
    number = Number(8)
    first = running.submit(PROMPT, SamplingParams(max_tokens=20, seed=1), constraint=number)
    for _ in range(4):
        running.step()
    forks = [running.fork(first, seed=seed) for seed in range(6)]
    finished = drain(running)
    for request in (first, *forks):
        ids = finished[request].ids
        assert (len(ids), ids[8], ids[:4]) == (9, END, tuple(number.seen[:4]))
        assert set(ids[:8]) <= set(DIGITS)
    assert len({finished[request].ids for request in forks}) > 1


# Confidence --------------------------------------------------------------------------------------------------------


def means(segment, window):
    """Confidence over the `window` tokens before each place from `window` on, of what was reported."""
    confidence = [-sum(value for _, value in top) / len(top) for top in segment.top_logprobs]
    return [sum(confidence[at - window : at]) / window for at in range(window, len(confidence))]


@pytest.mark.parametrize("window", [1, 4, 16])
@pytest.mark.parametrize("floor", [0, 20])
def test_thinking_closes_where_confidence_stays_low_exactly_by_the_rule(engine, window, floor):
    free = SamplingParams(max_tokens=60, seed=2, top_logprobs=5, logit_bias=NEVER_CLOSES)
    segment = engine().generate([PROMPT], free, start=THINK)[0].segment
    before = means(segment, window)
    lowest = [min(before[floor and floor - 1 - window :][:count]) for count in (1, 2, 4, 8, 16, 60)]
    expected = {}
    for threshold in (0.99 * lowest[-1], *(1.0001 * each for each in lowest)):
        stop = ConfidenceStop(threshold=threshold, window=window, top=5)
        limits = ThinkingLimits(floor=floor, confidence=stop)
        params = SamplingParams(max_tokens=60, seed=2, top_logprobs=5, logit_bias=NEVER_CLOSES, thinking=limits)
        stopped = engine().generate([PROMPT], params, start=THINK)[0].segment
        low = (window + i for i, mean in enumerate(before) if window + i + 1 >= floor and mean < threshold)
        at = expected[threshold] = next(low, None)
        if at is None:
            assert stopped == segment
            continue
        assert stopped.ids[:at] == segment.ids[:at]
        assert (stopped.ids[at], stopped.origins[at]) == (CLOSE, Origin.FORCED)
        assert stopped.phases == (THINK,) * (at + 1) + (ANSWER,) * (59 - at)
    assert None in expected.values()
    assert len(set(expected.values())) > 2, "the thresholds meet different places"


def test_the_cap_wins_over_confidence_that_stays_high(engine):
    limits = ThinkingLimits(cap=7, confidence=ConfidenceStop(threshold=0.01, window=2, top=5))
    params = SamplingParams(max_tokens=20, seed=2, thinking=limits, logit_bias=NEVER_CLOSES)
    segment = engine().generate([PROMPT], params, start=THINK)[0].segment
    assert segment.phases.count(THINK) == 7


# Bias and top log-probabilities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_bias_moves_the_choice_and_not_the_reported_log_probabilities(model, engine, temperature):
    plain = SamplingParams(max_tokens=20, seed=1, temperature=temperature)
    biased = SamplingParams(max_tokens=20, seed=1, temperature=temperature, logit_bias=((17, 100.0),))
    unlikely = engine().generate([PROMPT], plain)[0].segment
    segment = engine().generate([PROMPT], biased)[0].segment
    assert segment.ids == (17,) * 20 != unlikely.ids
    assert_logprobs_are_those_of_training(model, segment, temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_bias_is_added_to_the_logits_before_the_temperature(model, engine, temperature):
    with torch.no_grad():
        logits_V = model(torch.tensor([PROMPT], device=model.model.norm.weight.device))[0, -1].float()
    unlikely = (logits_V.max() - 3 - logits_V).abs().argmin().item()
    bias = (logits_V.max() - logits_V[unlikely]).item()
    assert 2 < bias < 4
    biased = ((unlikely, bias),)
    params = [SamplingParams(max_tokens=1, seed=i, temperature=temperature, logit_bias=biased) for i in range(600)]
    first = [finish.ids[0] for finish in engine().generate([PROMPT] * 600, params)]
    logits_V[unlikely] += bias  # now as likely as the likeliest
    expected = (logits_V / temperature).softmax(-1)[unlikely].item()
    assert first.count(unlikely) / 600 == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_top_log_probabilities_stand_beside_their_tokens(model, engine, temperature):
    running = engine()
    limits = ThinkingLimits(cap=6)
    asked = [
        SamplingParams(
            max_tokens=14, seed=i, temperature=temperature, top_logprobs=count, thinking=limits, logit_bias=NEVER_CLOSES
        )
        for i, count in enumerate((0, 1, 4, 20))
    ]
    requests = {running.submit(PROMPT, each, start=THINK): each for each in asked}
    events = {request: [] for request in requests}
    finished = {}
    while running.has_work:
        for event in running.step():
            if isinstance(event, TokenEvent):
                events[event.request].append(event.top_logprobs)
            else:
                finished[event.request] = event
    for request, params in requests.items():
        segment = finished[request].segment
        if not params.top_logprobs:
            assert segment.top_logprobs == ()
            continue
        assert segment.top_logprobs == tuple(events[request])
        expected_TV, near = training_logprobs(model, segment, temperature), TOLERANCE[model.compute_dtype]
        assert_logprobs_are_those_of_training(model, segment, temperature)
        for id, logprob, top, expected_V in zip(
            segment.ids, segment.logprobs, segment.top_logprobs, expected_TV, strict=True
        ):
            ids, values = zip(*top, strict=True)
            assert len(set(ids)) == params.top_logprobs
            assert values == pytest.approx(expected_V.topk(params.top_logprobs).values.tolist(), abs=near)
            assert values == pytest.approx(expected_V[list(ids)].tolist(), abs=near)
            assert dict(top).get(id, logprob) == pytest.approx(logprob, abs=1e-5)


# Deadlines and the queue -------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """`time.monotonic` as the engine sees it."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("place", ["queue", "prefill", "thinking", "answer"])
def test_a_deadline_ends_a_request_wherever_it_is(engine, place, clock):
    steps = {"queue": 3, "prefill": 2, "thinking": 8, "answer": 16}[place]
    running = engine(max_batch=1 if place == "queue" else 4, step_tokens=5)
    params = SamplingParams(max_tokens=50, seed=1, thinking=ThinkingLimits(cap=8), logit_bias=NEVER_CLOSES)
    if place == "queue":
        running.submit(PROMPT, params, start=THINK)
    request = running.submit(PROMPT, params, start=THINK, deadline=130.0)
    made = []
    for _ in range(steps):
        made += [event for event in running.step() if event.request == request]
    assert running.num_waiting == (place == "queue")
    phases = {"queue": set(), "prefill": set(), "thinking": {THINK}, "answer": {THINK, ANSWER}}[place]
    assert {event.phase for event in made} == phases
    clock[0] = 129.9
    made += [event for event in running.step() if event.request == request]
    assert not any(isinstance(event, FinishEvent) for event in made)
    clock[0] = 130.0
    finish = next(event for event in running.step() if event.request == request)
    assert isinstance(finish, FinishEvent)
    assert (finish.stop_reason, finish.ids) == (StopReason.DEADLINE, tuple(event.id for event in made))
    assert running.has_work == (place == "queue")
    drain(running)
    assert running.stats.pages_used == 0


def test_a_deadline_that_is_past_ends_a_request_before_it_begins(engine, clock):
    running = engine()
    request = running.submit(PROMPT, SamplingParams(max_tokens=5), deadline=99.0)
    (finish,) = running.step()
    assert (finish.request, finish.stop_reason, finish.ids) == (request, StopReason.DEADLINE, ())
    assert running.stats.counters.steps == 0


def test_a_fork_has_the_deadline_of_what_it_was_forked_from(engine, clock):
    running = engine()
    request = running.submit(PROMPT, SamplingParams(max_tokens=50, logit_bias=NEVER_CLOSES), deadline=130.0)
    running.step()
    fork = running.fork(request)
    running.abort(request)
    running.step()
    clock[0] = 131.0
    assert [(event.request, event.stop_reason) for event in running.step()] == [(fork, StopReason.DEADLINE)]
    assert not running.has_work


def test_the_queue_is_limited_in_requests(engine):
    running = engine(max_batch=1, max_waiting=2)
    params = SamplingParams(max_tokens=30, logit_bias=NEVER_CLOSES)
    running.submit(PROMPT, params)
    running.step()
    running.submit(PROMPT, params)
    last = running.submit(PROMPT, params)
    with pytest.raises(Overloaded, match=r"2 requests are waiting, which is the limit \(max_waiting\)"):
        running.submit(PROMPT, params)
    assert running.num_waiting == 2
    running.abort(last)
    running.submit(PROMPT, params)
    assert len(drain(running)) == 3


def test_the_queue_is_limited_in_tokens(engine):
    running = engine(max_batch=1, max_waiting_tokens=30)
    params = SamplingParams(max_tokens=30, logit_bias=NEVER_CLOSES)
    running.submit(PROMPT * 5, params)
    running.step()
    running.submit(PROMPT, params)
    with pytest.raises(Overloaded, match="11 tokens are waiting, and this one has 20, which exceeds the limit of 30"):
        running.submit(list(range(20)), params)
    running.submit(list(range(19)), params)
    assert (running.num_waiting, running.stats.waiting_tokens) == (2, 30)
    assert len(drain(running)) == 3


def test_a_prompt_longer_than_the_queues_limit_is_served_when_nothing_waits(engine):
    running = engine(max_waiting_tokens=30)
    running.submit(PROMPT * 5, SamplingParams(max_tokens=2))
    assert len(drain(running)) == 1


# Forks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share_prefixes", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 9, 20])
def test_a_fork_goes_on_from_the_same_text_with_its_own_seed_and_bill(model, engine, steps, share_prefixes):
    """Taken in the queue, in prefill (three steps long), and while it is decoded."""
    params = SamplingParams(max_tokens=30, seed=1, logit_bias=NEVER_CLOSES, thinking=ThinkingLimits(cap=12))
    prompt = PROMPT * 5
    whole = engine().generate([prompt], params, start=THINK)[0]
    running = engine(step_tokens=22, share_prefixes=share_prefixes)
    first = running.submit(prompt, params, start=THINK)
    made = sum(isinstance(event, TokenEvent) for _ in range(steps) for event in running.step())
    same, other, unseeded = running.fork(first, seed=1), running.fork(first, seed=2), running.fork(first)
    finished = drain(running)
    assert finished[first].ids == finished[same].ids == whole.ids
    assert finished[same].segment.logprobs == pytest.approx(whole.segment.logprobs, abs=1e-4)
    assert len({finished[request].ids for request in (first, other, unseeded)}) == 3
    for request in (same, other, unseeded):
        finish = finished[request]
        assert finish.ids[:made] == whole.ids[:made]
        assert finish.segment.phases == whole.segment.phases, "limits count from the beginning"
        bill = finish.usage
        assert (bill.prompt_tokens, bill.cached_tokens, bill.completion_tokens) == (0, 0, 30 - made)
        assert bill.reasoning_tokens == max(12 - made, 0)
        assert_logprobs_are_those_of_training(model, finish.segment)
    assert finished[first].usage == whole.usage
    assert running.stats.pages_used == 0


def test_forks_hold_their_common_pages_once(engine):
    running = engine()
    first = running.submit(PROMPT * 10, SamplingParams(max_tokens=60, seed=1, logit_bias=NEVER_CLOSES))
    running.step()
    for seed in range(10):
        running.fork(first, seed=seed)
    running.step()
    assert running.stats.running == 11
    assert running.stats.pages_used == 110 // 16 + 11
    drain(running)


def test_what_is_finished_cannot_be_forked(engine):
    running = engine()
    request = running.submit(PROMPT, SamplingParams(max_tokens=1))
    drain(running)
    for number in (request, 77):
        with pytest.raises(InvalidRequest, match=f"request {number} cannot be forked"):
            running.fork(number)


# Refusals ----------------------------------------------------------------------------------------------------------


def confidence(**fields):
    return {"thinking": ThinkingLimits(confidence=ConfidenceStop(**({"threshold": 1.0} | fields)))}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"max_tokens": "9"}, "max_tokens must be an integer of at least 1 (got '9')"),
        ({"temperature": "hot"}, "temperature must be a finite number of at least 0 (got 'hot')"),
        ({"temperature": True}, "temperature must be a finite number of at least 0 (got True)"),
        ({"top_k": 1.5}, "top_k must be an integer of at least 0 (got 1.5)"),
        ({"top_p": None}, "top_p must be a number above 0 and at most 1 (got None)"),
        ({"top_p": float("nan")}, "top_p must be a number above 0 and at most 1 (got nan)"),
        ({"min_p": -0.1}, "min_p must be a number from 0 to 1 (got -0.1)"),
        ({"seed": 1.0}, "seed must be an integer from 0 to 18446744073709551615 (got 1.0)"),
        ({"stop_ids": (-1,)}, "stop_ids must be an integer from 0 to 31 (got -1)"),
        ({"stop_ids": ("a",)}, "stop_ids must be an integer from 0 to 31 (got 'a')"),
        ({"answer_room": 1.0}, "answer_room must be an integer of at least 0 (got 1.0)"),
        ({"thinking": ThinkingLimits(cap=1.5)}, "thinking.cap must be an integer of at least 0 (got 1.5)"),
        ({"thinking": ThinkingLimits(cap=True)}, "thinking.cap must be an integer of at least 0 (got True)"),
        ({"thinking": ThinkingLimits(floor=None)}, "thinking.floor must be an integer of at least 0 (got None)"),
        ({"top_logprobs": -1}, "top_logprobs must be an integer from 0 to 20 (got -1)"),
        ({"top_logprobs": 21}, "top_logprobs must be an integer from 0 to 20 (got 21)"),
        ({"logit_bias": ((32, 1.0),)}, "logit_bias must be an integer from 0 to 31 (got 32)"),
        ({"logit_bias": ((-1, 1.0),)}, "logit_bias must be an integer from 0 to 31 (got -1)"),
        ({"logit_bias": ((3, float("inf")),)}, "logit_bias of 3 must be a finite number (got inf)"),
        ({"logit_bias": ((3, "more"),)}, "logit_bias of 3 must be a finite number (got 'more')"),
        (confidence(threshold=0), "thinking.confidence.threshold must be a number above 0 (got 0)"),
        (confidence(threshold=float("nan")), "thinking.confidence.threshold must be a number above 0 (got nan)"),
        (confidence(window=0), "thinking.confidence.window must be an integer of at least 1 (got 0)"),
        (confidence(top=0), "thinking.confidence.top must be an integer of at least 1 (got 0)"),
    ],
)
def test_a_bad_value_is_refused_by_name(engine, fields, text):
    running = engine()
    with pytest.raises(InvalidRequest) as refused:
        running.submit(PROMPT, SamplingParams(**fields))
    assert text in str(refused.value)
    assert not running.has_work


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda e: e.submit(PROMPT, SamplingParams(), start="banana"),
            "start must be 'think' or 'answer' (got 'banana')",
        ),
        (
            lambda e: e.submit(PROMPT, SamplingParams(), deadline="soon"),
            "deadline must be a finite time of time.monotonic() (got 'soon')",
        ),
        (
            lambda e: e.submit(PROMPT, SamplingParams(), deadline=float("nan")),
            "deadline must be a finite time of time.monotonic() (got nan)",
        ),
        (lambda e: e.fork(0, seed=-1), "(got -1)"),
        (lambda e: e.fork(7), "request 7 cannot be forked"),
        (lambda e: e.open_next_turn([3, 99_999]), "ids[1] must be an integer from 0 to 31 (got 99999)"),
        (lambda e: e.open_next_turn([1] * 500), "500 tokens does not fit"),
        (
            lambda e: e.extend_next_turn(e.open_next_turn([1]), ["1"]),
            "ids[0] must be an integer from 0 to 31 (got '1')",
        ),
    ],
)
def test_a_bad_call_is_refused_before_it_touches_anybody(engine, call, text):
    running = engine()
    running.submit(PROMPT, SamplingParams(max_tokens=5, seed=1))
    with pytest.raises(InvalidRequest) as refused:
        call(running)
    assert text in str(refused.value)
    while running.has_work:
        running.step()


def test_a_fork_that_would_wait_counts_as_waiting(engine):
    running = engine(max_batch=1, max_waiting=1)
    running.submit(PROMPT, SamplingParams(max_tokens=5, seed=1))
    running.step()
    running.fork(0)
    with pytest.raises(Overloaded, match="1 requests are waiting"):
        running.fork(0)


def test_unknown_fields_are_refused():
    for make in (SamplingParams, ThinkingLimits, ConfidenceStop):
        with pytest.raises(TypeError, match="best_of"):
            make(best_of=3)


@pytest.mark.parametrize("options", [{"max_waiting": 0}, {"max_waiting_tokens": 0}, {"max_waiting": 1.5}])
def test_an_impossible_queue_is_refused(engine, options):
    with pytest.raises(InvalidRequest, match=f"{next(iter(options))} must be .*got {next(iter(options.values()))}"):
        engine(**options)


# Two models in one process -----------------------------------------------------------------------------------------


def test_two_engines_with_two_models_take_turns_and_do_not_mix(kernel):
    models = [kernel.tiny_model(seed, vocab_size=32, num_layers=1) for seed in range(2)]
    params = [SamplingParams(max_tokens=25, seed=i) for i in range(5)]
    prompts = [PROMPT[: 3 + i] * 3 for i in range(5)]
    expected = [kernel.engine(each, TOKENS).generate(prompts, params) for each in models]
    engines = [kernel.engine(each, TOKENS) for each in models]
    requests = [[running.submit(*each) for each in zip(prompts, params, strict=True)] for running in engines]
    finished = [{}, {}]
    while any(running.has_work for running in engines):
        for running, done in zip(engines, finished, strict=True):
            done.update((event.request, event) for event in running.step() if isinstance(event, FinishEvent))
    for asked, done, finishes in zip(requests, finished, expected, strict=True):
        assert [done[request] for request in asked] == finishes
    assert {finish.ids for finish in expected[0]}.isdisjoint(finish.ids for finish in expected[1])
