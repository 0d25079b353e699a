"""recipes/delegate: questions that fall into parts, plans that come to the right number, the sizes of the models."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from ponder.sandbox.objects import load_object
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import ByteTokenizer
from ponder.think import Reasoner, delegate
from ponder.train.loop.stage import model_config
from ponder.train.pipeline import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "delegate"
TASKS = FOLDER / "tasks.py"


@pytest.mark.parametrize("name", ["Alone", "Planned", "Replanned", "Written", "Step"])
def test_every_demonstration_is_right(name: str) -> None:
    task = load_object(f"{TASKS}:{name}")()
    for number in range(200):
        problem = task.sample(Random(number), number / 199)
        shown = task.demonstrate(problem, Random(number))
        assert task.grade(problem, shown.answer).solved
        assert not task.grade(problem, "").solved


def test_the_lines_of_a_step_are_digit_by_digit() -> None:
    worked = load_object(f"{TASKS}:worked")
    assert worked("1208 * 700") == ["8*7+0=56 600", "0*7+5=5 5600", "2*7+0=14 45600", "1*7+1=8 845600"]
    assert worked("95 + 7") == ["5+7+0=12 2", "9+0+1=10 02", "+1 102"]
    assert worked("34 * 0") == ["4*0+0=0 0", "3*0+0=0 00", "0"]


def test_models_that_learned_all_of_it_delegate() -> None:
    """A planner and a worker that say what the demonstrations say solve every question by the strategy."""
    tasks = {name: load_object(f"{TASKS}:{name}") for name in ("Alone", "plan_of", "value", "check")}
    alone = tasks["Alone"]()
    problem = alone.sample(Random(7), 1.0)
    plan = "\n".join(map(str, tasks["plan_of"](problem)))

    def large(asked, _):  # type: ignore[no-untyped-def]
        words = asked[-1].text
        return words.splitlines()[-3].rpartition(" = ")[2] if words.endswith("Answer it.") else plan

    strategy = delegate(
        workers=ScriptedSampler(lambda asked, _: str(tasks["value"](asked[-1].text))),
        plan="lines",
        steps=16,
        check=tasks["check"],
    )
    answer = Reasoner(ScriptedSampler(large)).ask(problem.question, strategy=strategy)
    assert alone.grade(problem, answer.text).solved


@pytest.mark.parametrize(("file", "least", "most"), [("planner", 20e6, 40e6), ("workers", 0, 2e6)])
def test_the_planner_is_large_and_the_workers_are_small(file: str, least: float, most: float) -> None:
    recipe = load_recipe(FOLDER / f"{file}.toml")
    assert least <= model_config(recipe.model, ByteTokenizer()).num_parameters <= most
