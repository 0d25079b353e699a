"""Guessed tokens change no result: ids, log-probabilities, phases, bills and pages are those of an engine that never
guesses, whatever limits, grammars, folds, stops, forks, aborts and preemptions stand between the guesses."""

import random
from dataclasses import replace

import pytest
import torch

from ponder.engine import FinishEvent, TokenEvent
from ponder.engine.pages import bytes_per_page
from ponder.types import ConfidenceStop, InvalidRequest, Phase, PhaseTokens, SamplingParams, ThinkingLimits

VOCAB = 32
LEAD, WAIT = (24, 25), (20, 21)
OPEN, CLOSE, END, STATE, FOLD, CALL, CALLED = 29, 30, 31, 28, 27, 26, 23
TOKENS = PhaseTokens(
    think_open=OPEN,
    think_close=CLOSE,
    state_open=STATE,
    fold=FOLD,
    call_open=CALL,
    call_close=CALLED,
    continuation=WAIT,
    lead=LEAD,
    end=(END,),
)
WINDOW = 128


class Few:
    """`count` ids of a narrow set that moves on with each of them, then the end."""

    def __init__(self, count, seen=()):
        self.count = count
        self.seen = list(seen)

    def allowed(self):
        allowed_V = torch.zeros(VOCAB, dtype=torch.bool)
        first = sum(self.seen) % 17
        allowed_V[range(first, first + 3) if len(self.seen) < self.count else [END]] = True
        return allowed_V

    def advance(self, id):
        assert self.allowed()[id], "only what was allowed is produced"
        self.seen.append(id)

    def fork(self):
        return Few(self.count, self.seen)


class Told:
    """Guesses from what an engine without guesses said, some of them wrong."""

    def __init__(self, said, rng):
        self.said = said
        self.rng = rng

    def keep_only(self, sequences):
        pass

    def guess(self, sequence, most):
        said = self.said.get(sequence.request, ())
        guesses = list(said[sequence.num_generated :][: self.rng.randrange(most + 1)])
        for at in range(len(guesses)):
            if self.rng.random() < 0.1:
                guesses[at] = self.rng.randrange(VOCAB)
        return guesses


def any_request(rng):
    """(prompt, params, start, grammar, what is done to it at one of its tokens)."""
    prompt = [rng.randrange(20) for _ in range(rng.randrange(1, 40))]
    start = rng.choice((Phase.THINK, Phase.ANSWER))
    cap = rng.choice((None, rng.randrange(1 if start is Phase.THINK else 0, 65)))
    floor = rng.choice((0, 0, rng.randrange(20)))
    confidence = ConfidenceStop(threshold=rng.choice((0.5, 3.0)), window=rng.randrange(1, 9))
    limits = ThinkingLimits(cap=cap, floor=floor, confidence=rng.choice((None, None, confidence)))
    bias = [(id, rng.choice((-4.0, 0.0, 6.0))) for id in (OPEN, CLOSE, END, STATE, FOLD, CALL, CALLED)]
    max_tokens = rng.randrange(2, 80)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=rng.choice((0.0, 0.0, 0.3, 1.0)),
        top_k=rng.choice((0, 0, 5)),
        top_p=rng.choice((1.0, 0.9)),
        min_p=rng.choice((0.0, 0.05)),
        seed=rng.randrange(2**64),
        stop_ids=rng.choice(((), (), tuple(rng.sample(range(20), 2)))),
        thinking=limits,
        answer_room=rng.choice((0, rng.randrange(max_tokens))) if start is Phase.THINK else 0,
        logit_bias=tuple(bias),
        frequency_penalty=rng.choice((0.0, 0.0, 0.4)),
        presence_penalty=rng.choice((0.0, 0.0, 0.4)),
        repetition_penalty=rng.choice((1.0, 1.0, 1.3)),
        repeats=rng.choice((0, 16)),
        top_logprobs=rng.choice((0, 2)),
    )
    grammar = rng.choice((None, None, Few(rng.randrange(1, 12))))
    act = rng.choice((None, None, None, "abort", "fork"))
    return prompt, params, start, grammar, (act, rng.randrange(max_tokens))


def check_pages(running):
    """No page has two owners unawares, and without guesses no sequence holds one too many."""
    scheduler, stats = running._scheduler, running.stats
    held = [page for each in scheduler.running for page in each.pages]
    assert len(set(held)) == stats.pages_used
    assert stats.pages_used + stats.pages_cached + stats.pages_free == running._num_pages
    ahead = {each.sequence.request for each in running._speculation._ahead}
    for each in scheduler.running:
        if each.request not in ahead and each.num_generated and each.num_pending == 1:
            assert len(each.pages) == -(-each.computed // 16)


def run(running, requests):
    """request number of what was submitted, or (its parent's, "fork") → what came of it."""
    numbers, acts = {}, {}
    for at, (prompt, params, start, grammar, act) in enumerate(requests):
        grammar = None if grammar is None else grammar.fork()
        number = running.submit(prompt, params, start=start, constraint=grammar)
        numbers[number], acts[number] = at, act
    found, streamed = {}, {}
    while running.has_work:
        for event in running.step():
            if isinstance(event, TokenEvent):
                streamed.setdefault(event.request, []).append(event)
                act, index = acts.get(event.request, (None, 0))
                if event.index == index and act == "abort":
                    finish = running.abort(event.request)
                    if finish is not None:
                        found[numbers[event.request]] = finish
                elif event.index == index and act == "fork" and event.request in running._sequences:
                    number = running.fork(event.request, seed=index)
                    numbers[number] = (numbers[event.request], "fork")
            elif isinstance(event, FinishEvent):
                found[numbers[event.request]] = event
        check_pages(running)
    assert running.stats.pages_used == 0
    for number, events in streamed.items():
        finish = found[numbers[number]]
        assert [event.id for event in events] == list(finish.ids)[len(finish.ids) - len(events) :]
    return {at: replace(finish, request=0) for at, finish in found.items()}


def without_cached(finish):
    """What a prompt finds in the tree depends on when it is admitted, where pages are short."""
    return replace(finish, usage=replace(finish.usage, cached_tokens=0))


def assert_guesses_change_nothing(kernel, seed, count, pages):
    rng = random.Random(seed)
    requests = [any_request(rng) for _ in range(count)]
    model = kernel.tiny_model(seed, vocab_size=VOCAB, num_layers=1)
    page = bytes_per_page(model.config, 16, model.compute_dtype)
    options = {"window": WINDOW, "memory": pages * page, "max_batch": rng.choice((1, 3, 8)), "deterministic": True}
    expected = run(kernel.engine(model, TOKENS, **options), requests)
    for guesses in ("looked up", "told"):
        running = kernel.engine(model, TOKENS, speculate="on", **options)
        if guesses == "told":
            said = {at: finish.ids for at, finish in expected.items()}
            running._speculation._guesser = Told(said, rng)
        found = run(running, requests)
        counters = running.stats.counters
        assert counters.accepted_tokens <= counters.drafted_tokens
        assert counters.accepted_tokens > (count if guesses == "told" else 0)
        assert found.keys() == expected.keys()
        for at, finish in expected.items():
            if pages < 100:
                assert without_cached(found[at]) == without_cached(finish), at
            else:
                assert found[at] == finish, at


@pytest.mark.property
@pytest.mark.parametrize("pages", [1000, 14], ids=["", "pages are short"])
@pytest.mark.parametrize("seed", range(2))
def test_guesses_change_nothing(kernel, seed, pages):
    assert_guesses_change_nothing(kernel, seed, 40 if kernel.name == "fused" else 10, pages)  # torch takes its time


@pytest.mark.slow
@pytest.mark.property
@pytest.mark.parametrize("seed", range(10, 30))
def test_guesses_change_nothing_in_two_thousand_requests(kernel, seed):
    assert_guesses_change_nothing(kernel, seed, 50, 1000 if seed % 2 else 14)


def test_a_mode_that_there_is_not_is_refused(kernel):
    with pytest.raises(InvalidRequest, match="speculate must be 'auto', 'on' or 'off'"):
        kernel.engine(kernel.tiny_model(vocab_size=VOCAB), TOKENS, speculate="yes")


def test_a_draft_of_another_vocabulary_and_one_that_is_never_asked_are_refused(kernel):
    model = kernel.tiny_model(vocab_size=VOCAB)
    with pytest.raises(InvalidRequest, match="the draft model has 64 ids and the model 32"):
        kernel.engine(model, TOKENS, speculate="auto", draft=kernel.tiny_model(vocab_size=64))
    with pytest.raises(InvalidRequest, match="a draft model guesses only where speculate"):
        kernel.engine(model, TOKENS, draft=model)


@pytest.mark.parametrize(("seed", "passes"), [(0, 24), (1, 80)], ids=["the same model", "another"])
def test_a_draft_model_saves_the_passes_in_which_it_is_right(kernel, seed, passes):
    model, draft = (kernel.tiny_model(each, vocab_size=VOCAB) for each in (0, seed))
    greedy = SamplingParams(max_tokens=60, temperature=0.0, logit_bias=((END, -60.0),))
    expected = kernel.engine(model, TOKENS, deterministic=True).generate([[1, 2, 3]], greedy)
    running = kernel.engine(model, TOKENS, deterministic=True, speculate="auto", draft=draft)
    assert running.generate([[1, 2, 3]], greedy) == expected
    assert running.stats.counters.drafted_tokens > 0
    assert running.stats.counters.steps < passes


def test_a_model_that_repeats_itself_needs_few_passes(kernel):
    script = [1, 2, 3, 4, 5, 6, 7, 8] * 10
    passes = {}
    for speculate in ("off", "auto"):
        running = kernel.engine(kernel.parrot(script, 3), TOKENS, speculate=speculate)
        finish = running.generate([[9, 9, 9]], SamplingParams(max_tokens=80, temperature=0.0))[0]
        assert list(finish.ids) == script
        assert finish.usage.completion_tokens == 80
        passes[speculate] = running.stats.counters.steps
    assert passes["off"] == 80
    assert passes["auto"] < 30


def test_with_many_sequences_nothing_is_guessed(kernel):
    running = kernel.engine(kernel.parrot([1, 2] * 20, 3), TOKENS, speculate="auto")
    running.generate([[9, 9, at] for at in range(8)], SamplingParams(max_tokens=40, temperature=0.0))
    assert running.stats.counters.drafted_tokens == 0


def test_another_sample_of_the_same_prompt_is_looked_into(kernel):
    """Not of a prompt that is another tenant's."""
    model = kernel.tiny_model(vocab_size=VOCAB)
    passes = []
    for tenant in ("a", "a", "b"):
        if not passes:
            running = kernel.engine(model, TOKENS, speculate="on")
        before = running.stats.counters.steps
        running.submit([1, 2, 3], SamplingParams(max_tokens=40, seed=1), tenant=tenant)
        while running.has_work:
            running.step()
        passes.append(running.stats.counters.steps - before)
    assert passes[1] < passes[0] / 2
    assert passes[2] == passes[0]
