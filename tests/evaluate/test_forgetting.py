"""Forgetting: the numbers of a matrix by hand, their intervals, and how far a model has moved."""

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest

from ponder.dialogue import PonderFormat
from ponder.dialogue.messages import Conversation
from ponder.evaluate.forgetting import Forgetting, divergences, measure_forgetting
from ponder.sampler.local import LocalSampler
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import Grade, Problem
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.think import parse_strategy
from ponder.types import InvalidRequest


def solved(*rates: float, n: int = 100) -> tuple[np.ndarray, ...]:
    return tuple(np.arange(n) < round(rate * n) for rate in rates)


MADE = Forgetting(
    models=("base", "one", "two"),
    tasks=("old", "first", "second"),
    learned=(0, 1, 2),
    solved=(solved(0.9, 0.1, 0.0), solved(0.95, 0.8, 0.1), solved(0.7, 0.6, 0.9)),
)


def test_numbers_by_hand() -> None:
    found = MADE.estimates()
    assert found["accuracy"].value == pytest.approx((0.7 + 0.6 + 0.9) / 3)
    assert found["backward_transfer"].value == pytest.approx(((0.7 - 0.9) + (0.6 - 0.8)) / 2)
    assert found["forgetting"].value == pytest.approx(((0.95 - 0.7) + (0.8 - 0.6)) / 2)
    for each in found.values():
        assert each.interval.low < each.value < each.interval.high
        assert each.interval.high - each.interval.low < 0.2
    assert "| first | one | 0.100" in MADE.markdown()


def test_problems_are_resampled_for_all_models_alike() -> None:
    """A model that solves the very same problems has forgotten nothing, for sure."""
    same = Forgetting(models=("a", "b"), tasks=("t",), learned=(0,), solved=(solved(0.5), solved(0.5)))
    assert same.estimates()["forgetting"].interval.low == same.estimates()["forgetting"].interval.high == 0


class Fixed:
    """Right where the answer is the task's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self, rng: Random, level: float) -> Problem:
        return Problem(task=self.name, question=f"{self.name} {rng.random()}", answer=self.name)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer == problem.answer))

    def same(self, a: str, b: str) -> bool:
        return a == b


def knows(*names: str) -> ScriptedSampler:
    def says(conversation: Conversation, index: int) -> str:
        name = conversation[-1].text.split()[0]
        return name if name in names else "?"

    return ScriptedSampler(says)


def test_every_model_answers_every_task() -> None:
    old, new = Fixed("old"), Fixed("new")
    samplers, mode = [knows("old"), knows("new")], parse_strategy("direct")
    found = measure_forgetting(samplers, [old], [[new]], 6, mode, names=["a", "b"])
    assert found.accuracies_MI.tolist() == [[1, 0], [0, 1]]
    assert found.estimates()["forgetting"].value == 1
    assert found.moved == ()
    with pytest.raises(InvalidRequest, match="at least 2 models"):
        measure_forgetting(samplers, [old], [], 6, mode, names=["a", "b"])
    with pytest.raises(InvalidRequest, match="local models of one tokenizer"):
        measure_forgetting(samplers, [old], [[new]], 6, mode, names=["a", "b"], prompts=2)


def test_a_model_that_did_not_move_is_at_distance_nothing(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    models = (tiny_model(), tiny_model(), tiny_model(seed=3))
    samplers = [LocalSampler(each, tokenizer, PonderFormat(tokenizer)) for each in models]
    problems = [Problem(task="t", question=f"{number}?", answer="") for number in range(12)]
    try:
        same, further = divergences(samplers, problems, max_tokens=8)
    finally:
        for each in samplers:
            run_sync(each.close())
    assert same.value == pytest.approx(0, abs=1e-3)
    assert further.value > 1
    assert math.isfinite(further.interval.high)
    assert further.interval.low < further.value < further.interval.high
