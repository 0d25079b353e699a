"""refine: a wrong answer goes back to the step with the error; a verified one is never replaced."""

import pytest

from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.protocol import Capabilities
from ponder.tasks.protocol import Grade
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Reasoner
from ponder.think.events import Graded, Started
from ponder.think.steps import find_step, go_on_from, steps_of
from ponder.think.strategies.refine import refine
from ponder.types import Budget, InvalidRequest, Phase


def is_42(answer):
    return Grade(score=float(answer == "42"), why="it is not even", wrong_step="6 + 7")


def ask(lines, **settings):
    sampler = ScriptedSampler(lines)
    answer = Reasoner(sampler).ask("6 times 7?", verifier=is_42, **{"strategy": refine(samples=3)} | settings)
    return answer, sampler.requests


def test_a_verified_answer_is_given_at_once():
    answer, requests = ask(["42", "41"])
    assert answer.text == "42"
    assert len(requests) == 1


def test_a_wrong_answer_is_shown_its_error_and_answered_again():
    answer, (_, again) = ask(["13", "42", "41"])
    assert answer.text == "42"
    assert answer.cut is None
    assert [message.text for message in again.prompt] == [
        "6 times 7?",
        "13",
        "This answer was checked and is wrong: it is not even. The error is in: 6 + 7 "
        "Go back to the error, try another way, and answer again.",
    ]


def test_where_nothing_is_verified_the_first_of_the_best_is_given():
    answer, requests = ask(["13", "14", "15", "42"])
    assert (answer.text, len(requests)) == ("13", 3)
    assert [event.grade.score for event in answer.events if isinstance(event, Graded)] == [0, 0, 0]


def test_the_tries_keep_to_the_budget_and_say_so():
    answer, _ = ask(["13", "14", "42"], budget=Budget(samples=2))
    assert (answer.text, answer.cut) == ("13", "samples")


def test_without_a_verifier_it_is_refused():
    with pytest.raises(InvalidRequest, match="refine@4 has no verifier"):
        Reasoner(ScriptedSampler(["1"])).ask("x", strategy="refine")
    with pytest.raises(InvalidRequest, match="at least 2"):
        refine(samples=1)


def test_it_nests_in_a_vote_with_seeds_of_its_own():
    sampler = ScriptedSampler(lambda *_: "13")
    text = "consensus(refine(samples=2), samples=3, until='all')"
    answer = Reasoner(sampler).ask("x", verifier=is_42, strategy=text, seed=5)
    assert sorted(request.params.seed for request in sampler.requests) == [5, 6, 7, 8, 9, 10]
    assert answer.votes[0].count == 3
    assert {event.strategy for event in answer.events if isinstance(event, Started)} == {"consensus@3/refine@2"}


def test_an_endpoint_is_asked_again_in_words():
    with StubEndpoint(["13", "42"]) as stub:
        sampler = EndpointSampler(stub.url, "stub")
        assert Reasoner(sampler).ask("x", strategy="refine(samples=2)", verifier=is_42).text == "42"
        assert [message["role"] for message in stub.requests[1]["messages"]] == ["user", "assistant", "user"]


# Steps, over tokens ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampler():
    return tiny_sampler(max_positions=512)


@pytest.fixture(scope="module")
def completion(sampler):
    """A thought of three lines, whatever the model babbles: its newline is made likely."""
    newline = sampler.tokenizer.encode("\n")[0]
    away = [(id, -100.0) for id in sampler.tokenizer.control.values()]
    settings = {"logit_bias": [(newline, 4.0), *away], "thinking": 40, "max_tokens": 60, "temperature": 1.0, "seed": 3}
    return Reasoner(sampler).ask("2+2?", **settings).completions[0]


def test_the_steps_of_a_thought_are_its_lines(sampler, completion):
    steps = steps_of(completion, sampler.capabilities)
    assert len(steps) > 2
    assert "".join(step.text for step in steps) == sampler.tokenizer.decode(completion.segment.ids[: steps[-1].end])
    assert all(step.text.endswith("\n") and step.text.count("\n") == 1 for step in steps[:-1])
    assert [step.first for step in steps[1:]] == [step.end for step in steps[:-1]]
    thought = sum(phase is Phase.THINK for phase in completion.segment.phases)
    assert steps[-1].end in (thought, thought - 1), "the close is no step"
    worst = min(steps, key=lambda step: step.sureness)
    assert worst.sureness == min(completion.segment.logprobs[worst.first : worst.end])
    assert find_step(steps, steps[1].text).first <= steps[1].first
    assert find_step(steps, "") is find_step(steps, "never said") is None


def test_it_goes_on_from_the_tokens_before_a_step_and_within_the_cap(sampler, completion):
    step = steps_of(completion, sampler.capabilities)[2]
    again = go_on_from(Ask.of("2+2?", thinking=40, max_tokens=60), completion, step, sampler.capabilities)
    assert again.prompt == completion.segment.prompt_ids + completion.segment.ids[: step.first]
    assert (again.thinking.cap, again.max_tokens) == (40 - step.first, 60 - step.first)


def test_samplers_without_tokens_have_no_steps(completion):
    assert steps_of(completion, Capabilities(window=64)) == ()


def test_a_local_model_goes_back_to_a_step_and_finds_the_thought_before_it_in_the_cache(sampler):
    newline = sampler.tokenizer.encode("\n")[0]
    bias = [(newline, 4.0), *((id, -100.0) for id in sampler.tokenizer.control.values())]
    settings = {"logit_bias": bias, "thinking": 120, "max_tokens": 140, "temperature": 1.0, "seed": 3}
    answer = Reasoner(sampler).ask(
        "2+2?", strategy="refine(samples=4)", verifier=lambda text: Grade(score=0.0), **settings
    )
    first, *rest = answer.completions
    assert all(each.usage.completion_tokens <= 140 for each in answer.completions)
    kept = [len(each.segment.prompt_ids) - len(first.segment.prompt_ids) for each in rest]
    assert max(kept) > 16
    for each, length in zip(rest, kept, strict=True):
        assert each.segment.prompt_ids[len(first.segment.prompt_ids) :] == first.segment.ids[:length]
        assert each.reasoning.startswith(sampler.tokenizer.decode(first.segment.ids[:length])[:40])
        assert each.usage.cached_tokens >= (len(each.segment.prompt_ids) - 1) // 16 * 16
