"""Strategies compared by compute: the same problems, paired intervals, every model's tokens times its parameters."""

from __future__ import annotations

from random import Random

import pytest

from ponder.evaluate import (
    Spending,
    compare_strategies,
    compute_summary,
    paired_difference,
    plot_compute,
    table_of_compute,
)
from ponder.evaluate.compute import ComputePoint, spent
from ponder.tasks.families import FAMILIES
from ponder.tasks.protocol import Problem, Task
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Reasoner, Strategy, delegate, parse_strategy
from ponder.types import InvalidRequest

TASK = FAMILIES["products"]
PROBLEMS: list[tuple[Task, Problem]] = [(TASK, TASK.sample(Random(seed), 0.0)) for seed in range(6)]
GOLD = {problem.question: problem.answer for _, problem in PROBLEMS}


def by(*texts: str) -> dict[str, Strategy]:
    return {text: parse_strategy(text) for text in texts}


def test_the_oracle_is_named_only_where_the_grade_chose() -> None:
    said = lambda asked, index: GOLD[asked[-1].text] if index == 1 else "7"  # noqa: E731
    texts = ("direct", "best_of(samples=2, by='verifier')", "consensus(samples=2, until='all')")
    points = compare_strategies(ScriptedSampler(said), PROBLEMS, by(*texts), (4, 100), oracle=True)
    assert [(point.strategy, point.budget) for point in points] == [(text, t) for text in texts for t in (4, 100)]
    assert [point.oracle for point in points] == [False, False, True, True, False, False]
    assert [point.accuracy for point in points] == [0, 0, 1, 1, 0, 0]
    table = table_of_compute(points)
    assert "best_of(samples=2, by='verifier') (oracle) | 100 | 1.000" in table
    assert "Models of unknown size count as one parameter: scripted" in table
    gain = compute_summary(points)[3]
    assert (gain["difference"], gain["difference_95"]) == (1.0, [pytest.approx(0.219, abs=1e-3), 1.0])


def test_a_budget_holds_for_each_problem() -> None:
    said = lambda asked, index: "7 7 7 7 7 7"  # noqa: E731
    small, large = ScriptedSampler(said), ScriptedSampler(said)
    compare_strategies(small, PROBLEMS, by("consensus(samples=4)"), (8,))
    compare_strategies(large, PROBLEMS, by("consensus(samples=4)"), (1000,))
    assert small.counted.completion_tokens <= 8 * len(PROBLEMS) < large.counted.completion_tokens


def test_compute_is_each_model_s_tokens_times_its_parameters() -> None:
    small = tiny_sampler(max_positions=512)
    size = small.capabilities.parameters
    assert size is not None and size > 1000  # noqa: PT018
    plan = '[{"name": "a", "task": "sing"}]'
    large = ScriptedSampler(lambda asked, _: "la" if asked[-1].text.endswith("Answer it.") else plan, name="large")
    answer = Reasoner(large).ask("?", strategy=delegate(workers=small, replans=0), max_tokens=30)
    tokens, compute = spent(answer, large)
    of_large = large.counted.prompt_tokens + large.counted.completion_tokens
    assert compute == of_large + (tokens - of_large) * size
    assert tokens > of_large


def point(solved: str) -> ComputePoint:
    items = tuple(Spending(each == "1", 10, 10.0, 0.1) for each in solved)
    return ComputePoint(strategy=solved, budget=None, oracle=False, items=items, seconds=1.0)


def test_differences_are_paired() -> None:
    gain, interval = paired_difference(point("1" * 50 + "0" * 50), point("1" * 50 + "0" * 50))
    assert (gain, interval.low, interval.high) == (0.0, 0.0, 0.0)
    gain, interval = paired_difference(point("1" * 60 + "0" * 40), point("1" * 50 + "0" * 50))
    assert gain == pytest.approx(0.1)
    assert 0.03 < interval.low < 0.06
    assert 0.14 < interval.high < 0.18


def test_one_plot_shows_compute_and_time(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("matplotlib")
    points = compare_strategies(
        ScriptedSampler(lambda *_: "7"), PROBLEMS, by("direct", "consensus(samples=2)"), (10, 100)
    )
    assert "oracle" not in plot_compute(points, tmp_path / "plot.svg", "title").read_text()


def test_environments_are_refused() -> None:
    from ponder.tasks.registry import load_task

    task = load_task("recipes/smoke/hidden_number.py:HiddenNumber")
    with pytest.raises(InvalidRequest, match="is an environment"):
        compare_strategies(ScriptedSampler([]), [(task, task.sample(Random(0), 0.0))], by("direct"), (1,))
