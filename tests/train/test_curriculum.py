"""The curriculum finds the levels that teach, follows a learner that improves, and starves no task."""

import json
import math
from collections import Counter
from random import Random
from statistics import mean

import pytest

from ponder.train.policy.curriculum import FLOOR, Curriculum
from ponder.train.recipe.sections import MixRecipe
from ponder.types import CheckpointError

MIX = (MixRecipe(task="a"), MixRecipe(task="b", min_level=0.2, max_level=0.6), MixRecipe(task="c", weight=2.0))


def learner(skill):
    """Pass rates of groups of 8 answers: likely below the skill, unlikely above it."""

    def passed(level, rng):
        chance = 1 / (1 + math.exp(25 * (level - skill)))
        return sum(rng.random() < chance for _ in range(8)) / 8

    return passed


def run(curriculum, skills, steps, *, first=0, prompts=16, learning=0.0):
    """Draws of each step; the skills grow by what was neither solved nor failed every time."""
    drawn = []
    for step in range(first, first + steps):
        here = [curriculum.draw(step, index) for index in range(prompts)]
        rng = Random(step)
        results = [(number, level, learner(skills[number])(level, rng)) for number, level in here]
        for number, _, rate in results:
            skills[number] += learning * rate * (1 - rate)
        curriculum.update(results)
        drawn += here
    return drawn


def test_draws_are_a_function_of_seed_step_index_and_results():
    one, other = Curriculum(MIX, 1), Curriculum(MIX, 1)
    assert run(one, [0.5] * 3, 20) == run(other, [0.5] * 3, 20)
    assert one.draw(3, 4) == one.draw(3, 4)
    assert len({one.draw(3, index) for index in range(50)}) == 50
    assert one.draw(3, 4) != Curriculum(MIX, 2).draw(3, 4)


def test_levels_stay_within_the_range_of_their_task():
    drawn = run(Curriculum(MIX, 0), [0.5] * 3, 40)
    levels = [level for number, level in drawn if number == 1]
    assert 0.2 <= min(levels) < 0.3
    assert 0.5 < max(levels) <= 0.6


@pytest.mark.parametrize("skill", [0.15, 0.5, 0.85])
def test_the_draws_gather_where_half_of_the_answers_are_right(skill):
    curriculum = Curriculum(MIX[:1], 0)
    run(curriculum, [skill], 40)
    levels = [level for _, level in run(curriculum, [skill], 40, first=40)]
    assert mean(abs(level - skill) < 0.15 for level in levels) > 0.55  # evenly drawn: 0.3
    assert abs(mean(levels) - skill) < 0.12


def test_the_draws_follow_a_learner_who_improves():
    skills = [0.05]
    curriculum = Curriculum(MIX[:1], 0)
    early = mean(level for _, level in run(curriculum, skills, 20, learning=0.0))
    for first in range(20, 140):
        run(curriculum, skills, 1, first=first, learning=0.004)
    late = mean(level for _, level in run(curriculum, skills, 20, first=140))
    assert 0.6 < skills[0] < 0.9
    assert abs(late - skills[0]) < 0.15
    assert late > early + 0.3


def test_it_teaches_faster_than_even_levels():
    chosen, even = [0.05], [0.05]
    run(Curriculum(MIX[:1], 0), chosen, 100, learning=0.004)
    rng = Random(0)
    for _ in range(100 * 16):
        rate = learner(even[0])(rng.random(), rng)
        even[0] += 0.004 * rate * (1 - rate)
    assert chosen[0] - 0.05 > 1.5 * (even[0] - 0.05)


def test_solved_and_hopeless_tasks_give_way_and_never_starve():
    curriculum = Curriculum(MIX, 0)
    run(curriculum, [0.5, 9.0, -9.0], 60)
    counts = Counter(number for number, _ in run(curriculum, [0.5, 9.0, -9.0], 100, first=60))
    assert counts[0] > counts[1]
    assert counts[0] > counts[2] / 2  # whose weight in the mix is twice as large
    for number, entry in enumerate(MIX):  # at least the floor's share of its share in the mix, of 1600 draws
        assert counts[number] > 0.8 * FLOOR * entry.weight / 4 * 1600
    shares = {name: value for name, value in curriculum.summary().items() if name.startswith("share/")}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["share/a"] == max(shares.values())


def test_the_summary_speaks_of_tasks_by_their_names():
    curriculum = Curriculum((MixRecipe(task="/far/tasks.py:Five"), *MIX), 0, ["five", "a", "b", "c"])
    assert {name for name in curriculum.summary() if "/five" in name} == {"share/five", "level/five"}
    assert not [name for name in curriculum.summary() if "tasks.py" in name]


def test_a_solved_level_is_still_drawn_and_a_lapse_is_noticed():
    curriculum = Curriculum(MIX[:1], 0)
    run(curriculum, [0.8], 60)
    easy = [level for _, level in run(curriculum, [0.8], 60, first=60) if level < 0.2]
    assert len(easy) > 10
    before = curriculum.summary()["level/a"]
    run(curriculum, [0.1], 60, first=120)  # the model has forgotten
    assert curriculum.summary()["level/a"] < before - 0.2


def test_a_state_goes_on_exactly_where_it_stood():
    whole, first = Curriculum(MIX, 5), Curriculum(MIX, 5)
    drawn = run(whole, [0.5, 0.3, 0.8], 30)
    begun = run(first, [0.5, 0.3, 0.8], 10)
    second = Curriculum(MIX, 5)
    second.restore(json.loads(json.dumps(first.state())))
    assert begun + run(second, [0.5, 0.3, 0.8], 20, first=10) == drawn
    assert second.state() == whole.state()


def test_a_task_of_one_level_is_no_special_case():
    curriculum = Curriculum((MixRecipe(task="a", min_level=0.5, max_level=0.5),), 0)
    assert {level for _, level in run(curriculum, [0.5], 20)} == {0.5}


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_what_is_no_pass_rate_is_refused(rate):
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        Curriculum(MIX, 0).update([(0, 0.5, rate)])


@pytest.mark.parametrize("state", [{}, {"tasks": ["a"], "pass_rates": [[0.5] * 10]}, "one short"])
def test_the_state_of_another_mix_is_refused(state):
    if state == "one short":
        state = Curriculum(MIX, 0).state()
        state["pass_rates"][1].pop()
    with pytest.raises(CheckpointError, match="the mix that the run began with"):
        Curriculum(MIX, 0).restore(state)
