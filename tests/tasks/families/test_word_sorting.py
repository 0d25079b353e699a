"""Insertion sort of words: spelling, verdicts and orders re-checked with Python's own order of strings."""

from __future__ import annotations

import re

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.word_sorting import GYM

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_every_word_is_spelled_and_every_order_is_right(seed: int, level: float):
    problem, demonstration = drawn("word_sorting", seed, level)
    words = problem.metadata["words"]
    lines = demonstration.reasoning.split("\n")
    for label, (word, line) in enumerate(zip(words, lines, strict=False)):
        head, spelled = line.split(",")
        assert head == f"{label}: {word}"
        assert "".join(re.findall(r" (\S)", re.sub(rf"{label}[bcde]? (?=\S \S \S)", " ", spelled))).rstrip(".") == word
    order: list[int] = []
    for line in lines[len(words) : 2 * len(words)]:
        comparisons, _, listed = line.partition(" so")
        new = list(map(int, listed))
        (added,) = set(new) - set(order)
        assert [each for each in new if each != added] == order
        assert [words[each] for each in new] == sorted(words[each] for each in new), line
        assert comparisons.count(">") == new.index(added), line
        assert comparisons.endswith("<") or new[-1] == added
        order = new
    if problem.metadata["direction"] == "descending":
        order.reverse()
        assert lines[-2] == f"descending{''.join(map(str, order))}"
    assert lines[-1] == ",".join(f"{each}: {words[each]}" for each in order)
    assert max(context_lengths(problem, demonstration)) <= 1152  # a row of recipes/mini; most take a third


@given(seed=seeds)
@settings(max_examples=33, deadline=None)
def test_every_verdict_compares_the_letters_before_it(seed: int):
    _, demonstration = drawn("word_sorting", seed, 0.6)
    steps = re.findall(r"\d[b-e]? (\S) (\S) (\S)\d[b-e]? (\S) (\S) (\S)((?: [<=>])+)", demonstration.reasoning)
    for *letters, places in steps:
        for a, b, sign in zip(letters[:3], letters[3:], places.split(), strict=False):
            assert sign == ("=" if a == b else "<" if ord(a) < ord(b) else ">")


def test_wording_and_scores_are_reasoning_gyms():
    family, (dataset, items) = FAMILIES["word_sorting"], gym_items("word_sorting", 40)
    for item in items:
        words, direction = item["metadata"]["original_words"], item["metadata"]["direction"]
        assert item["question"] == GYM[0].format(direction=direction, words=", ".join(words))
        assert_scored_alike(family, dataset, item, {"words": words, "direction": direction})
