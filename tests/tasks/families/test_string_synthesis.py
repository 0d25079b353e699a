"""Blocks put together: every step re-checked, the outcome against reasoning-gym's one rule at a time."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.string_synthesis import GYM

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_every_line_of_the_working_is_right(seed: int, level: float):
    problem, demonstration = drawn("string_synthesis", seed, level)
    head, *lines, last = demonstration.reasoning.split("\n")
    count = dict.fromkeys("ABCDEFGHI", 0) | {name: int(n) for name, n in re.findall(r"([A-I]) (\d+)", head)}
    assert [count[name] for name in "ABC"] == problem.metadata["blocks"]
    least = 0
    for line in lines:
        for left, result, _, right in re.findall(r"(\d+(?:[+-]\d+)+)=(\d+)( no (\d+))?", line):
            assert sum(int(each) for each in re.findall(r"[+-]?\d+", left)) == int(right or result), line
        if match := re.fullmatch(r"[1235]((?: [A-F] \d+)+)( none)?", line):
            used = {name: int(n) for name, n in re.findall(r"([A-F]) (\d+)", match[1])}
            assert used.items() <= count.items(), line
            least = min(used.values())
            assert (least == 0) == bool(match[2]), line
        elif match := re.fullmatch(r"(\d+) (\d+)((?: [<=>])+) least (\d+)", line):
            assert int(match[4]) == min(int(match[1]), int(match[2])), line
            assert len(match[1]) == len(match[2]), line
        elif match := re.fullmatch(r"[46] ([CE]) (\d+): (.*) > (\d+) ([01])", line):
            half, rest = int(match[4][::-1]), int(match[5])
            assert int(match[2]) == count[match[1]] == 2 * half + rest, line
            count[match[1]], least = rest, half
        elif match := re.fullmatch(r"([A-F]) (\d+)-(\d+): .* \1 (\d+)", line):
            a, b = int(match[2][::-1]), int(match[3][::-1])
            assert (a, b, a - b) == (count[match[1]], least, int(match[4])), line
            count[match[1]] = a - b
        elif match := re.fullmatch(r"([FI]) (\d+)\+(\d+): .* > (\d+) \1 (\d+)", line):
            a, b, total = (int(each[::-1]) for each in match.groups()[1:4])
            assert (a, b, a + b, total) == (count[match[1]], least, total, int(match[5])), line
            count[match[1]] = total
        else:
            match = re.fullmatch(r"([C-I]) (\d+)", line)
            assert match, line
            name, n = match[1], int(match[2])
            assert n in (count[name], least) if name in "CE" else (count[name], n) == (0, least), line
            count[name] = n
    assert last == " ".join(f"{name} {n}" for name, n in count.items())
    assert demonstration.answer == problem.answer == " ".join(map(str, count.values()))
    # The question alone is hundreds of tokens of mini's vocabulary, which never met its words.
    assert max(context_lengths(replace(problem, question=""), demonstration)) <= 600


def test_wording_and_scores_are_reasoning_gyms():
    family = FAMILIES["string_synthesis"]
    for config in ({}, {"min_initial_blocks": 50, "max_initial_blocks": 100}):
        dataset, items = gym_items("string_synthesis", 30, **config)
        for item in items:
            a, b, c = blocks = item["metadata"]["initial_blocks"]
            assert item["question"] == GYM[0].format(a=a, b=b, c=c)
            assert_scored_alike(family, dataset, item, {"blocks": list(blocks)})
