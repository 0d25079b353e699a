"""Insertion sort of numbers: keys, verdicts and orders re-checked with floats."""

from __future__ import annotations

import re

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


def check_insertions(lines: list[str], values: dict[str, float], order: list[str]) -> list[str]:
    for line in lines:
        comparisons, _, listed = line.partition(" so ")
        for a, b, places in re.findall(r" ([a-j])\d{5} ([a-j])\d{5}((?: [<=>])+)", comparisons):
            sign = places[-1]
            assert values[a] < values[b] if sign == "<" else values[a] > values[b] if sign == ">" else True, line
            assert sign != "=" or (len(places) == 10 and values[a] == values[b]), line
        new = listed.split()
        assert len(new) == len(order) + 1
        assert [each for each in new if each in order] == order
        assert [values[each] for each in new] == sorted(values[each] for each in new), line
        order = new
    return order


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_every_comparison_and_every_order_is_right(seed: int, level: float):
    problem, demonstration = drawn("number_sorting", seed, level)
    table = (demonstration.folds[0].thought if demonstration.folds else demonstration.reasoning).split("\n")
    rows = [re.fullmatch(r" ([a-j]): (-?\d+\.\d+) ([a-j])(\d{5})", line) for line in table]
    values = {row[1]: float(row[2]) for row in rows if row}
    keys = {row[1]: int(row[4]) for row in rows if row}
    assert list(values.values()) == [float(n) for n in problem.metadata["numbers"]]
    assert sorted(values, key=lambda a: (values[a], a)) == sorted(keys, key=lambda a: (keys[a], a))
    order: list[str] = []
    for fold in demonstration.folds:
        order = check_insertions(fold.thought.split("\n")[len(values) :], values, order)
        assert fold.state.split("\n")[-1] == f"so {' '.join(order)}"
    lines = demonstration.reasoning.split("\n")[0 if demonstration.folds else len(values) :]
    steps = [line for line in lines[:-1] if not line.startswith("descending")]
    order = check_insertions(steps, values, order)
    if problem.metadata["direction"] == "descending":
        order.reverse()
        assert lines[-2] == f"descending {' '.join(order)}"
    assert re.findall(r" ([a-j]):", lines[-1]) == order
    assert max(context_lengths(problem, demonstration)) <= 1000


def test_wording_and_scores_are_reasoning_gyms():
    family, (dataset, items) = FAMILIES["number_sorting"], gym_items("number_sorting", 40)
    from ponder.tasks.families.number_sorting import GYM

    for item in items:
        numbers, direction = item["metadata"]["original_numbers"], item["metadata"]["direction"]
        assert item["question"] == GYM[0].format(direction=direction, numbers=", ".join(numbers))
        problem = assert_scored_alike(family, dataset, item, {"numbers": numbers, "direction": direction})
        assert not family.grade(problem, str(numbers[:-1])).solved
