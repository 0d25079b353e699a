"""Strategies: budgets kept exactly, votes counted right, answers that survive being cut short."""

import asyncio

import pytest

from ponder.sampler.protocol import Truncation
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.think import Ask, Ledger, Strategy, answer_of, consensus, direct, limits, parse_strategy
from ponder.think.ask import answer_room
from ponder.think.events import Cut, Vote
from ponder.types import Budget, Effort, InvalidRequest, StopReason, ThinkingLimits

ASK = Ask.of("What is 6 times 7?")
THOUGHT = Say(text="The answer is 42.", reasoning="Let me think about it for a while, then.")


def run(strategy, sampler, budget=None, ask=ASK):
    async def answer():
        return await answer_of(strategy, ask, sampler, Ledger(budget))

    return asyncio.run(answer())


# Effort ---------------------------------------------------------------------------------------------------------------


def test_efforts_are_rising_shares_of_what_the_answer_leaves():
    caps = [limits(effort, 1024).cap for effort in Effort]
    assert caps == [0, 28, 112, 448, 896]
    assert limits("high", 1024).cap + answer_room(1024) == 1024


def test_any_effort_but_none_can_close_its_thinking():
    assert [limits(effort, 8).cap for effort in Effort] == [0, 1, 1, 3, 7]


def test_a_model_that_folds_may_think_for_longer_than_its_window():
    assert [limits(effort, 1024, 32768).cap for effort in Effort] == [0, 1024, 4096, 16384, 32768]
    sampler = ScriptedSampler([THOUGHT], thinking_tokens=32768)
    run(direct(effort="high"), sampler)
    params = sampler.requests[0].params
    assert params.thinking.cap == 32768
    assert params.max_tokens == 32768 + answer_room(4096)


def test_an_unknown_effort_lists_the_known_ones():
    with pytest.raises(InvalidRequest, match="none, minimal, low, medium, high"):
        limits("max", 1024)


def test_the_answer_s_room_is_at_most_half_of_max_tokens():
    assert answer_room(1024) == 128
    assert answer_room(1024, 40) == 20


# Direct ---------------------------------------------------------------------------------------------------------------


def test_direct_gives_answer_reasoning_and_bill():
    answer = run(direct(effort="high"), ScriptedSampler([THOUGHT]))
    assert answer.text == THOUGHT.text
    assert answer.reasoning == THOUGHT.reasoning
    assert answer.stop_reason is StopReason.END
    assert answer.usage.reasoning_tokens == 10
    assert answer.usage.completion_tokens == 15
    assert answer.message.reasoning == THOUGHT.reasoning


def test_effort_none_answers_at_once():
    sampler = ScriptedSampler([THOUGHT])
    answer = run(direct(effort="none"), sampler)
    assert answer.reasoning == ""
    assert answer.usage.reasoning_tokens == 0
    assert sampler.requests[0].params.thinking == ThinkingLimits(cap=0)


def test_direct_is_greedy_unless_told_otherwise():
    sampler = ScriptedSampler([THOUGHT] * 2)
    run(direct(), sampler)
    run(direct(temperature=0.5, seed=3, max_tokens=99), sampler)
    first, second = (each.params for each in sampler.requests)
    assert first.temperature == 0
    assert (second.temperature, second.seed, second.max_tokens) == (0.5, 3, 99)


@pytest.mark.parametrize("thinking", [ThinkingLimits(cap=4), 4])
@pytest.mark.parametrize("strategy", [direct, lambda **settings: consensus(samples=1, **settings)])
def test_a_cap_in_tokens_is_kept_exactly_and_leaves_the_answer_its_room(strategy, thinking):
    sampler = ScriptedSampler([THOUGHT])
    answer = run(strategy(thinking=thinking), sampler)
    assert answer.usage.reasoning_tokens == 4
    assert answer.text == THOUGHT.text
    assert sampler.requests[0].params.answer_room == answer_room(sampler.capabilities.window)


def test_a_cap_beyond_the_window_is_for_folded_thoughts():
    sampler = ScriptedSampler([THOUGHT] * 3, window=64)
    run(direct(thinking=1000), sampler)
    run(direct(thinking=16), sampler)
    run(direct(thinking=1000, max_tokens=20, answer_room=2), sampler)
    params = [request.params for request in sampler.requests]
    assert [(each.max_tokens, each.answer_room) for each in params] == [(1008, 8), (64, 8), (20, 2)]


def test_a_cap_of_nothing_answers_at_once():
    sampler = ScriptedSampler([THOUGHT])
    assert run(direct(thinking=0), sampler).usage.reasoning_tokens == 0
    assert (sampler.requests[0].params.max_tokens, sampler.requests[0].params.answer_room) == (None, 0)


@pytest.mark.parametrize("strategy", [direct, consensus])
def test_how_long_to_think_is_said_once(strategy):
    with pytest.raises(InvalidRequest, match="effort and thinking both"):
        strategy(effort="high", thinking=4)


def test_the_ask_s_policy_and_truncation_reach_the_sampler():
    sampler = ScriptedSampler([THOUGHT])
    run(direct(), sampler, ask=ASK.override(truncation=Truncation.AUTO))
    assert sampler.requests[0].truncation is Truncation.AUTO


@pytest.mark.parametrize("tokens", [1, 2, 5, 9, 10, 14, 15, 99])
def test_a_token_budget_is_kept_exactly(tokens):
    answer = run(direct(effort="high"), ScriptedSampler([THOUGHT]), Budget(tokens=tokens))
    assert answer.usage.completion_tokens <= tokens


@pytest.mark.parametrize("budget", [Budget(tokens=0), Budget(samples=0), Budget(seconds=0), Budget(seconds=-1)])
@pytest.mark.parametrize("strategy", [direct(), consensus(samples=2)])
def test_a_budget_that_allows_nothing_is_refused(budget, strategy):
    with pytest.raises(InvalidRequest, match="must be above 0"):
        run(strategy, ScriptedSampler([THOUGHT]), budget)


def test_out_of_time_direct_gives_what_it_has_said():
    slow = Say(text="one two three four", seconds=2.0)
    answer = run(direct(), ScriptedSampler([slow]), Budget(seconds=0.8))
    assert slow.text.startswith(answer.text)
    assert answer.text != slow.text
    assert answer.stop_reason is StopReason.DEADLINE
    assert answer.cut is Cut.SECONDS
    assert answer.usage_estimated


# Consensus ------------------------------------------------------------------------------------------------------------


def vote(*texts, **options):
    return run(consensus(samples=len(texts), **options), ScriptedSampler(list(texts)))


def test_the_majority_wins():
    answer = vote("41", "42", "42.0", "7")
    assert answer.text == "42"
    assert answer.votes == (Vote("42", (1, 2)), Vote("41", (0,)), Vote("7", (3,)))
    assert answer.margin == 0.25
    assert [each.text for each in answer.completions] == ["41", "42", "42.0", "7"]


def test_a_tie_goes_to_the_earliest_sample():
    assert vote("b", "a", "a", "b").text == "b"
    assert vote("a", "b").text == "a"
    assert vote("a", "b").margin == 0


def test_the_ask_says_what_agrees():
    lenient = ASK.override(same=lambda a, b: a[0] == b[0])
    answer = run(consensus(samples=3), ScriptedSampler(["bat", "apple", "avocado"]), ask=lenient)
    assert answer.text == "apple"


def test_the_bill_is_for_every_sample_and_the_prompt_is_counted_once():
    answer = vote("a", "b c", "d e f")
    assert answer.usage.completion_tokens == 2 + 3 + 4
    assert answer.usage.prompt_tokens == 6


def test_answers_that_were_cut_off_or_are_empty_do_not_vote():
    sampler = ScriptedSampler(["1 2 3 4 5 6", "1 2 3 4 5 6", "", "", "", "7"])
    answer = run(consensus(samples=6, max_tokens=3, effort="none"), sampler)
    assert answer.text == "7"
    assert [each.stop_reason is StopReason.LENGTH for each in answer.completions].count(True) == 2
    assert answer.margin == 1.0


def test_where_nobody_votes_the_first_sample_speaks_with_margin_zero():
    answer = run(consensus(samples=2, max_tokens=2, effort="none"), ScriptedSampler(["a b c d", "e f g h"]))
    assert answer.text == "a b"
    assert answer.votes == ()
    assert answer.margin == 0


@pytest.mark.parametrize("tokens", [1, 3, 4, 7, 40])
def test_consensus_keeps_a_token_budget_over_all_samples(tokens):
    sampler = ScriptedSampler(lambda *_: THOUGHT)
    answer = run(consensus(samples=4), sampler, Budget(tokens=tokens))
    assert answer.usage.completion_tokens <= tokens
    assert sampler.requests[0].n == min(4, tokens)


def test_consensus_keeps_a_sample_budget():
    sampler = ScriptedSampler(lambda *_: "1")
    assert len(run(consensus(samples=8), sampler, Budget(samples=3)).completions) == 3


def test_out_of_time_the_best_so_far_wins():
    lines = [Say(text="1"), Say(text="2"), Say(text="2"), Say(text="3", seconds=60)]
    answer = run(consensus(samples=4), ScriptedSampler(lines), Budget(seconds=0.3))
    assert answer.text == "2"
    assert answer.cut is Cut.SECONDS
    assert [each.stop_reason for each in answer.completions] == [StopReason.END] * 3 + [StopReason.DEADLINE]


def test_cancelled_with_votes_in_hand_it_answers():
    async def cancelled():
        lines = [Say(text="1"), Say(text="2", seconds=60)]
        task = asyncio.ensure_future(answer_of(consensus(samples=2), ASK, ScriptedSampler(lines)))
        await asyncio.sleep(0.1)
        task.cancel()
        return await task

    answer = asyncio.run(cancelled())
    assert answer.text == "1"
    assert answer.cut is Cut.CANCELLED
    assert answer.unbilled == 0
    assert [each.stop_reason for each in answer.completions] == [StopReason.END, StopReason.ABORTED]


def test_cancelled_with_nothing_in_hand_it_is_cancelled():
    async def cancelled():
        task = asyncio.ensure_future(answer_of(consensus(samples=2), ASK, ScriptedSampler([Say(text="1", seconds=60)])))
        await asyncio.sleep(0.1)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_a_vote_needs_variety():
    with pytest.raises(InvalidRequest, match="temperature 0"):
        consensus(samples=8, temperature=0)
    with pytest.raises(InvalidRequest, match="at least 1"):
        consensus(samples=0)


# By text --------------------------------------------------------------------------------------------------------------


def test_strategies_by_text():
    assert parse_strategy("direct").name == "direct"
    assert parse_strategy("consensus").name == "consensus@8"
    assert parse_strategy("consensus(samples=4, temperature=0.7)").name == "consensus@4"
    assert parse_strategy(" consensus( samples = 4 ) ").name == "consensus@4"
    assert isinstance(parse_strategy("direct(effort='low')"), Strategy)
    assert parse_strategy("consensus(thinking=64)").settings == {"thinking": ThinkingLimits(cap=64)}


def test_what_a_strategy_says_itself_holds_before_the_ask():
    sampler = ScriptedSampler(lambda *_: "1")
    run(parse_strategy("consensus(samples=2, temperature=0.7)"), sampler, ask=ASK.override(temperature=0.2, seed=5))
    run(parse_strategy("direct(effort='none')"), sampler, ask=ASK.override(thinking=64))
    first, second = (request.params for request in sampler.requests)
    assert (first.temperature, first.seed) == (0.7, 5)
    assert second.thinking == ThinkingLimits(cap=0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("concensus", "did you mean 'consensus'"),
        ("zzz()", "there are: .*direct"),
        ("consensus(sample=8)", "did you mean 'samples'"),
        ("consensus(samples='8')", "samples must be int (got '8'"),
        ("consensus(samples=2.5)", "samples must be int"),
        ("consensus(samples=True)", "samples must be int"),
        ("consensus(8)", "is not a strategy"),
        ("consensus(samples=", "is not a strategy"),
        ("consensus(**{})", "is not a strategy"),
        ("consensus(samples=len('x'))", "plain number or string"),
        ("a.b()", "is not a strategy"),
        ("", "is not a strategy"),
        ("direct(thinking='3')", "thinking must be int (got '3'"),
        ("direct(thinking=3, effort='low')", "effort and thinking both"),
        ("direct(effort='huge')", "no effort 'huge'"),
    ],
)
def test_a_wrong_text_is_told_what_is_wrong(text, complaint):
    with pytest.raises(InvalidRequest, match=complaint.replace("(", r"\(")):
        parse_strategy(text)
