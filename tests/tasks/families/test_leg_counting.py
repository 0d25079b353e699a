"""Every line is re-checked: the item is the question's next, the legs are the dataset's, the sum is right."""

from __future__ import annotations

import re
from random import Random

import pytest
from family_checks import context_lengths
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families.leg_counting import GYM, LEGS_OF, LINES, LegCounting
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)
HARD = {"min_animals": 20, "max_animals": 30, "min_instances": 64, "max_instances": 256}


def gym_entry(config: dict[str, int], index: int):
    task = GymTask("leg_counting", config)
    problem = task.problem(index)
    return task, problem, task.entry(problem)["metadata"]["animals"]


@given(seed=seeds, level=levels)
@settings(max_examples=33, deadline=None)
def test_every_line_adds_the_legs_of_the_next_animals(seed: int, level: float):
    rng = Random(seed)
    family = LegCounting()
    problem = family.sample(rng, level)
    demonstration = family.demonstrate(problem, rng)
    listed = re.findall(r"(\d+) ([a-z ]+?)(?=[,?.])", problem.question)
    *lines, answer = demonstration.text.split("\n")
    states = iter([fold.state for fold in demonstration.folds])
    total, last = 0, ""
    for place, line in enumerate(lines):
        name = "abcdef"[place % LINES]
        sum_text = str(total)[::-1]
        if name == "a" and place:
            assert next(states) == f"{sum_text} {last}"
        head = f"{name} {sum_text}{f' {last}' if last else ''}"
        if place == len(listed):
            assert line == f"{head}{problem.question.rstrip()[-1]}"
            break
        count, animal = listed[place]
        legs = LEGS_OF[animal if int(count) == 1 else animal[:-1]]
        assert line.startswith(f"{head}, {count} {animal} {legs}"), line
        working = line.removeprefix(f"{head}, {count} {animal} {legs}")
        for a, b, c, d, wrong, right in re.findall(r"(\d)\*(\d)\+(\d)\+(\d)=(?:(\d\d) no )?(\d\d)", working):
            assert int(a) * int(b) + int(c) + int(d) == int(right), line
            assert wrong != right
        assert (legs == 0) == (working == "")
        total, last = total + int(count) * legs, animal
    assert int(answer) == total == int(problem.answer) == int(demonstration.answer)
    assert next(states, None) is None


def test_wording_and_legs_are_the_datasets():
    for config in ({}, HARD):
        for index in range(30):
            task, problem, animals = gym_entry(config, index)
            mine = Problem(task="leg_counting", question=problem.question, answer="", metadata={"animals": animals})
            listed = ", ".join(f"{n} {a}{'s' if n > 1 else ''}" for a, n in animals.items())
            assert problem.question == GYM[0].format(animals=listed)
            answer = LegCounting().demonstrate(mine, Random(index)).answer
            assert answer == problem.answer
            if index < 3:
                assert task.grade(problem, answer).score == 1.0


def test_every_context_is_short():
    family, rng = LegCounting(), Random(1)
    for number in range(60):
        problem = family.sample(rng, number / 60)
        demonstration = family.demonstrate(problem, rng)
        assert max(context_lengths(problem, demonstration)) <= 950
