"""Discard without delay: when a turn is over its thoughts are freed, and the next prompt, which never held them, finds
everything it begins with in the cache. After-turn prefill does that while the answer is still being made."""

import pytest
import torch

from ponder.engine import FinishEvent
from ponder.engine.pages import bytes_per_page
from ponder.types import InvalidRequest, Phase, PhaseTokens, SamplingParams, ThinkingLimits

OPEN, CLOSE, END = 29, 30, 31
TOKENS = PhaseTokens(think_open=OPEN, think_close=CLOSE, end=(END,))
NEVER_CLOSES = ((CLOSE, -60.0), (END, -60.0), (OPEN, -60.0))
PAGE = 16
HISTORY = [(5 * i * i + i) % 28 for i in range(43)]  # ends before the token that opens thinking
NEW_TURN = [7, 7, 2, 1, 7]
THOUGHT = 50


@pytest.fixture
def model(kernel):
    return kernel.tiny_model(vocab_size=32, max_positions=512)


@pytest.fixture
def engine(kernel, model):
    return lambda **options: kernel.engine(model, TOKENS, **options)


def thinks_then_answers(answer, seed=1):
    limits = ThinkingLimits(cap=THOUGHT)
    return SamplingParams(max_tokens=THOUGHT + answer, seed=seed, thinking=limits, logit_bias=NEVER_CLOSES)


class Turn:
    """A first turn with thinking, its answer followed by a next-turn prefix as a sampler does it."""

    def __init__(self, engine, answer, *, history=HISTORY, guess=lambda id: id, seed=1, early=False, **key):
        self.engine, self.key, self.guess = engine, key, guess
        self.prompt, self.visible = [*history, OPEN], list(history)
        self.spent = list(self.prompt)
        self.prefix = engine.open_next_turn(history, **key) if early else None
        self.request = engine.submit(self.prompt, thinks_then_answers(answer, seed), start=Phase.THINK, **key)
        self.finish = None

    def see(self, event):
        if event.request != self.request:
            return
        if isinstance(event, FinishEvent):
            self.finish = event
            return
        self.spent.append(event.id)
        if self.prefix is None:
            self.prefix = self.engine.open_next_turn(self.visible, **self.key)
        if event.phase is Phase.ANSWER:
            self.visible.append(event.id)
            self.engine.extend_next_turn(self.prefix, [self.guess(event.id)])

    def run(self):
        while self.finish is None:
            for event in self.engine.step():
                self.see(event)

    def end(self):
        """What a sampler does when the turn is over. Returns the pages that were freed."""
        self.engine.close_next_turn(self.prefix, self.visible)
        return self.engine.end_turn(self.spent, self.visible, **self.key)

    def next_prompt(self):
        return [*self.visible, *NEW_TURN]


def idle(engine):
    steps = 0
    while engine.has_work:
        assert engine.step() == []
        steps += 1
    return steps


def second(engine, turn, **key):
    request = engine.submit(turn.next_prompt(), SamplingParams(max_tokens=8, seed=9), **key)
    while True:
        for event in engine.step():
            if isinstance(event, FinishEvent):
                assert event.request == request
                return event


@pytest.fixture
def assert_as_cold(kernel, model):
    """assert_as_cold(finish, turn): the second turn is what an engine with an empty cache generates."""

    def assert_as_cold(finish, turn):
        params = SamplingParams(max_tokens=8, seed=9)
        cold = kernel.engine(model, TOKENS).generate([turn.next_prompt()], params)[0]
        assert finish.ids == cold.ids
        assert finish.segment.logprobs == pytest.approx(cold.segment.logprobs, abs=1e-4)

    return assert_as_cold


# The second turn is warm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("answer", [0, 1, 4, 5, 6, 15, 31, 32, 33, 100, 200])
def test_the_second_prompt_computes_its_new_turn_and_at_most_a_page(engine, assert_as_cold, answer, early):
    running = engine()
    turn = Turn(running, answer, early=early)
    turn.run()
    assert turn.finish.usage.reasoning_tokens == THOUGHT
    assert len(turn.visible) == len(HISTORY) + answer
    before = running.stats.counters.next_turn_tokens
    turn.end()
    idle(running)
    behind = running.stats.counters.next_turn_tokens - before
    assert behind < 32 + PAGE, "most of it ran while the answer was made"
    assert running.stats.counters.next_turn_tokens < answer + PAGE, "the history is found, not computed again"
    assert running.stats.pages_used == 0
    finish = second(running, turn)
    computed = len(turn.next_prompt()) - finish.usage.cached_tokens
    assert computed < len(NEW_TURN) + PAGE
    assert finish.usage.cached_tokens == len(turn.visible) // PAGE * PAGE
    assert_as_cold(finish, turn)
    assert running.stats.pages_used == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_logits_are_bitwise_those_of_a_cold_engine(kernel, model, dtype, watch_logits):
    seen = []
    weights = model.to(dtype)
    running = kernel.engine(weights, TOKENS, deterministic=True)
    turn = Turn(running, 40)
    turn.run()
    turn.end()
    idle(running)
    watch_logits(lambda ready, logits_SV: seen.extend(logits_SV.clone()))
    warm = second(running, turn)
    assert warm.usage.cached_tokens == 80
    logits, seen[:] = list(seen), []
    cold = second(kernel.engine(weights, TOKENS, deterministic=True, share_prefixes=False), turn)
    assert cold.usage.cached_tokens == 0
    assert len(logits) == len(seen) == 8
    assert all(torch.equal(a, b) for a, b in zip(logits, seen, strict=True))
    assert warm.segment == cold.segment


def test_a_conversation_of_many_turns_stays_warm(engine, assert_as_cold):
    running, history, seed = engine(), list(HISTORY), 0
    for answer in (20, 3, 47, 11, 64):
        turn = Turn(running, answer, history=history, seed=seed)
        turn.run()
        if seed:
            assert turn.finish.usage.cached_tokens >= (len(history) - len(NEW_TURN)) // PAGE * PAGE
        turn.end()
        idle(running)
        assert running.stats.pages_used == 0
        assert running.stats.pages_cached == len(turn.visible) // PAGE, "of all the turns nothing else is left"
        history, seed = turn.next_prompt(), seed + 1
    assert_as_cold(second(running, turn), turn)


# Wrong guesses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong_from", [0, 1, 10, 30, 31, 60])
@pytest.mark.parametrize("answer", [20, 70])
def test_a_wrong_guess_is_harmless_and_leaves_nothing(engine, assert_as_cold, answer, wrong_from):
    running = engine()
    count = iter(range(1000))
    turn = Turn(running, answer, guess=lambda id: id if next(count) < wrong_from else (id + 1) % 28)
    turn.run()
    turn.end()
    idle(running)
    assert running.stats.pages_cached == len(turn.visible) // PAGE, "what was guessed wrong is freed"
    finish = second(running, turn)
    assert finish.usage.cached_tokens == len(turn.visible) // PAGE * PAGE
    assert_as_cold(finish, turn)
    assert running.stats.pages_used == 0


@pytest.mark.parametrize("length", [0, 10, 43, 44, 60, 80])
def test_a_next_prompt_that_is_shorter_than_the_guess_is_cut_there(engine, assert_as_cold, length):
    running = engine()
    turn = Turn(running, 64)
    turn.run()
    running.close_next_turn(turn.prefix, turn.visible[:length])
    running.end_turn(turn.spent, turn.visible[:length])
    idle(running)
    turn.visible = turn.visible[:length]
    assert running.stats.pages_cached == length // PAGE
    finish = second(running, turn)
    assert finish.usage.cached_tokens == length // PAGE * PAGE
    assert_as_cold(finish, turn)


def test_given_up_a_prefix_leaves_what_it_computed_to_be_evicted_and_holds_nothing(engine):
    running = engine()
    turn = Turn(running, 64)
    turn.run()
    assert running.stats.pages_used > 0
    running.close_next_turn(turn.prefix, None)
    assert (running.stats.pages_used, running.stats.next_turns, running.has_work) == (0, 0, False)


# Load and lack of room ---------------------------------------------------------------------------------------------


def test_under_load_a_prefix_waits_and_catches_up_when_idle(engine, assert_as_cold):
    running = engine(max_batch=1)
    turn = Turn(running, 64)
    others = [
        running.submit([*NEW_TURN, i], SamplingParams(max_tokens=20, seed=i, logit_bias=NEVER_CLOSES)) for i in range(3)
    ]
    turn.run()
    turn.end()
    finished = 0
    while running.num_waiting:
        assert (running.stats.counters.next_turn_tokens, running.stats.next_turns) == (0, 1)
        finished += sum(isinstance(event, FinishEvent) for event in running.step())
    assert running.stats.counters.next_turns_deferred >= THOUGHT + 64 + 20
    while running.num_running:
        finished += sum(isinstance(event, FinishEvent) for event in running.step())
    idle(running)
    assert finished == len(others)
    assert running.stats.counters.next_turns_finished == 1
    assert running.stats.counters.next_turn_tokens >= 48
    finish = second(running, turn)
    assert finish.usage.cached_tokens == len(turn.visible) // PAGE * PAGE
    assert_as_cold(finish, turn)


def test_beside_more_sequences_than_a_step_has_rows_a_prefix_waits_too(engine):
    running = engine(step_tokens=2)
    params = SamplingParams(max_tokens=30, seed=1, logit_bias=NEVER_CLOSES)
    requests = [running.submit([i], params) for i in range(2)]
    running.step()
    for request in (*requests, *requests):
        running.fork(request)
    running.close_next_turn(running.open_next_turn(HISTORY), HISTORY)
    while running.num_running > 1:
        assert running.num_waiting == 0
        assert running.stats.counters.next_turn_tokens == 0
        running.step()
    idle(running)
    assert running.stats.counters.next_turns_finished == 1
    assert running.stats.counters.next_turn_tokens == len(HISTORY) // PAGE * PAGE
    assert running.stats.pages_used == 0


def test_a_prefix_evicted_for_pages_is_computed_when_the_turn_is_over(model, engine, assert_as_cold):
    page = bytes_per_page(model.config, PAGE, model.compute_dtype)
    running = engine(memory=12 * page, window=12 * PAGE)
    turn = Turn(running, 64)
    other = None
    while turn.finish is None:
        for event in running.step():
            turn.see(event)
        if other is None and running.stats.counters.next_turn_tokens:
            other = running.submit([3] * 10, SamplingParams(max_tokens=60, seed=3, logit_bias=NEVER_CLOSES))
    assert other is not None
    assert running.stats.counters.next_turns_dropped == 1
    turn.end()
    while running.has_work:
        running.step()
    assert running.stats.counters.next_turns_finished == 1
    finish = second(running, turn)
    assert finish.usage.cached_tokens == len(turn.visible) // PAGE * PAGE
    assert_as_cold(finish, turn)
    assert running.stats.pages_used == 0


def test_prefixes_of_many_conversations_finish_and_leak_nothing(engine, assert_as_cold):
    running = engine(max_batch=8)
    turns = [Turn(running, 10 * i, history=[*HISTORY[: 20 + i], i], seed=i) for i in range(8)]
    while any(turn.finish is None for turn in turns):
        for event in running.step():
            for turn in turns:
                turn.see(event)
    for turn in turns:
        turn.end()
    idle(running)
    counters = running.stats.counters
    assert (counters.next_turns_finished, counters.next_turns_dropped, running.stats.next_turns) == (8, 0, 0)
    assert running.stats.pages_used == 0
    for turn in turns:
        finish = second(running, turn)
        assert finish.usage.cached_tokens == len(turn.visible) // PAGE * PAGE
        assert_as_cold(finish, turn)


# What is freed -----------------------------------------------------------------------------------------------------


def test_the_end_of_a_turn_frees_the_thoughts_and_only_these(engine):
    running = engine()
    running.generate([[*HISTORY[:20], *[1] * 30]], SamplingParams(max_tokens=1))
    elsewhere = running.stats.pages_cached
    assert elsewhere == 3
    turn = Turn(running, 30)
    turn.run()
    whole = (len(turn.spent) - 1) // PAGE  # the last token never ran
    assert turn.end() == whole - len(HISTORY) // PAGE
    idle(running)
    shared = 1  # the first page of both conversations
    assert running.stats.pages_cached == elsewhere + len(turn.visible) // PAGE - shared
    assert running.end_turn(turn.spent, turn.visible) == 0, "they are freed once"
    cached = running.generate([[*HISTORY[:20], *[1] * 30]], SamplingParams(max_tokens=1))[0].usage.cached_tokens
    assert cached == 48


def test_thoughts_that_another_sequence_builds_on_stay(engine):
    running = engine()
    turn = Turn(running, 30)
    turn.run()
    again = running.submit([*turn.spent, 3], SamplingParams(max_tokens=20, seed=2))
    running.step()
    assert turn.end() == 0
    while running.num_running:
        for event in running.step():
            if isinstance(event, FinishEvent):
                assert event.request == again
                assert event.usage.cached_tokens == (len(turn.spent) - 1) // PAGE * PAGE


def test_pages_of_another_tenant_stay(engine):
    running = engine()
    mine, other = Turn(running, 30, tenant="a"), Turn(running, 30, tenant="b")
    while mine.finish is None or other.finish is None:
        for event in running.step():
            mine.see(event)
            other.see(event)
    assert mine.spent == other.spent
    before = running.stats
    freed = mine.end()
    assert freed > 0
    assert running.stats.pages_cached + running.stats.pages_used == before.pages_cached + before.pages_used - freed
    idle(running)
    assert running.end_turn(mine.spent, mine.visible) == 0, "no tenant has the pages of the others"
    assert second(running, mine, tenant="c").usage.cached_tokens == 0
    assert second(running, mine, tenant="a").usage.cached_tokens == len(mine.visible) // PAGE * PAGE
    assert other.end() == freed


# Weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [True, False])
def test_a_prefix_does_not_outlive_the_weights(kernel, model, assert_as_cold, closed):
    running = kernel.engine(model, TOKENS)
    turn = Turn(running, 50)
    turn.run()
    if closed:
        turn.end()
        assert running.has_work
    with running.update_weights(), torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(0.5)
    assert not running.has_work
    if not closed:
        with pytest.raises(InvalidRequest, match="is not open"):
            running.extend_next_turn(turn.prefix, [1, 2, 3])
        assert turn.end() == 0
    stats = running.stats
    assert (running.has_work, stats.next_turns, stats.pages_used, stats.pages_cached) == (False, 0, 0, 0)
    finish = second(running, turn)
    assert finish.usage.cached_tokens == 0
    assert_as_cold(finish, turn)
