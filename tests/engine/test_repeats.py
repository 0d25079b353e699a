"""A model that goes round in circles is noticed, and nothing else is."""

from __future__ import annotations

from random import Random

import pytest

from ponder.engine import FinishEvent
from ponder.engine.repeats import EVERY, LEAST, TIMES, repeats_itself
from ponder.sampler.opening import find_model
from ponder.tasks.families import FAMILIES
from ponder.tasks.protocol import without_marks
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, Phase, PhaseTokens, SamplingParams, StopReason

TOKENS = PhaseTokens(end=(31,))
ONE_TOKEN = ((7, 200.0),)


def test_a_run_that_came_four_times_and_is_long_enough():
    run = list(range(40))
    assert repeats_itself(run * TIMES, 0, 64)
    assert repeats_itself([99, *run * TIMES], 0, 64)
    assert not repeats_itself(run * (TIMES - 1), 0, 64)
    assert not repeats_itself([*run * TIMES, 99], 0, 64)
    assert not repeats_itself(run * TIMES, 0, 39), "longer than what is looked for"
    assert not repeats_itself([0] * (LEAST - 1), 0, 64)
    assert repeats_itself([0] * LEAST, 0, 64)
    assert not repeats_itself([0] * LEAST, 1, 64), "what stood before the answer does not count"
    assert not repeats_itself([], 0, 64)


def test_an_answer_of_one_token_for_ever_ends_and_says_why(kernel):
    engine = kernel.engine(kernel.tiny_model(vocab_size=32, num_layers=1), TOKENS)
    params = SamplingParams(max_tokens=200, temperature=0, logit_bias=ONE_TOKEN, repeats=16)
    (ended,) = engine.generate([[3, 1, 4]], params)
    assert ended.stop_reason is StopReason.REPEATED
    assert LEAST <= len(ended.ids) < LEAST + EVERY
    (whole,) = engine.generate([[3, 1, 4]], SamplingParams(max_tokens=200, temperature=0, logit_bias=ONE_TOKEN))
    assert whole.stop_reason is StopReason.LENGTH
    assert isinstance(whole, FinishEvent)
    with pytest.raises(InvalidRequest, match="repeats"):
        engine.generate([[3, 1, 4]], SamplingParams(repeats=-1))


def test_the_same_state_fold_after_fold_ends_the_thought(kernel):
    """Bias makes the model write an empty state and fold it, again and again."""
    tokens = PhaseTokens(think_open=28, think_close=29, state_open=26, fold=27, end=(31,))
    engine = kernel.engine(kernel.tiny_model(vocab_size=32, num_layers=1), tokens)
    params = SamplingParams(max_tokens=60, temperature=0, logit_bias=((26, 300.0), (27, 400.0)), repeats=16)
    (ended,) = engine.generate([[3, 1, 4, 28]], params, start=Phase.THINK)
    assert ended.stop_reason is StopReason.REPEATED
    assert len(ended.segments) == TIMES


@pytest.mark.parametrize("family", FAMILIES)
def test_no_demonstration_looks_like_a_repetition(family):
    tokenizer = Tokenizer.load(find_model("mini"))
    for number in range(4):
        rng = Random(number)
        problem = FAMILIES[family].sample(rng, (number + 0.5) / 4)
        shown = FAMILIES[family].demonstrate(problem, rng)
        for thought in (shown.reasoning, *(fold.thought for fold in shown.folds[:30])):
            ids = tokenizer.encode(without_marks(thought))
            assert not any(repeats_itself(ids[:end], 0, 128) for end in range(0, len(ids), EVERY))
