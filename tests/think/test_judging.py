"""A model as a judge: its marks choose, are billed, and keep to the budget; and self-certainty as a chooser."""

import asyncio
import math

import pytest

from ponder.sampler.endpoint import EndpointSampler
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Reasoner, delegate, parse_strategy
from ponder.think.events import Graded, Started, bills
from ponder.think.judging import read_mark
from ponder.think.strategies.best_of import best_of
from ponder.think.strategies.consensus import borda
from ponder.types import Budget, InvalidRequest, Usage


def judge(marks, name="judge"):
    """Marks an answer by what it says."""
    return ScriptedSampler(lambda asked, _: f"I looked at {asked[-2].text}.\n{marks[asked[-2].text]}", name=name)


MARKS = judge({"41": 2, "42": 9, "43": 4})


@pytest.mark.parametrize(
    "text", ["best_of(samples=3)", "approaches(ways=2)", "consensus(samples=3, weight='verifier')"]
)
def test_a_judge_chooses_where_there_is_no_verifier(text):
    sampler, marks = ScriptedSampler(["41", "42", "43"], name="answers"), judge({"41": 2, "42": 9, "43": 4})
    answer = Reasoner(sampler).ask("6 times 7?", strategy=text, judge=marks)
    assert answer.text == "42"
    assert answer.usage == sampler.counted + marks.counted
    assert {(each.role, each.model) for each in bills(answer.events)} >= {("sample", "answers"), ("judge", "judge")}
    asked, *_, question = marks.requests[0].prompt
    assert "6 times 7?" in asked.text
    assert question.text.startswith("Is this answer right?")


def test_a_model_may_judge_itself_and_a_judge_is_named_in_a_text():
    said = lambda asked, _: "42" if len(asked) == 1 else "10"  # noqa: E731
    sampler = ScriptedSampler(said)
    answer = Reasoner(sampler).ask("x", strategy="best_of(samples=2, judge='self')")
    assert [event.role for event in answer.events if isinstance(event, Started)] == ["sample"] * 2 + ["judge"] * 2
    with StubEndpoint(lambda *_: "5") as stub:
        made = parse_strategy(f"best_of(samples=2, judge='{stub.url}#m')")
        answer = Reasoner(ScriptedSampler(["1", "2"])).ask("x", strategy=made)
        assert [event.grade.score for event in answer.events if isinstance(event, Graded)] == [0.5, 0.5]
        assert len(stub.requests) == 2
    assert made.demand(Ask.of("x")).in_all == 4


def test_refine_mends_by_what_another_model_says_and_refuses_itself():
    sampler = ScriptedSampler(["41", "42"])
    marks = judge({"41": 0, "42": 10})
    with StubEndpoint(["41", "42"], dialect="vllm") as stub:
        remote = EndpointSampler(stub.url, "m", dialect="vllm", backoff=0.0)
        answer = Reasoner(remote).ask("6 times 7?", strategy="refine(samples=2)", judge=marks)
    assert answer.text == "42"
    assert "I looked at 41." in stub.requests[1]["messages"][-1]["content"]
    with pytest.raises(InvalidRequest, match="needs a judge that is another model"):
        Reasoner(sampler).ask("x", strategy="refine(judge='self')")


def test_a_judge_checks_the_steps_of_a_plan_that_no_rule_can():
    plan = (
        '[{"name": "a", "task": "Name a town.", "expects": "a town"}, {"name": "b", "task": "2", "expects": "integer"}]'
    )
    large = ScriptedSampler(
        lambda asked, _: "Rome" if asked[-1].text.endswith("Answer it.") else "9" if len(asked) > 1 else plan, name="l"
    )
    small = ScriptedSampler(lambda asked, _: "Rome" if "town" in asked[0].text else "2", name="s")
    answer = Reasoner(large).ask("?", strategy=delegate(workers=small, judge="self"))
    roles = [(event.role, event.model) for event in answer.events if isinstance(event, Started)]
    assert sorted(roles) == [("judge", "l"), ("plan", "l"), ("worker", "s"), ("worker", "s"), ("write", "l")]
    assert answer.usage == large.counted + small.counted


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_half_of_a_budget_is_kept_for_the_judge(samples):
    sampler, marks = ScriptedSampler(["41", "42", "43", "41"]), judge({"41": 2, "42": 9, "43": 4})
    answer = Reasoner(sampler).ask("x", strategy=best_of(samples=4), judge=marks, budget=Budget(samples=samples))
    assert len(sampler.requests) == 1
    assert sampler.requests[0].n + len(marks.requests) == max(1, 2 * (samples // 2))
    assert answer.text == ("42" if samples == 4 else "41")


def test_a_judge_that_fails_leaves_an_answer():
    with StubEndpoint([], dialect="vllm") as stub:
        remote = EndpointSampler(stub.url, "m", dialect="vllm", backoff=0.0, retries=0)
        answer = Reasoner(ScriptedSampler(["1", "2"])).ask("x", strategy="best_of(samples=2)", judge=remote)
    assert answer.text == "1"
    assert {event.grade.status for event in answer.events if isinstance(event, Graded)} == {GradeStatus.FAILED}


@pytest.mark.parametrize(
    ("text", "score"),
    [("Right.\n10", 1.0), ("7/10", 0.7), ("Mark: **8**.", 0.8), ("0", 0.0), ("2.5", 0.25)],
)
def test_marks_are_read_from_the_end(text, score):
    made = read_mark(text)
    assert (made.score, made.status) == (score, GradeStatus.GRADED)


@pytest.mark.parametrize("text", ["", "fine", "It is 42", "10 out of 12", "x10"])
def test_what_is_no_mark_counts_nothing(text):
    assert (read_mark(text).score, read_mark(text).status) == (0.0, GradeStatus.UNPARSEABLE)


# Self-certainty -------------------------------------------------------------------------------------------------------


def test_self_certainty_is_the_divergence_from_uniform():
    sampler = tiny_sampler()
    ids, size = [5, 6, 7, 8], 320
    _, likeliest = asyncio.run(sampler.score(ids, top=size))
    by_hand = [-math.log(size) - sum(value for _, value in each) / size for each in likeliest]
    assert asyncio.run(sampler.certainty(ids, 2)) == pytest.approx(sum(by_hand[1:]) / 2, abs=1e-4)
    with pytest.raises(InvalidRequest, match="first must be from 1 to 3"):
        asyncio.run(sampler.certainty(ids, 4))


def test_the_most_certain_answer_is_chosen_and_reading_it_again_is_billed():
    reasoner = Reasoner(tiny_sampler())
    settings = {"effort": "none", "temperature": 1.0, "seed": 1, "stop": [" ", "\n", "e"], "max_tokens": 100}
    answer = reasoner.ask("x", strategy="best_of(samples=4, by='self_certainty')", **settings)
    grades = [event.grade for event in answer.events if isinstance(event, Graded)]
    best = max(range(4), key=lambda place: grades[place].score)
    assert answer.text == answer.completions[best].text
    for grade, made in zip(grades, answer.completions, strict=True):
        read = sum(len(each.prompt_ids) + len(each.ids) for each in made.segments) if made.answers else 0
        assert grade.usage == Usage(prompt_tokens=read)
    voted = reasoner.ask("x", strategy="consensus(samples=4, weight='self_certainty')", **settings)
    assert sum(vote.size for vote in voted.votes) <= sum(rank**0.5 for rank in range(1, 5)) + 1e-9


def test_ranks_weigh_by_borda():
    made = borda({7: Grade(score=0.1), 8: Grade(score=0.9), 9: Grade(score=0.5)}, power=1.0)
    assert {sample: grade.score for sample, grade in made.items()} == {8: 3, 9: 2, 7: 1}


def test_a_sampler_without_distributions_is_refused():
    for text in ("best_of(by='self_certainty')", "consensus(weight='self_certainty')"):
        with pytest.raises(InvalidRequest, match="cannot measure self-certainty"):
            Reasoner(ScriptedSampler(["1"])).ask("x", strategy=text)
