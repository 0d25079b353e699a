"""The further families: reasoning-gym's own scorer accepts what is demonstrated, and every step is computed again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from ponder.evaluate.problems import FURTHER_HARD, SUITES
from ponder.tasks.check import check
from ponder.tasks.families import FAMILIES
from ponder.tasks.families.further import FURTHER_FAMILIES
from ponder.tasks.families.logic import LOGIC_FAMILIES
from ponder.tasks.families.plain.further_fields import FURTHER_FIELDS
from ponder.tasks.families.plain.task import WORDED, Plain
from ponder.tasks.families.plain.wording import FIELD, Half, templates
from ponder.tasks.families.working.family import FromGym
from ponder.tasks.gym import gym_dataset, hard_config
from ponder.tasks.protocol import Problem
from ponder.tasks.registry import load_task
from ponder.types import InvalidRequest

FEW, MANY = 4, 300

FACTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "count_primes": lambda facts: {"start": facts["start"], "end": facts["end"]},
    "ransom_note": lambda facts: {"note": facts["ransom_note"], "magazine": facts["magazine"]},
    "string_insertion": lambda facts: {"string": facts["string"]},
}
"""Of the families that draw their own problems: their metadata by that of a reasoning-gym item."""


def assert_scored(name: str, index: int, *, hard: bool) -> None:
    """What is demonstrated for a reasoning-gym item gets full marks from the dataset's scorer and from the family."""
    family = FURTHER_FAMILIES[name]
    data, _ = gym_dataset(name, dict(hard_config(name)) if hard else {}, 0)
    if isinstance(family, FromGym):
        problem = load_task(f"gym:{name}{'@hard' if hard else ''}").problem(6_000_000 + index)
        if not family.teaches(problem):
            return
        item = family.dataset.entry(problem)
    else:
        item = data[index]
        facts = FACTS[name](item["metadata"])
        assert item["question"] == sys.modules[type(family).__module__].GYM[0].format(**facts)
        problem = Problem(task=name, question=item["question"], answer=item["answer"], metadata=facts)
    answer = family.demonstrate(problem, Random(index)).answer
    assert data.score_answer(answer, item) == 1.0, (problem.question, answer)
    assert family.grade(problem, answer).solved


@pytest.mark.parametrize("name", FURTHER_FAMILIES)
def test_reasoning_gym_gives_full_marks(name: str) -> None:
    for index in range(FEW):
        assert_scored(name, index, hard=False)
    if name in FURTHER_HARD:
        assert_scored(name, 0, hard=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER_FAMILIES)
def test_reasoning_gym_gives_full_marks_to_hundreds(name: str) -> None:
    for index in range(MANY):
        assert_scored(name, index, hard=False)
    if name in FURTHER_HARD:
        for index in range(MANY):
            assert_scored(name, index, hard=True)


@pytest.mark.parametrize("name", [name for name, each in FURTHER_FAMILIES.items() if isinstance(each, FromGym)])
def test_the_default_level_reaches_the_default_config(name: str) -> None:
    family = FURTHER_FAMILIES[name]
    assert isinstance(family, FromGym)
    place = len(family.configs) - 1 - family.configs[::-1].index({})
    assert int(family.default_level * 0.999 * len(family.configs)) == place
    assert (name in FURTHER_HARD) >= (hard_config_of(name) in family.configs[1:])


def hard_config_of(name: str) -> object:
    try:
        return dict(hard_config(name))
    except InvalidRequest:
        return None


@pytest.mark.parametrize("name", FURTHER_FAMILIES)
def test_a_family_keeps_its_promises_and_is_worded_plainly(name: str) -> None:
    assert len(check(load_task(name), FEW)) == FEW
    for half in Half:
        task = Plain(name, half)
        for number in range(FEW):
            rng = Random(f"{name} {number}")
            problem = task.sample(rng, (number + 0.5) / FEW)
            answer = task.demonstrate(problem, rng).answer
            assert task.grade(problem, answer).solved, (problem.question, answer)
            assert task.same(answer, answer)
            assert not FIELD.search(problem.question), problem.question


@pytest.mark.parametrize("name", FURTHER_FAMILIES)
def test_the_halves_of_the_templates_share_none_and_all_are_met(name: str) -> None:
    train, held_out = ({each.text for each in templates("templates.txt")[name, half]} for half in Half)
    assert len(train) >= 4
    assert len(held_out) >= 2
    assert not train & held_out
    wanted = {each for half in Half for each in templates("templates.txt")[name, half]}
    for seed in range(60):
        problem = FURTHER_FAMILIES[name].sample(Random(seed), seed / 60 * FURTHER_FAMILIES[name].default_level)
        has = FURTHER_FIELDS[name](problem, Random(seed)).keys()
        wanted = {each for each in wanted if not each.fields <= has}
        if not wanted:
            break
    assert not wanted


def test_they_are_apart_from_what_mini_learned() -> None:
    assert not FURTHER_FAMILIES.keys() & (FAMILIES | LOGIC_FAMILIES).keys()
    assert not set(SUITES["further"]) & set(SUITES["families"])
    assert WORDED.keys() == FAMILIES.keys() | FURTHER_FIELDS.keys()
    assert len(FAMILIES) == 28
