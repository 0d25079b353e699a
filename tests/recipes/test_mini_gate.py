"""The gate of mini's recipe fails where it says that it fails, and only there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from ponder.tasks.protocol import Task

FILE = Path(__file__).parents[2] / "recipes" / "mini" / "gate.py"
N = 100


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mini_gate", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Known:
    """Answers of which the given number of a hundred are right."""

    def __init__(self, right: int = 90, cut: float = 0.0, **others: int) -> None:
        self.right, self.share_cut, self.others = right, cut, others

    def solved(self, task: Task, cap: int) -> list[bool]:
        name = task.name.removeprefix("gym:").replace(":", "_").replace("@", "_").replace("-", "_")
        right = self.others.get(name, self.right)
        return [True] * right + [False] * (N - right)

    def cut(self, task: Task, cap: int) -> float:
        return self.share_cut


def test_a_model_that_is_as_good_may_replace_the_old_one(gate: ModuleType) -> None:
    assert list(gate.not_lower(Known(), Known())) == []
    assert list(gate.not_lower(Known(), Known(gcd=87))) == [], "three of a hundred are chance"


def test_one_task_that_fell_is_named(gate: ModuleType) -> None:
    (failure,) = gate.not_lower(Known(), Known(right=91, gcd=70))
    assert failure.startswith("gym:gcd is lower: 0.700, was 0.900")


def test_a_mean_that_fell_and_weak_hard_products_are_named(gate: ModuleType) -> None:
    default, hard = gate.not_lower(Known(), Known(right=89))
    assert default == "the mean of families is 1.00 points lower"
    assert hard == "the mean of families-hard is 1.00 points lower"
    old = Known(products_hard=70)
    assert list(gate.not_lower(old, Known(products_hard=69))) == ["gym:products@hard: 0.690, below 0.7"]


def test_plain_words_are_measured_by_the_same_problems_in_the_dataset_s(gate: ModuleType) -> None:
    assert list(gate.plain_enough(Known(plain_countdown=20, plain_countdown_gym=22))) == []
    (failure,) = gate.plain_enough(Known(plain_gcd=80))
    assert failure.startswith("gcd in plain words: 0.800, below 0.9 of 0.900")


def test_scope_has_a_limit_for_each_of_its_three_sets(gate: ModuleType) -> None:
    assert list(gate.in_scope(Known(right=99))) == []
    assert [failure.split(":0")[0].split(": ")[0] for failure in gate.in_scope(Known(right=96))] == [
        "scope",
        "scope:within",
    ]
    cut = list(gate.in_scope(Known(right=99, cut=0.01)))
    assert len(cut) == 2
    assert all("in circles" in failure for failure in cut)
