"""Filtering numbers: every verdict and every decision re-checked with floats."""

from __future__ import annotations

import re

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.number_filtering import GYM

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_every_number_is_compared_and_decided_rightly(seed: int, level: float):
    problem, demonstration = drawn("number_filtering", seed, level)
    numbers, bound = problem.metadata["numbers"], problem.metadata["bound"]
    head, rules, *steps, last = demonstration.reasoning.split("\n")
    rule = dict(re.findall(r"([<=>]) (yes|no)", rules))
    larger = problem.metadata["relation"] == "larger"
    for sign in "<=>":
        hit = sign == (">" if larger else "<")
        assert rule[sign] == ("yes" if hit == (problem.metadata["operation"] == "keep") else "no")
    kept = []
    for number, line in zip(numbers, steps, strict=True):
        match = re.fullmatch(r"(\S+) is (\d{7}) to (\d{7})((?: [<=>])+) (yes|no)(?: ([a-j]): (\S+))?", line)
        assert match, line
        assert match[1] == number
        assert head == f"{bound} is {match[3]}"
        sign = "<" if float(number) < float(bound) else ">" if float(number) > float(bound) else "="
        same = next((i for i in range(7) if match[2][i] != match[3][i]), 7)
        assert match[4].split() == ["="] * same + ([sign] if same < 7 else []), line
        assert (sign == "=") == (same == 7), line
        assert match[5] == rule[sign]
        if match[5] == "yes":
            kept.append(number)
            assert (match[6], match[7]) == ("abcdefghij"[len(kept) - 1], number)
    assert re.findall(r": (\S+?)(?:,|$)", last) == kept
    assert demonstration.answer == str(kept)
    assert max(context_lengths(problem, demonstration)) <= 1000


def test_wording_and_scores_are_reasoning_gyms():
    family, (dataset, items) = FAMILIES["number_filtering"], gym_items("number_filtering", 60)
    for item in items:
        numbers, bound = item["metadata"]["original_numbers"], item["metadata"]["filter_value"]
        operation, relation = item["metadata"]["operation"].split("_")
        wording = GYM[0].format(operation=operation.capitalize(), relation=relation, bound=bound, numbers=numbers)
        assert item["question"] == wording
        assert_scored_alike(
            family, dataset, item, {"numbers": numbers, "bound": bound, "operation": operation, "relation": relation}
        )
