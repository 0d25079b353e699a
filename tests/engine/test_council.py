"""Several voices in one context: step by step they are what one causal pass over the whole context says, whatever is
cut, forked, aborted, preempted or submitted around them."""

import random
from dataclasses import replace

import pytest
import torch

from ponder.engine import Engine, FinishEvent, TokenEvent
from ponder.engine.pages import bytes_per_page
from ponder.testing.tiny import tiny_model
from ponder.types import (
    ConfidenceStop,
    CouncilTokens,
    InvalidRequest,
    Origin,
    Phase,
    PhaseTokens,
    SamplingParams,
    StopReason,
    ThinkingLimits,
)
from ponder.voices import separate, targets_of, voices_of

VOCAB = 64
OPEN, CLOSE, END, STATE, FOLD = 40, 41, 42, 43, 44
COUNCIL = CouncilTokens(
    spawn=45,
    numbers=tuple(range(50, 58)),
    address=46,
    leave=47,
    join=48,
    closing=(CLOSE, END),
    banned=(OPEN, CLOSE, END, STATE, FOLD, 45, 46),
)
TOKENS = PhaseTokens(
    think_open=OPEN, think_close=CLOSE, state_open=STATE, fold=FOLD, continuation=(20, 21), council=COUNCIL, end=(END,)
)
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, OPEN, 4, 6]


def model_of(kernel, seed=0):
    return kernel.tiny_model(seed, vocab_size=VOCAB)


def params(n=60, *, seed=0, voices=8, leave=1.5, join=-1.0, cap=None, **fields):
    bias = ((COUNCIL.leave, leave), (COUNCIL.join, join))
    thinking = ThinkingLimits(voices=voices, cap=cap)
    return SamplingParams(max_tokens=n, seed=seed, thinking=thinking, logit_bias=bias, **fields)


def council_of(count, prompt=PROMPT):
    """A prompt that leaves the engine to open the lanes."""
    return [*prompt, COUNCIL.spawn, COUNCIL.numbers[count - 1]]


def drain(engine):
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def alone(engine, prompt, chosen):
    """Events of its tokens, and its end."""
    engine.submit(prompt, chosen, start=Phase.THINK)
    *tokens, end = drain(engine)
    assert isinstance(end, FinishEvent)
    return tokens, end


def check_pages(engine):
    stats = engine.stats
    assert stats.pages_used == 0
    assert stats.pages_cached + stats.pages_free == engine._num_pages


# What a step computes -------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(watch_logits):
    """(ids before a step) → the logits that its tokens were picked from."""
    seen = {}

    def see(ready, logits_SV):
        first = 0
        for sequence in ready:
            count = len(sequence.sources)
            seen[tuple(sequence.tokens)] = logits_SV[first : first + count].clone()
            first += count

    watch_logits(see)
    return seen


@pytest.mark.parametrize("voices", [1, 2, 3, 4, 8])
def test_step_by_step_is_what_one_pass_says_bit_for_bit(voices, kernel, seen):
    model, prompt = model_of(kernel), council_of(voices)
    tokens, end = alone(kernel.engine(model, TOKENS, deterministic=True), prompt, params(70, leave=2.0, join=-9.0))
    steps, whole = dict(seen), [*prompt, *end.ids]
    assert set(range(voices)) <= {event.voice for event in tokens}
    thought = whole.index(CLOSE) if CLOSE in whole else len(whole)
    cuts = [len(before) for before in steps if len(prompt) < len(before) <= thought]
    # A prompt that ends after a step of the council gives the same logits for its next step, however it is cut.
    for at, cut in enumerate(random.Random(voices).sample(cuts, min(4, len(cuts)))):
        seen.clear()
        engine = kernel.engine(model, TOKENS, deterministic=True, step_tokens=(2048, 5, 9, 1)[at % 4])
        before = tuple(whole[:cut])
        engine.generate([before], params(1), start=Phase.THINK)
        assert torch.equal(seen[before], steps[before])


@pytest.mark.parametrize("voices", [1, 2, 3, 4, 8])
def test_log_probabilities_are_those_of_one_pass_with_shifted_labels(voices):
    model, prompt = tiny_model(vocab_size=VOCAB), council_of(voices)
    tokens, end = alone(Engine(model, TOKENS), prompt, params(64, seed=voices))
    whole = [*prompt, *end.ids]
    of = voices_of(whole, COUNCIL)
    assert of[len(prompt) :] == [event.voice for event in tokens]
    with torch.no_grad():
        logprobs_TV = model(torch.tensor([whole]))[0].log_softmax(-1)
    checked = 0
    for slot, target in enumerate(targets_of(of)):
        if target >= len(prompt):
            event = tokens[target - len(prompt)]
            assert event.logprob == pytest.approx(float(logprobs_TV[slot, whole[target]]), abs=1e-3)
            checked += event.origin is Origin.SAMPLED
    assert checked == sum(event.origin is Origin.SAMPLED for event in tokens)


def test_a_later_token_changes_nothing_before_it():
    model, prompt = tiny_model(vocab_size=VOCAB), council_of(3)
    _, end = alone(Engine(model, TOKENS), prompt, params(40))
    whole = [*prompt, *end.ids]
    with torch.no_grad():
        logits_TV = model(torch.tensor([whole]))[0]
        for slot in range(len(prompt), len(whole), 5):
            other = torch.tensor([[*whole[:slot], (whole[slot] + 1) % 30, *whole[slot + 1 :]]])
            assert torch.equal(model(other)[0][:slot], logits_TV[:slot])


def test_one_voice_that_never_spawns_is_the_engine_without_councils(kernel):
    never = ((COUNCIL.spawn, -1e9), (COUNCIL.address, -1e9), (COUNCIL.leave, -1e9), (COUNCIL.join, -1e9))
    chosen = SamplingParams(max_tokens=60, seed=5, logit_bias=never)
    wide = replace(chosen, thinking=ThinkingLimits(voices=8))
    plain = replace(TOKENS, council=None)
    model = model_of(kernel)
    a = kernel.engine(model, TOKENS).generate([PROMPT], wide, start=Phase.THINK)
    b = kernel.engine(model, plain).generate([PROMPT], chosen, start=Phase.THINK)
    assert a[0].segments == b[0].segments
    assert a[0].usage == b[0].usage
    assert a[0].usage.steps == a[0].usage.completion_tokens


def test_a_council_of_one_is_ordinary_decoding(kernel, seen):
    """The same ids, decoded one by one in an engine that knows no councils, have the same logits."""
    model, prompt = model_of(kernel), council_of(1)
    _, end = alone(kernel.engine(model, TOKENS, deterministic=True), prompt, params(20, leave=-9.0, temperature=0.0))
    ours, before = dict(seen), [*prompt, COUNCIL.address]
    seen.clear()
    marks = tuple((id, -1e9) for id in (OPEN, CLOSE, END, STATE, FOLD, COUNCIL.spawn, COUNCIL.address))
    bias = (*marks, (COUNCIL.leave, -9.0), (COUNCIL.join, -1.0))
    plain = kernel.engine(model, PhaseTokens(), deterministic=True)
    chosen = SamplingParams(max_tokens=19, temperature=0.0, logit_bias=bias)
    assert plain.generate([before], chosen)[0].ids == end.ids[1:]
    assert len(seen) == 19
    assert all(torch.equal(logits, ours[ids]) for ids, logits in seen.items())


# What may be said -----------------------------------------------------------------------------------------------------


def check_councils(ids, start=0):
    """Every council that begins in `ids` is whole: the number, the openings, then lanes that end by leave or join."""
    of = voices_of(ids, COUNCIL)
    for at in range(start, len(ids)):
        if ids[at] == COUNCIL.spawn and at + 2 < len(ids):
            count = COUNCIL.numbers.index(ids[at + 1]) + 1
            opening = ids[at + 2 : at + 2 + count]
            assert set(opening) == {COUNCIL.address}
        if of[at] is not None:
            assert ids[at] not in (OPEN, CLOSE, END, STATE, FOLD, COUNCIL.spawn)
        elif at and of[at - 1] is not None:  # the step before was the last
            first = at - 1
            while first > 0 and of[first - 1] is not None and of[first - 1] < of[first]:
                first -= 1
            assert COUNCIL.join in ids[first:at] or set(ids[first:at]) == {COUNCIL.leave}
    return of


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_limits_councils_are_whole_and_limits_hold(seed):
    rng = random.Random(seed)
    model = tiny_model(seed, vocab_size=VOCAB)
    engine = Engine(model, TOKENS, window=128)
    councils = cut = 0
    for number in range(8):
        voices, cap = rng.choice((2, 3, 8)), rng.choice((None, rng.randrange(1, 60)))
        n = rng.randrange(2, 90)
        limits = ThinkingLimits(
            voices=voices,
            cap=cap,
            floor=rng.choice((0, 0, 15)),
            confidence=rng.choice((None, ConfidenceStop(threshold=2.0, window=5))),
        )
        bias = ((COUNCIL.spawn, 6.0), (COUNCIL.leave, rng.choice((0.0, 3.0))), (COUNCIL.join, rng.choice((-2.0, 2.0))))
        chosen = SamplingParams(
            max_tokens=n,
            seed=number,
            thinking=limits,
            answer_room=rng.choice((0, rng.randrange(n))),
            logit_bias=bias,
            frequency_penalty=rng.choice((0.0, 0.3)),
            repetition_penalty=rng.choice((1.0, 1.2)),
            stop_ids=rng.choice(((), (7,))),
            top_logprobs=rng.choice((0, 2)),
        )
        tokens, end = alone(engine, PROMPT, chosen)
        phases = [event.phase for event in tokens]
        context = list(end.segment.ids)
        assert [event.id for event in tokens] == list(end.ids)
        assert end.usage.reasoning_tokens == phases.count(Phase.THINK) <= (cap or 1000)
        assert end.usage.completion_tokens <= n
        if Phase.ANSWER not in phases and end.stop_reason is StopReason.LENGTH:
            assert not chosen.answer_room
        thought = [id for id, phase in zip(end.ids, phases, strict=True) if phase is Phase.THINK]
        check_councils(thought)
        spoken = [event for event in tokens if event.voice is not None]
        councils += bool(spoken)
        cut += bool(spoken) and tokens[-1].voice is not None
        assert all(event.voice < voices for event in spoken)
        assert all(COUNCIL.numbers.index(end.ids[event.index + 1]) < voices for event in _spawns(tokens))
        assert end.usage.steps == _steps(tokens)
        assert len(context) <= 128
    assert councils > 2
    check_pages(engine)


def _spawns(tokens):
    """Events of the token that spawns, in a thought, that are followed by another."""
    return [
        event
        for event in tokens[:-1]
        if event.id == COUNCIL.spawn and event.phase is Phase.THINK and event.voice is None
    ]


def _steps(tokens):
    """Steps of events in order: one begins where no voice speaks, or not a later one than before."""
    before = None
    steps = 0
    for event in tokens:
        steps += event.voice is None or before is None or event.voice <= before
        before = event.voice
    return steps


def test_a_voice_that_left_says_nothing_more_and_one_that_joins_ends_it_for_all(kernel):
    engine = kernel.engine(model_of(kernel, 3), TOKENS)
    lengths, ends = set(), set()
    for seed in range(5):
        prompt = council_of(4)
        _, end = alone(engine, prompt, params(90, seed=seed, leave=3.0, join=0.5))
        whole = [*prompt, *end.ids]
        of = check_councils(whole)
        over = next((slot for slot in range(len(prompt), len(whole)) if of[slot] is None), len(whole))
        for lane in separate(whole[:over], of[:over]):
            assert not {COUNCIL.leave, COUNCIL.join} & set(lane[:-1])
            lengths.add(len(lane))
            ends.add(lane[-1])
    assert len(lengths) > 3  # ragged
    assert {COUNCIL.leave, COUNCIL.join} <= ends


def test_the_number_is_at_most_what_the_request_allows():
    engine = Engine(tiny_model(vocab_size=VOCAB), TOKENS)
    for voices in (2, 3, 8):
        said = set()
        for seed in range(6):
            tokens, _ = alone(engine, [*PROMPT, COUNCIL.spawn], params(1, seed=seed, voices=voices, temperature=9.0))
            said.add(COUNCIL.numbers.index(tokens[0].id) + 1)
        assert said <= set(range(1, voices + 1))
        assert len(said) > 1


def test_without_voices_what_spawns_is_a_token_like_others():
    engine = Engine(tiny_model(vocab_size=VOCAB), TOKENS)
    bias = ((COUNCIL.spawn, 1e6),)
    tokens, end = alone(engine, PROMPT, SamplingParams(max_tokens=8, seed=0, logit_bias=bias))
    assert set(end.ids) == {COUNCIL.spawn}
    assert {event.voice for event in tokens} == {None}


@pytest.mark.parametrize(
    ("prompt", "fields", "error"),
    [
        (council_of(4), {"voices": 3}, "council of 4 voices, but thinking.voices allows 3"),
        ([*council_of(3), *[COUNCIL.address] * 3, 5, 6], {}, "inside a step of a council"),
        (council_of(4), {"cap": 8}, "needs 9 THINK tokens to end, but 8"),
        (PROMPT, {"voices": 9}, "thinking.voices must be from 1 to 8"),
        (PROMPT, {"voices": 0}, "thinking.voices must be an integer of at least 1"),
    ],
)
def test_what_cannot_be_kept_is_refused(prompt, fields, error):
    with pytest.raises(InvalidRequest, match=error):
        Engine(tiny_model(vocab_size=VOCAB), TOKENS).submit(prompt, params(20, **fields), start=Phase.THINK)


# Beside others --------------------------------------------------------------------------------------------------------


def requests():
    """Prompts and parameters of councils and of others."""
    plain = SamplingParams(max_tokens=40, seed=1)
    spawning = replace(params(60, seed=4, voices=4), logit_bias=((COUNCIL.spawn, 4.0), (COUNCIL.leave, 1.0)))
    return [
        (council_of(2), params(50, seed=2)),
        (PROMPT, plain),
        (council_of(4), params(70, seed=3, leave=0.5, join=-3.0)),
        (PROMPT, spawning),
        (council_of(8, PROMPT[:7]), params(60, seed=6, leave=0.0, join=-4.0)),
        ([*PROMPT, *PROMPT], plain),
    ]


@pytest.mark.parametrize("options", [{"step_tokens": 7}, {"pages": 12}])
def test_in_any_company_each_is_what_it_is_alone(options, kernel):
    model = model_of(kernel)
    fields = {"deterministic": True}
    expected = [alone(kernel.engine(model, TOKENS, **fields), *each)[1] for each in requests()]
    options = dict(options)
    if pages := options.pop("pages", 0):
        options |= {"memory": pages * bytes_per_page(model.config, 16, model.compute_dtype), "window": 128}
    engine = kernel.engine(model, TOKENS, **fields, **options)
    numbers = []
    for prompt, chosen in requests():
        numbers.append(engine.submit(prompt, chosen, start=Phase.THINK))
        if options.get("step_tokens"):
            engine.step()
    finished = {event.request: event for event in drain(engine) if isinstance(event, FinishEvent)}
    for number, alike in zip(numbers, expected, strict=True):
        assert finished[number].segments == alike.segments
        assert finished[number].usage.steps == alike.usage.steps
    assert bool(pages) == bool(engine.stats.counters.preemptions)
    check_pages(engine)


def test_forks_and_aborts_return_every_page_and_a_fork_goes_on_as_its_parent(kernel):
    engine = kernel.engine(model_of(kernel), TOKENS)
    rng = random.Random(1)
    for count in (2, 3, 8):
        number = engine.submit(
            council_of(count), params(60, leave=0.0, join=-4.0, frequency_penalty=0.2), start=Phase.THINK
        )
        said, same, other = [], None, None
        finished = {}
        for _ in range(80):
            for event in engine.step():
                if isinstance(event, TokenEvent) and event.request == number:
                    said.append(event)
                elif isinstance(event, FinishEvent):
                    finished[event.request] = event
            if len(said) >= 3 * count and same is None:
                same, other = engine.fork(number, seed=0), engine.fork(number, seed=9)
            if len(said) >= 4 * count and other is not None and rng.random() < 0.5:
                engine.abort(other)
                other = None
        drain(engine)
        assert finished[same].ids == finished[number].ids  # the same seed draws the same
        billed = finished[same].usage
        assert billed.completion_tokens < finished[number].usage.completion_tokens
        assert billed.steps == finished[number].usage.steps - _steps(said[: -billed.completion_tokens])
        check_pages(engine)


def test_no_page_of_the_prompt_is_copied(kernel, monkeypatch):
    engine = kernel.engine(model_of(kernel), TOKENS)
    copies = []
    pages = engine._runner.pages
    monkeypatch.setattr(type(pages), "copy", lambda self, source, target: copies.append((source, target)))
    prompt = council_of(8, [*PROMPT, *PROMPT])
    engine.submit(prompt, params(70, leave=-1.0, join=-9.0), start=Phase.THINK)
    while not any(isinstance(event, FinishEvent) for event in engine.step()):
        (sequence,) = engine._scheduler.running
        assert engine.stats.pages_used == -(-sequence.computed // 16) == len(set(sequence.pages))
    assert not copies


def test_the_next_prompt_finds_the_pages_of_a_council(kernel):
    """Slots are positions, so the ids say everything: what a council computed serves any context with these ids."""
    model = model_of(kernel)
    engine = kernel.engine(model, TOKENS, deterministic=True)
    _, end = alone(engine, council_of(4), params(64, leave=-1.0, join=-9.0))
    again = [*council_of(4), *end.ids[:44]]
    chosen = params(20, leave=-1.0, join=-9.0, temperature=0.0)
    _, warm = alone(engine, again, chosen)
    assert warm.usage.cached_tokens == (len(again) - 1) // 16 * 16
    _, cold = alone(kernel.engine(model, TOKENS, deterministic=True), again, chosen)
    assert warm.segments == cold.segments
    # Read as anything else (an engine without councils), the same pages hold the same keys.
    plain = PhaseTokens()
    ids = SamplingParams(max_tokens=1, temperature=0.0)
    assert (
        engine.generate([again], ids)[0].ids
        == kernel.engine(model, plain, deterministic=True).generate([again], ids)[0].ids
    )


def test_guesses_wait_while_several_voices_speak(kernel):
    model = model_of(kernel)
    expected = [alone(kernel.engine(model, TOKENS, deterministic=True), *each)[1] for each in requests()[:4]]
    engine = kernel.engine(model, TOKENS, deterministic=True, speculate="on")
    for each, alike in zip(requests()[:4], expected, strict=True):
        assert alone(engine, *each)[1].segments == alike.segments
    check_pages(engine)


def test_a_deadline_and_a_stop_end_a_council_where_it_is():
    model = tiny_model(vocab_size=VOCAB)
    tokens, end = alone(Engine(model, TOKENS), council_of(4), params(60, leave=-9.0, join=-9.0))
    stopper = tokens[4 * 4 + 1].id
    first = next(event for event in tokens if event.id == stopper)
    stopped, cut = alone(Engine(model, TOKENS), council_of(4), params(60, leave=-9.0, join=-9.0, stop_ids=(stopper,)))
    assert cut.stop_reason is StopReason.STOP
    assert cut.ids == end.ids[: first.index + 1]
    assert stopped == tokens[: first.index + 1]
    late = Engine(model, TOKENS)
    late.submit(council_of(4), params(60), start=Phase.THINK, deadline=0.0)
    assert late.step()[0].stop_reason is StopReason.DEADLINE
