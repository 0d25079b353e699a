"""Isomorphic strings: every recalled pair and every contradiction re-checked."""

from __future__ import annotations

import re

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.isomorphic_strings import GYM

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


def check_pass(line: str, which: str, keys: str, values: str) -> bool:
    *_, verdict = line.split()
    pairs = re.findall(r"(\d)(\d)([a-zA-Z]) (new|[a-zA-Z])(\d)(\d) ([a-zA-Z])((?: [a-zA-Z]){2}(?=,| ))?", line)
    assert "".join(pair[2] for pair in pairs) == keys[: len(pairs)]
    assert "".join(pair[6] for pair in pairs) == values[: len(pairs)]
    for place, pair in enumerate(pairs):
        before = keys.find(keys[place], 0, place)
        assert pair[3] == ("new" if before < 0 else values[before])
        assert pair[7] == ("" if before < 0 else f" {values[before]} {values[place]}")
        assert (pair[0], int(pair[1]), pair[4], int(pair[5])) == (which, place, str(1 - int(which)), place)
    fits = len({*zip(keys, values, strict=True)}) == len(set(keys))
    assert verdict == ("yes" if fits else "no")
    assert len(pairs) == len(keys) or not fits
    return fits


@given(seed=seeds, level=levels)
@settings(max_examples=66, deadline=None)
def test_letters_are_recalled_rightly_both_ways(seed: int, level: float):
    problem, demonstration = drawn("isomorphic_strings", seed, level)
    s, t = problem.metadata["words"]
    assert s in problem.question
    assert t in problem.question
    first, second, *passes = demonstration.reasoning.split("\n")
    assert re.sub(r"[\d ]", "", first) == s
    assert re.sub(r"[\d ]", "", second) == t.upper()
    fits = check_pass(passes[0], "0", s, t.upper())
    if fits:
        fits = check_pass(passes[1], "1", t.upper(), s)
    assert demonstration.answer == problem.answer == str(fits)
    assert max(context_lengths(problem, demonstration)) <= 1000


def test_wording_and_scores_are_reasoning_gyms():
    family, (dataset, items) = FAMILIES["isomorphic_strings"], gym_items("isomorphic_strings", 60)
    for item in items:
        s, t = item["metadata"]["words"]
        assert item["question"] == GYM[0].format(s=s, t=t)
        assert_scored_alike(family, dataset, item, {"words": [s, t]})
