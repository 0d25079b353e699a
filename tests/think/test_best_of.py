"""best_of: the answer that a verifier grades highest, or that the model finds likeliest."""

import asyncio
from math import exp, log

import pytest

from ponder.sampler.protocol import Completion
from ponder.tasks.protocol import Grade
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Ledger, Reasoner, answer_of
from ponder.think.events import Cut, Graded
from ponder.think.scoring import likelihood
from ponder.think.strategies.best_of import best_of
from ponder.types import Budget, InvalidRequest, Phase


def longest(answer):
    return Grade(score=min(1.0, len(answer) / 10))


def test_the_verifier_chooses_and_its_grades_are_in_the_trace():
    sampler = ScriptedSampler(["ab", "abcd", "abc"])
    answer = Reasoner(sampler).ask("x", strategy=best_of(samples=3, by="verifier"), verifier=longest)
    assert answer.text == "abcd"
    assert [event.grade.score for event in answer.events if isinstance(event, Graded)] == [0.2, 0.4, 0.3]
    assert answer.usage.completion_tokens == 6


def test_of_equal_answers_the_earliest_is_taken():
    answer = Reasoner(ScriptedSampler(["ab", "cd"])).ask(
        "x", strategy=best_of(samples=2, by="verifier"), verifier=longest
    )
    assert answer.text == "ab"


def test_what_was_cut_off_is_graded_nothing_whatever_a_verifier_says():
    sampler = ScriptedSampler(["a b c d e f", "g"])
    strategy = best_of(samples=2, by="verifier", max_tokens=3, effort="none")
    answer = Reasoner(sampler).ask("x", strategy=strategy, verifier=longest)
    assert answer.text == "g"


def test_the_model_s_own_likelihood_chooses_over_the_local_engine():
    answer = Reasoner(tiny_sampler(max_positions=128)).ask("2+2?", strategy="best_of(samples=4)", max_tokens=6, seed=1)
    grades = [event.grade.score for event in answer.events if isinstance(event, Graded)]
    finished = [likelihood(each) if each.text.strip() else 0.0 for each in answer.completions]
    assert len(grades) == 4
    assert all(grade in (0.0, mean) for grade, mean in zip(grades, finished, strict=True))
    assert answer.message is answer.completions[grades.index(max(grades))].message


def test_likelihood_is_the_geometric_mean_of_the_visible_tokens():
    sampler = tiny_sampler(max_positions=128)
    completion: Completion = Reasoner(sampler).ask("2+2?", max_tokens=8, effort="none").completions[0]
    (segment,) = completion.segments
    said = [value for value, phase in zip(segment.logprobs, segment.phases, strict=True) if phase is Phase.ANSWER]
    assert likelihood(completion) == pytest.approx(exp(sum(said) / len(said)))
    assert log(likelihood(completion)) < 0


def test_out_of_time_the_best_so_far_is_given():
    sampler = ScriptedSampler([Say("ab"), Say("abc"), Say("abcdef", seconds=60)])
    ask = Ask.of("x", verifier=longest)
    ledger = Ledger(Budget(seconds=0.3))
    answer = asyncio.run(answer_of(best_of(samples=3, by="verifier"), ask, sampler, ledger))
    assert (answer.text, answer.cut) == ("abc", Cut.SECONDS)


def test_what_cannot_choose_is_refused():
    reasoner = Reasoner(ScriptedSampler(["a", "b"]))
    with pytest.raises(InvalidRequest, match=r"no verifier to choose by: give one, or a judge, or set by='likelihood'"):
        reasoner.ask("x", strategy="best_of(by='verifier')")
    with pytest.raises(InvalidRequest, match="scripted gives no log-probabilities"):
        reasoner.ask("x", strategy="best_of(samples=2)")
    for wrong, why in (({"samples": 0}, "at least 1 sample"), ({"by": "luck"}, "must be one of verifier, likelihood")):
        with pytest.raises(InvalidRequest, match=why):
            best_of(**wrong)
