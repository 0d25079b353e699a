"""Votes: which answers are one, how they are counted, and when a vote is decided."""

import asyncio
from itertools import product
from random import Random

import pytest

from ponder.dialogue.messages import Message
from ponder.sampler.protocol import Completion
from ponder.tasks.protocol import Grade
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Reasoner, answer_of, consensus, parse_strategy
from ponder.think.candidates import Candidate
from ponder.think.events import Started
from ponder.think.scoring import likelihood
from ponder.think.voting import StopRule, chance_to_pass, count_votes, is_enough, is_settled, same_answer
from ponder.types import StopReason, Usage

ASK = Ask.of("x")

# Equal answers: every spelling of a row is the same as every other one, and of no other row.
SPELLINGS = [
    ["1/2", "0.5", ".50", "50%", r"\frac{1}{2}", r"$\dfrac{1}{2}$", "+0.500", "5e-1", r"\boxed{0.5}", "2/4"],
    ["42", "42.0", " 42 ", "42.", "forty-two", "Forty two", "The answer is 42.", "**42**", r"$\boxed{42}$", "84/2"],
    ["1234567", "1,234,567", "1234567.00", "1.234567e6", "So the answer is: 1234567"],
    ["-3", "−3", "-3.0", "minus three", "- 3", "-6/2"],
    ["Paris", "paris", "PARIS.", '"Paris"', " paris ", "Answer: Paris"],
    ["yes", "Yes.", "YES", "yes!"],
    ["(3, 4)", "(3,4)", "( 3 , 4 )"],
    ["x + 1", "x+1", "X  +  1"],
    ["two hundred and five", "205", "205.0"],
    ["no", "No."],
    ["3", "three", "3.00"],
    ["$5", "5", "5.0"],
]
PAIRS = [(a, b) for row in SPELLINGS for place, a in enumerate(row) for b in row[place + 1 :]]
OTHERS = [(first[0], second[-1]) for place, first in enumerate(SPELLINGS) for second in SPELLINGS[place + 1 :]]


def test_equal_values_are_one_answer_however_they_are_written():
    assert len(PAIRS) + len(OTHERS) >= 200
    assert [pair for pair in PAIRS if not (same_answer(*pair) and same_answer(*reversed(pair)))] == []
    assert [pair for pair in OTHERS if same_answer(*pair)] == []


@pytest.mark.parametrize(
    ("a", "b"), [("1/0", "1/0 "), ("one one", "2"), ("hundred", "100"), ("", "zero"), ("and", "0"), ("12", "1 2 3")]
)
def test_what_is_not_a_number_is_compared_as_text(a, b):
    assert same_answer(a, b) == (a.strip() == b.strip())


def candidates(*answers, reasons=None):
    reasons = reasons or [StopReason.END] * len(answers)
    return [
        Candidate(index, Completion(message=Message.assistant(text), stop_reason=reason, usage=Usage()))
        for index, (text, reason) in enumerate(zip(answers, reasons, strict=True))
    ]


def test_what_was_cut_off_or_is_empty_never_votes():
    rng = Random(0)
    for _ in range(200):
        texts = [rng.choice(["1", "2", ""]) for _ in range(6)]
        reasons = [rng.choice(list(StopReason)) for _ in range(6)]
        votes = count_votes(candidates(*texts, reasons=reasons), same_answer)
        voted = {sample for vote in votes for sample in vote.samples}
        whole = (StopReason.END, StopReason.STOP)
        assert voted == {place for place in range(6) if texts[place] and reasons[place] in whole}


def test_weights_add_up_and_break_majorities():
    votes = count_votes(candidates("1", "2", "2"), same_answer, lambda each: [1.0, 0.3, 0.4][each.sample])
    assert [(vote.answer, vote.size, vote.count) for vote in votes] == [("1", 1.0, 1), ("2", 0.7, 2)]


# When it is decided ---------------------------------------------------------------------------------------------------


@pytest.mark.property
def test_a_settled_vote_is_one_that_no_rest_can_change():
    for drawn in range(1, 5):
        for left in range(1, 4):
            for answers in product("abc", repeat=drawn):
                votes = count_votes(candidates(*answers), same_answer)
                winners = {
                    count_votes(candidates(*answers, *rest), same_answer)[0].answer
                    for rest in product("abcd", repeat=left)
                }
                assert is_settled(votes, left) == (winners == {votes[0].answer}), (answers, left)


def test_the_chance_of_the_runner_up_is_that_of_the_urn():
    assert chance_to_pass(0, 0, 1) == pytest.approx(1 / 2)
    assert chance_to_pass(3, 0, 3) == 0
    assert chance_to_pass(1, 0, 3) == pytest.approx(1 / 3 * 2 / 4 * 3 / 5)
    rng, passes = Random(1), 0
    for _ in range(20_000):
        first, second = 4, 1
        for _ in range(9):
            second_gets = rng.random() < (second + 1) / (first + second + 2)
            first, second = first + (not second_gets), second + second_gets
        passes += second > first
    assert chance_to_pass(4, 1, 9) == pytest.approx(passes / 20_000, abs=0.01)


def test_prediction_stops_no_later_than_certainty_and_all_never_stops():
    votes = count_votes(candidates(*"aaaaa"), same_answer)
    assert is_enough(StopRule.PREDICT, votes, 27)
    assert not is_enough(StopRule.SETTLED, votes, 27)
    assert is_enough(StopRule.SETTLED, votes, 5)
    assert not is_enough(StopRule.ALL, votes, 5)


def test_a_vote_that_is_decided_draws_no_more():
    sampler = ScriptedSampler(lambda *_: "7")
    answer = asyncio.run(answer_of(parse_strategy("consensus(samples=32)"), ASK, sampler))
    assert answer.cut is None, "it is done, not cut short"
    assert answer.votes[0].count < 8
    assert sum(isinstance(event, Started) for event in answer.events) < 12


@pytest.mark.property
def test_settled_gives_the_answer_of_the_whole_vote_whatever_is_slow():
    """Samples count in the order of their seeds, not of their ends."""
    for seed in range(30):
        rng = Random(seed)
        says = {index: Say(rng.choice("aab"), seconds=rng.choice((0.0, 0.004))) for index in range(12)}

        class BySeed(ScriptedSampler):
            async def stream(self, request, delivery, says=says):
                self._prompter = type(self._prompter)([says[request.params.seed + index] for index in range(request.n)])
                async for event in super().stream(request, delivery):
                    yield event

        def vote(until, make=BySeed):
            strategy = consensus(samples=12, until=until)
            return asyncio.run(answer_of(strategy, ASK.override(seed=0), make([])))

        whole, settled, predicted = vote("all"), vote("settled"), vote("predict")
        assert settled.text == whole.text
        counted = [each.text for each in settled.completions]
        assert counted == [each.text for each in whole.completions][: len(counted)]
        assert len(predicted.completions) <= len(settled.completions)


def test_the_same_seed_gives_the_same_vote_over_the_engine():
    asked = {"strategy": "consensus(samples=6)", "max_tokens": 9, "seed": 4}
    first, second = (Reasoner(tiny_sampler(max_positions=128)).ask("2+2?", **asked) for _ in range(2))
    assert (first.text, len(first.votes)) == (second.text, len(second.votes))


def test_weights_by_verifier_and_by_likelihood():
    grades = {"1": 0.9, "2": 0.2}
    strategy = "consensus(samples=3, weight='verifier')"
    answer = Reasoner(ScriptedSampler(["2", "1", "2"])).ask(
        "x", strategy=strategy, verifier=lambda text: Grade(score=grades[text])
    )
    assert (answer.text, answer.votes[0].size) == ("1", 0.9)
    assert answer.margin == pytest.approx(0.5 / 1.3)
    local = Reasoner(tiny_sampler(max_positions=128))
    answer = local.ask("2+2?", strategy="consensus(samples=3, weight='likelihood')", max_tokens=8, seed=2, stop="e")
    sizes = {vote.samples[0]: vote.size for vote in answer.votes}
    assert all(size == pytest.approx(likelihood(answer.completions[sample])) for sample, size in sizes.items())
