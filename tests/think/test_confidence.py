"""DeepConf's online stop: a threshold from a calibration split; what falls below it is ended, and has no vote."""

import pytest

from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Reasoner
from ponder.think.confidence import confidence_threshold, lowest_confidence, stopping_below, was_given_up
from ponder.types import InvalidRequest, Origin, Phase

THINK = {"thinking": 90, "max_tokens": 100, "answer_room": 4, "temperature": 1.0}


@pytest.fixture(scope="module")
def sampler():
    return tiny_sampler(max_positions=512)


@pytest.fixture(scope="module")
def drawn(sampler):
    away = [(id, -100.0) for id in sampler.tokenizer.control.values()]
    settings = THINK | {"n": 6, "top_logprobs": 20, "seed": 1, "logit_bias": away}
    return Reasoner(sampler).ask("2+2?", **settings).completions


def test_the_lowest_group_is_that_of_the_window(drawn):
    segment = drawn[0].segment
    tops = [top for top, phase in zip(segment.top_logprobs, segment.phases, strict=True) if phase is Phase.THINK]
    each = [-sum(logprob for _, logprob in top) / 20 for top in tops]
    assert lowest_confidence(drawn[0], 8) == pytest.approx(min(sum(each[i : i + 8]) / 8 for i in range(len(each) - 7)))
    assert lowest_confidence(drawn[0], 1000) is None


def test_the_threshold_keeps_the_share_that_it_says(drawn):
    lowest = sorted(lowest_confidence(each, 16) for each in drawn)
    assert confidence_threshold(drawn, keep=1.0, window=16) == lowest[0]
    assert confidence_threshold(drawn, keep=0.5, window=16) == lowest[3]
    with pytest.raises(InvalidRequest, match="above 0 and at most 1"):
        confidence_threshold(drawn, keep=0)
    with pytest.raises(InvalidRequest, match="take a smaller window"):
        confidence_threshold(drawn, window=1000)


def test_what_falls_below_is_closed_early_and_known_from_what_meets_its_cap(sampler, drawn):
    threshold = confidence_threshold(drawn, keep=0.5, window=16)
    away = [(id, -100.0) for id in sampler.tokenizer.control.values()]
    ask = Ask.of("2+2?", **THINK, logit_bias=away, seed=1)
    stopping = stopping_below(ask, threshold, 16, sampler.capabilities)
    settings = THINK | {"thinking": stopping.thinking, "logit_bias": away, "seed": 1, "n": 6}
    answer = Reasoner(sampler).ask("2+2?", **settings)
    given_up = [was_given_up(each, stopping, sampler.capabilities) for each in answer.completions]
    short = [each.usage.reasoning_tokens < 90 for each in answer.completions]
    assert given_up == short
    assert 0 < sum(given_up) < 6
    forced = [each.segment.origins[each.usage.reasoning_tokens - 1] for each in answer.completions]
    assert set(forced) == {Origin.FORCED}, "a cap forces the close too"


def test_only_what_was_not_given_up_votes(sampler, drawn):
    threshold = confidence_threshold(drawn, keep=0.5)
    away = [(id, -100.0) for id in sampler.tokenizer.control.values()]
    asked = THINK | {"seed": 1, "stop": "e", "logit_bias": away}
    text = f"consensus(samples=6, until='all', confidence={threshold})"
    answer = Reasoner(sampler).ask("2+2?", strategy=text, **asked)
    voted = {sample for vote in answer.votes for sample in vote.samples}
    early = {place for place, each in enumerate(answer.completions) if each.usage.reasoning_tokens < 90}
    assert early
    assert not voted & early


def test_it_needs_likeliest_ids_to_calibrate():
    completion = Reasoner(ScriptedSampler(["x"])).ask("y").completions[0]
    with pytest.raises(InvalidRequest, match="top_logprobs=20"):
        lowest_confidence(completion)
