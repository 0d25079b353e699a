"""approaches: ways are named first, each is followed by itself, the best answer is taken."""

import pytest

from ponder.dialogue.messages import Message
from ponder.tasks.protocol import Grade
from ponder.testing.scripted import ScriptedSampler
from ponder.think import Ask, Reasoner
from ponder.think.events import Planned, Started, bills
from ponder.think.strategies.approaches import approaches, distinct_ways
from ponder.types import InvalidRequest

PLAN = "1. By adding\n- By halving\n\n2) by adding\n* By tables\nBy luck"


def scripted(answers):
    answers = dict(answers)
    return ScriptedSampler(
        lambda conversation, index: next(
            (answer for way, answer in answers.items() if way in conversation[-1].text),
            PLAN if "Name" in conversation[-1].text else "?",
        )
    )


def test_each_way_is_followed_and_the_vote_takes_the_answer():
    sampler = scripted({"way: By adding": "42", "way: By halving": "41", "way: By tables": "42.0"})
    answer = Reasoner(sampler).ask("6 times 7?", strategy="approaches(ways=3)")
    assert answer.text == "42"
    assert answer.votes[0].count == 2
    assert sampler.requests[0].prompt[-1].text.startswith("6 times 7?\n\nName 3 different ways")
    (planned,) = [event for event in answer.events if isinstance(event, Planned)]
    assert planned.steps == ("By adding", "By halving", "By tables")
    roles = [event.role for event in answer.events if isinstance(event, Started)]
    assert roles == ["plan", "sample", "sample", "sample"]
    assert {each.role for each in bills(answer.events)} == {"plan", "sample"}


def test_a_verifier_takes_the_answer_where_there_is_one():
    sampler = scripted({"By adding": "42", "By halving": "41", "By tables": "42"})
    verifier = lambda text: Grade(score=float(text == "41"))  # noqa: E731
    assert Reasoner(sampler).ask("6 times 7?", strategy="approaches(ways=3)", verifier=verifier).text == "41"


def test_ways_are_lines_without_their_numbers_each_once():
    assert distinct_ways(PLAN, 9) == ("By adding", "By halving", "By tables", "By luck")
    assert distinct_ways(PLAN, 2) == ("By adding", "By halving")
    assert distinct_ways("", 2) == ()


def test_where_fewer_ways_are_named_the_rest_is_answered_without():
    sampler = scripted({"Name": "By adding", "By adding": "42", "7?": "42"})
    answer = Reasoner(sampler).ask("6 times 7?", strategy="approaches(ways=3)")
    assert answer.votes[0].count == 3
    assert [request.prompt[-1].text.count("way:") for request in sampler.requests] == [0, 1, 0, 0]


def test_a_prompt_of_ids_and_a_single_way_are_refused():
    with pytest.raises(InvalidRequest, match="needs a conversation"):
        approaches().demand(Ask(prompt=(1, 2)))
    with pytest.raises(InvalidRequest, match="at least 2"):
        approaches(ways=1)
    assert approaches().demand(Ask(prompt=(Message.user("x"),))).in_all == 4
