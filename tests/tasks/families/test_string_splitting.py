"""Machines dismantled: every step re-checked, the outcome against reasoning-gym's one rule at a time."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.string_splitting import GYM

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_every_line_of_the_working_is_right(seed: int, level: float):
    problem, demonstration = drawn("string_splitting", seed, level)
    a, b, c = problem.metadata["machines"]
    count = {"A": a, "B": b, "C": c, "X": 0, "Y": 0}
    for line in demonstration.reasoning.split("\n")[1:]:
        for left, result, _, right in re.findall(r"(\d+(?:[+-]\d+)+)=(\d+)( no (\d+))?", line):
            numbers = [int(each) for each in re.findall(r"[+-]?\d+", left)]
            assert sum(numbers) == int(right or result), line
        if match := re.fullmatch(r"\d ([XY]) (\d+)\+(\d+): .* > (\d+) \1 (\d+)", line):
            p, q, total = (int(each[::-1]) for each in match.groups()[1:4])
            assert total == int(match[5]), line
            assert (p + q, p) == (total, count[match[1]] or p), line
            count[match[1]] = total
        elif match := re.fullmatch(r"1 Y (\d+)", line):
            count["Y"] = int(match[1])
        elif match := re.fullmatch(r"\d ([BC]) (\d+): (.*) > (\d+) ([01])", line):
            assert int(match[2]) == count[match[1]] == 2 * int(match[4][::-1]) + int(match[5]), line
            for value, half, rest in re.findall(r"(\d+)/2=(\d) ([01])", match[3]):
                assert int(value) == 2 * int(half) + int(rest), line
        elif match := re.fullmatch(r"5 (\d+) (\d+)((?: [<=>])+) least (\d+)", line):
            assert (int(match[1]), int(match[2])) == (count["X"], count["Y"])
            assert int(match[4]) == min(count["X"], count["Y"])
        elif match := re.fullmatch(r"([XY]) (\d+)-(\d+): .* \1 (\d+)", line):
            assert int(match[2][::-1]) == count[match[1]], line
            assert int(match[2][::-1]) - int(match[3][::-1]) == int(match[4]), line
        else:
            assert re.match(r"4 B|A 0 B", line), line
    assert demonstration.answer == problem.answer
    # The question is 620 tokens of mini's vocabulary, which never met its words; one that did needs some 400.
    assert max(context_lengths(replace(problem, question=""), demonstration)) <= 500


def test_wording_and_scores_are_reasoning_gyms():
    family = FAMILIES["string_splitting"]
    for config in ({}, {"min_initial_machines": 50, "max_initial_machines": 100}):
        dataset, items = gym_items("string_splitting", 30, **config)
        for item in items:
            a, b, c = machines = item["metadata"]["initial_machines"]
            assert item["question"] == GYM[0].format(a=a, b=b, c=c)
            assert_scored_alike(family, dataset, item, {"machines": list(machines)})
