"""Accuracy while it trains: the same problems each time, room for the longest demonstration, every kind of task."""

from collections import Counter

import pytest

from ponder.tasks.registry import load_task
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.train.policy import rollout
from ponder.train.policy.rollout import solved
from ponder.train.recipe.sections import MixRecipe

FOLDING = """
from ponder.tasks.protocol import Demonstration, Fold, Grade, Problem, mistake

class Folding:
    name = "folding"

    def sample(self, rng, level):
        return Problem(task=self.name, question="?", answer="1", metadata={"folds": int(10 * level)})

    def demonstrate(self, problem, rng):
        fold = Fold("x" * 50, mistake("y" * 20))
        return Demonstration(reasoning="x" * 25, answer="1" * 5, folds=(fold,) * problem.metadata["folds"])

    def grade(self, problem, answer):
        return Grade(score=1.0)

    def same(self, a, b):
        return a == b
"""


def asked(monkeypatch, mix, **limits):
    """What is asked at two evaluations of a tiny model."""
    seen = []

    async def answer(sampler, asked):
        seen.append(asked)
        await sampler.close()
        return [True] * len(asked)

    monkeypatch.setattr(rollout, "_answer", answer)
    watcher = solved(mix, ByteTokenizer(), problems=5, sequence=128, seed=1, **limits)
    for step in (1, 2):
        watcher(step, tiny_model(vocab_size=320))
    assert seen[0] == seen[1]
    return seen[0]


def test_answers_have_room_for_twice_their_demonstration_and_at_least_a_row(monkeypatch, tmp_path):
    (tmp_path / "folding.py").write_text(FOLDING)
    mix = (MixRecipe(task=f"{tmp_path}/folding.py:Folding"),)
    assert [each.max_tokens for each in asked(monkeypatch, mix)] == [2 * (70 * folds + 30) for folds in (1, 3, 5, 7, 9)]
    mix = (MixRecipe(task=f"{tmp_path}/folding.py:Folding", max_level=0.05),)
    assert [each.max_tokens for each in asked(monkeypatch, mix)] == [128] * 5


def test_reinforcement_learning_is_watched_under_its_own_limits(monkeypatch):
    found = asked(monkeypatch, (MixRecipe(task="products"),), max_tokens=77, thinking=0)
    assert [(each.max_tokens, each.thinking) for each in found] == [(77, 0)] * 5


def test_levels_are_spread_evenly(monkeypatch):
    mix = (MixRecipe(task="products"), MixRecipe(messages="unused.jsonl"))
    assert len({len(each.problem.question) for each in asked(monkeypatch, mix)}) > 1


@pytest.mark.parametrize("task", ["products", "recipes/smoke/hidden_number.py:HiddenNumber"])
def test_tasks_and_environments_are_answered_and_graded(task):
    watcher = solved((MixRecipe(task=task),), ByteTokenizer(), problems=3, sequence=128, seed=1)
    assert watcher(1, tiny_model(vocab_size=320)) == {f"solved/{load_task(task).name}": 0.0}


def test_every_entry_of_the_mix_is_watched_under_a_name_of_its_own(monkeypatch):
    mix = (MixRecipe(task="gcd", max_level=0.3), MixRecipe(task="products"), MixRecipe(task="gcd", min_level=0.7))
    assert Counter(each.name for each in asked(monkeypatch, mix)) == {"gcd": 5, "products": 5, "gcd.2": 5}


def test_nothing_to_watch():
    for mix, problems in (((MixRecipe(task="products"),), 0), ((MixRecipe(messages="unused.jsonl"),), 5)):
        assert solved(mix, ByteTokenizer(), problems=problems, sequence=128, seed=1) is None
