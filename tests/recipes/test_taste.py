"""Hidden tastes: the accuracy that can be reached is what the utilities say, and the recipe is one."""

import math
import runpy
from pathlib import Path
from random import Random

import pytest

from ponder.train.data.preferences import Ranking, fault_of, judgement_from
from ponder.train.pipeline import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "taste"
TASTES = runpy.run_path(str(FOLDER / "tastes.py"))


def test_the_bayes_accuracy_is_what_the_utilities_say() -> None:
    rng = Random(1)
    records = [TASTES["ranking"](rng, 2) for _ in range(3000)]
    share, pairs = TASTES["bayes"](records)
    expected = sum(1 / (1 + math.exp(-abs(u[0] - u[1]))) for u in (each["utility"] for each in records)) / len(records)
    assert pairs == 3000
    assert share == pytest.approx(expected, abs=0.03)
    shuffled = [TASTES["ranking"](rng, 2, shuffled=True) for _ in range(3000)]
    assert TASTES["bayes"](shuffled)[0] == pytest.approx(0.5, abs=0.03)


def test_every_judgement_can_be_learned_from_and_unseen_rules_are_unseen() -> None:
    rng = Random(2)
    for answers, topics in ((4, TASTES["SEEN"]), (2, TASTES["UNSEEN"])):
        for _ in range(200):
            record = TASTES["ranking"](rng, answers, topics)
            made = judgement_from(record)
            assert isinstance(made, Ranking)
            assert fault_of(made) == ""
            assert len(made.pairs()) == answers * (answers - 1) // 2
            rules = [topic for topic, (rule, _) in TASTES["RULES"].items() if rule in record["prompt"]]
            assert set(rules) <= set(topics)


def test_what_a_guideline_forbids_is_declined_and_nothing_else() -> None:
    traits, asked = TASTES["Traits"], TASTES["Asked"]
    declines, helps = (traits(True, True, True, True, declines=each) for each in (True, False))
    assert TASTES["utility"](declines, asked("q", forbidden=True)) > TASTES["utility"](
        helps, asked("q", forbidden=True)
    )
    assert TASTES["utility"](declines, asked("q")) < TASTES["utility"](helps, asked("q"))


def test_the_recipe_resolves() -> None:
    assert load_recipe(FOLDER / "reward.toml").run.stages == ("reward",)


def test_the_gold_grade_knows_every_trait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    gold = runpy.run_path(str(FOLDER / "gold.py"))
    import tastes  # type: ignore[import-not-found]

    task, rng = gold["Taste"](), Random(3)
    for _ in range(200):
        asked = tastes.prompt(rng, tastes.SEEN)
        traits = tastes.Traits(*(rng.random() < 0.5 for _ in range(4)), declines=rng.random() < 0.2)
        text = tastes.answer(traits, asked, rng)
        found = gold["traits_of"](text, asked)
        assert found.polite == traits.polite
        assert found.declines == traits.declines
        assert tastes.utility(found, asked) == pytest.approx(tastes.utility(traits, asked))
    problem = task.sample(rng, 0.5)
    assert 0 < task.grade(problem, task.demonstrate(problem, rng).answer).score < 1
    assert task.grade(problem, "").score < 0.02


@pytest.mark.parametrize("name", ["taste/sft", "taste/dpo", "taste/ppo", "distill/student"])
def test_the_recipes_of_policies_are_recipes(name: str) -> None:
    recipe = load_recipe(FOLDER.parent / f"{name}.toml")
    assert recipe.run.stages
