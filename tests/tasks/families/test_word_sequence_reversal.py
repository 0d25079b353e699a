"""Lists of words reversed by their numbers."""

from __future__ import annotations

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.word_sequence_reversal import GYM

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


@given(seed=seeds, level=levels)
@settings(max_examples=33, deadline=None)
def test_words_are_numbered_up_and_written_down(seed: int, level: float):
    problem, demonstration = drawn("word_sequence_reversal", seed, level)
    up, down = (line.split(";") for line in demonstration.reasoning.split("\n"))
    words = problem.question.strip().rsplit(": ", 1)[1].split(", ")
    assert up == [f"{place:02d} {word}" for place, word in enumerate(words)]
    assert [int(each[:2]) for each in down] == list(range(len(words)))[::-1]
    assert ", ".join(each[3:] for each in down) == demonstration.answer
    assert 3 <= len(words) <= (8 if level <= 0.5 else 50)


def test_fifty_words_fit_in_a_context_nearly_always():
    lengths = [max(context_lengths(*drawn("word_sequence_reversal", seed, 1.0))) for seed in range(60)]
    assert sum(length <= 1000 for length in lengths) >= 57


def test_wording_and_scores_are_reasoning_gyms():
    family = FAMILIES["word_sequence_reversal"]
    for config in ({}, {"min_words": 25, "max_words": 50}):
        dataset, items = gym_items("word_sequence_reversal", 30, **config)
        for item in items:
            words = item["metadata"]["words"]
            assert item["question"] == GYM[0].format(words=", ".join(words))
            assert_scored_alike(family, dataset, item, {"words": words})
