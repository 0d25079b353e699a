"""The effect of a wording: the same problems asked twice, graded as they were drawn, with a paired interval."""

from random import Random

import pytest

from ponder.evaluate.wording import Worded, wording_effect
from ponder.tasks.families import FAMILIES
from ponder.tasks.gym import GymTask
from ponder.testing.scripted import ScriptedSampler
from ponder.think import direct
from ponder.types import InvalidRequest

TASK = FAMILIES["products"]
PROBLEMS = [TASK.sample(Random(number), 0.2) for number in range(30)]


def effect(right):
    """Of a model that solves problem `number` in a wording where `right(number, after)` says so."""

    def script(conversation, index):
        text = conversation[-1].text
        number, problem = next((n, each) for n, each in enumerate(PROBLEMS) if each.question in text)
        return problem.answer if right(number, text.startswith("New")) else "no idea"

    before, after = "Old: {question}", "New: {question}"
    return wording_effect(ScriptedSampler(script), TASK, PROBLEMS, before, after, direct(effort="none"))


def test_a_wording_that_helps_is_measured_with_its_interval():
    found = effect(lambda number, after: number % 3 == 0 or (after and number % 2 == 0))
    assert found.difference == pytest.approx(found.after - found.before)
    assert found.measurable
    assert 0 < found.interval.low < found.difference < found.interval.high
    assert "difference +0." in found.words()
    assert "no measurable effect" not in found.words()


@pytest.mark.parametrize("right", [lambda number, after: number % 2 == 0, lambda number, after: number % 2 == after])
def test_no_measurable_effect_is_called_that(right):
    found = effect(right)
    assert not found.measurable
    assert "no measurable effect: difference" in found.words()


def test_problems_are_graded_as_they_were_drawn():
    task = GymTask("chain_sum")
    problem = task.sample(Random(0), 0.5)
    worded = Worded(task, "Please: {question} Thanks.")
    asked = worded.worded(problem)
    assert asked.question == f"Please: {problem.question} Thanks."
    assert worded.grade(asked, problem.answer).solved
    assert not worded.grade(asked, "x").solved


@pytest.mark.parametrize("template", ["", "no slot", "{question} {question}"])
def test_a_wording_needs_its_slot_once(template):
    with pytest.raises(InvalidRequest, match=r"must hold \{question\} once"):
        Worded(TASK, template)
