"""Folding: while it thinks, a sequence writes a state and goes on from prompt + state alone. Phases, limits,
log-probabilities and the bill stay exact over all of its contexts."""

import pytest
import torch

from ponder.engine import Engine, FinishEvent, TokenEvent
from ponder.engine.pages import bytes_per_page
from ponder.model.transformer import Transformer
from ponder.testing.parity import TOLERANCE, assert_logprobs_are_those_of_training, training_logprobs
from ponder.testing.tiny import tiny_config
from ponder.types import Origin, Phase, PhaseTokens, SamplingParams, StopReason, ThinkingLimits, Usage

OPEN, CLOSE, STATE, FOLD, WAIT, END = range(26, 32)
TOKENS = PhaseTokens(think_open=OPEN, think_close=CLOSE, state_open=STATE, fold=FOLD, continuation=(WAIT,), end=(END,))
PROMPT = list(range(20))
THINK, ANSWER = Phase.THINK, Phase.ANSWER
PAGE = 16


class Scripted(Transformer):
    """Says script[number of tokens in the context before it], `otherwise` where the script has nothing. Runs in
    torch only."""

    def __init__(self, script, otherwise=1, max_positions=1024):
        super().__init__(tiny_config(vocab_size=32, max_positions=max_positions, num_layers=1))
        self.script, self.otherwise = script, otherwise

    def hidden(self, ids_BT, *, positions_BT=None, attend=None, documents_BT=None):
        h_BTD = super().hidden(ids_BT, positions_BT=positions_BT, attend=attend, documents_BT=documents_BT)
        h_BTD[..., 0] = positions_BT
        return h_BTD

    def unembed(self, h_ND):
        logits_NV = torch.zeros(len(h_ND), 32)
        said = [self.script.get(position + 1, self.otherwise) for position in h_ND[:, 0].int().tolist()]
        logits_NV[range(len(said)), said] = 50.0
        return logits_NV


def scripted(script, *, prompt=PROMPT, n=200, start=THINK, window=None, memory=None, room=0, **limits):
    engine = Engine(Scripted(script), TOKENS, window=window, memory=memory)
    params = SamplingParams(temperature=0.0, max_tokens=n, thinking=ThinkingLimits(**limits), answer_room=room)
    return engine.generate([prompt], params, start=start)[0]


def folds_often(seed, n=150, room=0, top=0, **limits):
    """A random model under these folds after some ten tokens, again and again, and stops thinking only at its cap."""
    bias = ((STATE, 1.0), (FOLD, 2.5), (CLOSE, -20.0), (END, -20.0), (OPEN, -20.0))
    limits = ThinkingLimits(**({"cap": 120} | limits))
    return SamplingParams(max_tokens=n, seed=seed, logit_bias=bias, thinking=limits, answer_room=room, top_logprobs=top)


@pytest.fixture
def babbling(kernel):
    return lambda **options: kernel.engine(kernel.tiny_model(vocab_size=32, num_layers=2), TOKENS, **options)


@pytest.fixture
def run(babbling):
    def run(params, prompt=PROMPT, **options):
        return babbling(**options).generate([prompt], params, start=THINK)[0]

    return run


def drain(engine, each=lambda event: None):
    finished = {}
    while engine.has_work:
        for event in engine.step():
            each(event)
            if isinstance(event, FinishEvent):
                finished[event.request] = event
    return finished


def states(finish):
    """What each fold kept: the token that opened the state, the state, the token that folds."""
    kept = []
    for segment in finish.segments[:-1]:
        assert segment.ids[-1] == FOLD
        kept.append(segment.ids[len(segment.ids) - 1 - segment.ids[::-1].index(STATE) :])
    return kept


def of_all(finish, field):
    return [value for segment in finish.segments for value in getattr(segment, field)]


def assert_exact(finish, prompt=PROMPT):
    """What holds of every folded generation: each context is prompt + state, and the bill counts each token once."""
    assert finish.segments[0].prompt_ids == tuple(prompt)
    for segment, state in zip(finish.segments[1:], states(finish), strict=True):
        assert segment.prompt_ids == (*prompt, *state)
        assert state.count(STATE) == state.count(FOLD) == 1
    for segment in finish.segments:
        lengths = {len(segment.ids), len(segment.logprobs), len(segment.phases), len(segment.origins)}
        assert len(lengths) == 1
        assert segment.ids
    phases = of_all(finish, "phases")
    thought = phases.count(THINK)
    assert phases == [THINK] * thought + [ANSWER] * (len(phases) - thought)
    assert finish.usage == Usage(
        prompt_tokens=len(prompt),
        completion_tokens=len(finish.ids),
        reasoning_tokens=thought,
        cached_tokens=finish.usage.cached_tokens,
        refilled_tokens=sum(len(prompt) % PAGE + len(state) for state in states(finish)),
    )


def assert_same(finish, expected):
    assert [s.ids for s in finish.segments] == [s.ids for s in expected.segments]
    assert [s.prompt_ids for s in finish.segments] == [s.prompt_ids for s in expected.segments]
    assert of_all(finish, "phases") == of_all(expected, "phases")
    assert of_all(finish, "logprobs") == pytest.approx(of_all(expected, "logprobs"), abs=1e-4)


# What a fold does --------------------------------------------------------------------------------------------------


def test_thinking_goes_on_behind_prompt_and_state_and_both_tokens_of_the_state_are_kept():
    finish = scripted({20: 2, 21: 3, 22: STATE, 23: 5, 24: FOLD, 25: 6, 26: CLOSE, 27: 7, 28: END})
    first, second = finish.segments
    assert first.ids == (2, 3, STATE, 5, FOLD)
    assert second.prompt_ids == (*PROMPT, STATE, 5, FOLD)
    assert second.ids == (5, 0, 6, CLOSE, 7, END), "the second context has 23 tokens; a fold without state is banned"
    assert finish.ids == first.ids + second.ids
    assert finish.segment is second
    assert (first.phases, second.phases) == ((THINK,) * 5, (THINK,) * 4 + (ANSWER,) * 2)
    assert finish.usage == Usage(20, 11, 9, 0, refilled_tokens=4 + 3)
    assert finish.stop_reason is StopReason.END


def test_a_state_does_not_open_inside_a_state_and_nothing_folds_outside_of_one():
    finish = scripted({20: FOLD, 21: STATE, 22: STATE, 23: FOLD, 24: 3, 25: CLOSE, 26: END})
    assert finish.segments[0].ids == (0, STATE, 0, FOLD)
    assert finish.segments[1].ids == (0, 3, CLOSE, END)
    assert set(of_all(finish, "origins")) == {Origin.SAMPLED}


def test_outside_of_thinking_the_tokens_of_a_state_mean_nothing():
    finish = scripted({20: STATE, 21: 2, 22: FOLD, 23: END}, start=ANSWER)
    assert (len(finish.segments), finish.ids, finish.usage.refilled_tokens) == (1, (STATE, 2, FOLD, END), 0)


def test_a_state_that_is_open_when_the_cap_closes_the_thought_is_never_folded():
    finish = scripted({21: STATE, 26: 5, 27: FOLD, 28: END}, cap=5)
    assert finish.ids == (1, STATE, 1, 1, CLOSE, 1, 5, FOLD, END)
    assert len(finish.segments) == 1
    assert finish.segment.origins[4] is Origin.FORCED
    assert finish.usage == Usage(20, 9, 5, 0, 0)


def test_a_state_that_was_left_open_does_not_reach_into_the_next_thought():
    finish = scripted({20: STATE, 21: CLOSE, 22: OPEN, 23: FOLD, 24: STATE, 25: FOLD, 26: CLOSE, 27: END})
    assert finish.segments[0].ids == (STATE, CLOSE, OPEN, 0, STATE, FOLD)
    assert finish.segments[1].prompt_ids == (*PROMPT, STATE, CLOSE, OPEN, STATE, FOLD)


def test_a_thought_in_the_middle_of_an_answer_folds_to_its_own_beginning():
    """What was said before it, and the token that opens it, are not thoughts: they stay."""
    finish = scripted({20: 7, 21: 8, 22: OPEN, 25: STATE, 26: 3, 27: FOLD, 29: CLOSE, 30: END}, start=ANSWER)
    first, second = finish.segments
    assert first.ids == (7, 8, OPEN, 1, 1, STATE, 3, FOLD)
    assert second.prompt_ids == (*PROMPT, 7, 8, OPEN, STATE, 3, FOLD)
    assert second.ids == (3, 0, 1, CLOSE, END), "its 27th token would fold, outside of a state"
    assert finish.usage == Usage(20, 13, 10, 0, refilled_tokens=23 % PAGE + 3)


def test_a_thought_that_a_prompt_begins_folds_to_its_own_beginning():
    """Of a thought that the prompt holds a part of, a fold keeps the state alone, as if all of it had been sampled."""
    script = {20: OPEN, 21: 2, 22: STATE, 23: 3, 24: FOLD, 25: 4, 26: CLOSE, 27: END}
    whole = scripted(script, start=ANSWER).segments
    begun = scripted(script, prompt=(*PROMPT, *whole[0].ids[:2])).segments
    assert begun[0].ids == whole[0].ids[2:]
    assert begun[1].prompt_ids == whole[1].prompt_ids == (*PROMPT, OPEN, STATE, 3, FOLD)
    over = scripted({20: STATE, 21: FOLD, 22: CLOSE, 23: END}, prompt=(*PROMPT[:-2], OPEN, CLOSE)).segments
    assert over[1].prompt_ids == (*PROMPT[:-2], OPEN, CLOSE, STATE, FOLD), "a thought that is closed is over"


def test_a_fold_frees_everything_behind_the_prompts_pages_at_once():
    engine = Engine(Scripted({100: STATE, 104: FOLD}), TOKENS)
    engine.submit(PROMPT, SamplingParams(max_tokens=300, temperature=0.0), start=THINK)
    used = []
    while engine.has_work:
        events = engine.step()
        used.append(engine.stats.pages_used)
        if events[0].id == FOLD:
            assert (engine.stats.pages_used, engine.stats.pages_cached) == (1, 0)
    assert engine.stats.counters.folds == 3
    assert max(used) == 7


def test_a_stop_id_that_folds_stops():
    engine = Engine(Scripted({22: STATE, 24: FOLD}), TOKENS)
    params = SamplingParams(max_tokens=60, temperature=0.0, stop_ids=(FOLD,))
    finish = engine.generate([PROMPT], params, start=THINK)[0]
    assert (finish.stop_reason, finish.ids) == (StopReason.STOP, (1, 1, STATE, 1, FOLD))
    assert engine.stats.counters.folds == 0


def test_tokens_are_streamed_with_one_count_over_all_contexts(babbling):
    engine = babbling()
    request = engine.submit(PROMPT, folds_often(3), start=THINK)
    streamed = []
    finish = drain(engine, lambda event: streamed.append(event) if isinstance(event, TokenEvent) else None)[request]
    assert len(finish.segments) > 3
    assert [event.index for event in streamed] == list(range(150))
    for field in ("id", "logprob", "phase", "origin"):
        assert [getattr(event, field) for event in streamed] == of_all(finish, "ids" if field == "id" else f"{field}s")


def test_an_aborted_sequence_returns_every_context_so_far(babbling, run):
    whole = run(folds_often(3))
    for steps in range(1, 60, 7):
        engine = babbling()
        request = engine.submit(PROMPT, folds_often(3), start=THINK)
        for _ in range(steps):
            engine.step()
        finish = engine.abort(request)
        assert finish.ids == whole.ids[:steps]
        assert finish.stop_reason is StopReason.ABORTED
        assert engine.stats.pages_used == 0


# Limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_cap_counts_over_all_contexts(run, seed):
    for cap in range(1, 65, 9):
        finish = run(folds_often(seed, n=cap + 5, cap=cap))
        assert_exact(finish)
        assert of_all(finish, "phases") == [THINK] * cap + [ANSWER] * 5
        assert (finish.ids[cap - 1], of_all(finish, "origins")[cap - 1]) == (CLOSE, Origin.FORCED)
    assert len(finish.segments) > 2


@pytest.mark.parametrize("seed", range(3))
def test_max_tokens_counts_over_all_contexts(run, seed):
    whole = run(folds_often(seed))
    assert len(whole.segments) > 3
    for n in range(1, 80, 9):
        finish = run(folds_often(seed, n=n))
        assert finish.ids == whole.ids[:n]
        assert finish.stop_reason is StopReason.LENGTH
        assert_exact(finish)


@pytest.mark.parametrize("room", [1, 7, 30])
def test_the_answer_room_is_kept_over_all_contexts(run, room):
    finish = run(folds_often(5, n=100, cap=None, room=room))
    assert of_all(finish, "phases") == [THINK] * (100 - room) + [ANSWER] * room
    assert len(finish.segments) > 3
    assert_exact(finish)


def test_the_floor_counts_over_all_contexts():
    finish = scripted({22: STATE, 24: FOLD, 27: CLOSE, 28: CLOSE, 30: END}, floor=11)
    first, second = finish.segments
    assert first.ids == (1, 1, STATE, 1, FOLD)
    assert second.ids == (1, 0, 1, 1, WAIT, CLOSE, 1, END), "the tenth thought was to be the close, the eleventh is"
    assert [origin is Origin.FORCED for origin in second.origins].index(True) == 4


def test_more_than_the_window_is_thought_only_by_folding():
    without = scripted({}, n=500, window=60)
    assert (len(without.ids), without.stop_reason) == (40, StopReason.LENGTH)
    finish = scripted({50: STATE, 55: FOLD}, n=500, window=60)
    assert (len(finish.ids), finish.stop_reason) == (500, StopReason.LENGTH)
    assert max(len(segment.prompt_ids) + len(segment.ids) for segment in finish.segments) <= 60
    assert_exact(finish)


def test_the_answer_room_within_the_window_is_that_of_the_last_context():
    finish = scripted({50: STATE, 55: FOLD}, n=100, window=60, room=20, cap=None)
    assert_exact(finish)
    phases = finish.segments[-1].phases
    assert len(finish.segments) == 1, "the room is reached before the state"
    assert (phases.count(THINK), phases.count(ANSWER)) == (20, 20)
    folded = scripted({30: STATE, 32: FOLD}, n=100, window=60, room=20, cap=50)
    assert len(folded.segments) > 2
    assert of_all(folded, "phases").count(THINK) == 50
    assert of_all(folded, "phases").count(ANSWER) >= 20


# Log-probabilities -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"step_tokens": 3}, {"share_prefixes": False}, {"deterministic": True}])
def test_each_contexts_log_probabilities_are_those_of_a_fresh_forward(kernel, run, options):
    finish = run(folds_often(2, top=2), **options)
    model = kernel.tiny_model(vocab_size=32, num_layers=2)
    assert len(finish.segments) > 3
    assert_exact(finish)
    for segment in finish.segments:
        assert_logprobs_are_those_of_training(model, segment)
        expected_TV, near = training_logprobs(model, segment), TOLERANCE[model.compute_dtype]
        for (best, value), expected_V in zip((top[0] for top in segment.top_logprobs), expected_TV, strict=True):
            assert value == pytest.approx(expected_V.max().item(), abs=near)
            assert value == pytest.approx(expected_V[best].item(), abs=near)


def test_in_deterministic_mode_they_are_bitwise_those_of_a_fresh_prefill(babbling, run, watch_logits):
    seen = {}

    def see(ready, logits_SV):
        seen.update((tuple(s.tokens), logits_V.clone()) for s, logits_V in zip(ready, logits_SV, strict=True))

    watch_logits(see)
    finish = run(folds_often(2, n=90), deterministic=True)
    assert len(finish.segments) > 3
    folded = dict(seen)
    seen.clear()
    once = SamplingParams(max_tokens=1)
    babbling(deterministic=True, share_prefixes=False).generate([list(ids) for ids in folded], once)
    assert len(folded) > 70
    assert all(torch.equal(seen[ids], logits_V) for ids, logits_V in folded.items())


# Beside preemption, forks and cached prefixes ----------------------------------------------------------------------


def test_preemption_around_folds_changes_nothing(kernel, babbling, run):
    prompts = [[i, *PROMPT[: 5 + i]] for i in range(9)]
    params = [folds_often(i) for i in range(9)]
    calm = [run(each, prompt, window=128) for prompt, each in zip(prompts, params, strict=True)]
    model = kernel.tiny_model(vocab_size=32)
    page = bytes_per_page(model.config, PAGE, model.compute_dtype)
    short = babbling(memory=8 * page, window=128, max_batch=6)
    finishes = short.generate(prompts, params, start=THINK)
    counters = short.stats.counters
    assert counters.preemptions > 10
    assert counters.folds == sum(len(finish.segments) - 1 for finish in finishes) > 30
    for prompt, finish, expected in zip(prompts, finishes, calm, strict=True):
        assert_same(finish, expected)
        assert_exact(finish, prompt)


@pytest.mark.parametrize("options", [{}, {"share_prefixes": False}, {"max_batch": 2}])
def test_forks_before_in_and_behind_a_state_go_on_exactly(babbling, run, options):
    whole = run(folds_often(4))
    fold = whole.ids.index(FOLD)
    state = whole.ids.index(STATE)
    assert state < fold - 1
    engine = babbling(**options)
    request = engine.submit(PROMPT, folds_often(4), start=THINK)
    forks, places = {}, {1, state, state + 1, fold - 1, fold, fold + 1}

    def fork_there(event):
        if isinstance(event, TokenEvent) and event.request == request and event.index in places:
            forks[engine.fork(request, seed=4)] = event.index + 1
            forks[engine.fork(request, seed=77)] = event.index + 1

    finished = drain(engine, fork_there)
    assert_same(finished[request], whole)
    assert len(forks) == 2 * len(places)
    same, others = 0, set()
    for fork, made in forks.items():
        finish = finished[fork]
        assert finish.ids[:made] == whole.ids[:made]
        assert finish.segments[0].prompt_ids == tuple(PROMPT)
        assert finish.usage.completion_tokens == len(finish.ids) - made
        thought = of_all(finish, "phases").count(THINK)
        assert (thought, finish.usage.prompt_tokens) == (120, 0)
        assert finish.usage.reasoning_tokens == 120 - made
        if finish.ids == whole.ids:
            same += 1
            assert_same(finish, whole)
            after = [state for state, end in zip(states(finish), fold_ends(finish), strict=True) if end > made]
            assert finish.usage.refilled_tokens == sum(len(PROMPT) % PAGE + len(state) for state in after)
        else:
            others.add(finish.ids)
    assert same == len(places)
    assert len(others) == len(places)
    assert engine.stats.pages_used == 0


def fold_ends(finish):
    """How many tokens were generated when each fold came."""
    ends, total = [], 0
    for segment in finish.segments[:-1]:
        total += len(segment.ids)
        ends.append(total)
    return ends


def test_samples_that_fold_at_different_times_share_the_prompts_pages(babbling, run):
    prompt = [(3 * i) % 26 for i in range(70)]
    engine = babbling()
    requests = [engine.submit(prompt, folds_often(i), start=THINK) for i in range(6)]
    shared = []
    finished = {}
    while engine.has_work:
        finished.update((event.request, event) for event in engine.step() if isinstance(event, FinishEvent))
        running = engine._scheduler.running
        shared.append(len({tuple(sequence.pages[:4]) for sequence in running}))
    assert max(shared) == 1, "however often they folded"
    for i, request in enumerate(requests):
        assert_same(finished[request], run(folds_often(i), prompt))
        assert_exact(finished[request], prompt)


# Constant memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thought", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_thinking_far_beyond_a_window_of_a_thousand_tokens_needs_constant_memory(thought):
    page = bytes_per_page(tiny_config(vocab_size=32, num_layers=1), PAGE, torch.float32)
    engine = Engine(Scripted({960: STATE, 980: FOLD}), TOKENS, window=1000, memory=-(-1000 // PAGE) * page)
    params = SamplingParams(max_tokens=thought + 10, temperature=0.0, thinking=ThinkingLimits(cap=thought))
    request = engine.submit(PROMPT, params, start=THINK)
    most, finish = [0], None
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, FinishEvent):
                finish = event
            elif event.id == FOLD:
                most.append(0)
        most[-1] = max(most[-1], engine.stats.pages_used + engine.stats.pages_cached)
    assert finish.request == request
    assert finish.usage.reasoning_tokens == thought
    assert len(finish.ids) == thought + 10
    assert len(finish.segments) == len(most) >= thought // 1000
    assert set(most[:-1]) == {-(-980 // PAGE)}, "every context holds as much as the one before"
    assert_exact(finish)
