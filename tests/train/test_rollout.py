"""Rollouts: repeatable, graded one by one, and only where the log-probabilities are those of what was sampled."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from ponder.dialogue import Message, Start
from ponder.tasks.registry import load_task
from ponder.testing.tiny import tiny_sampler
from ponder.train.policy.rollout import attempts, generated_tokens, prefilled_tokens, roll_out
from ponder.types import InvalidRequest, SamplingParams, WindowExceeded

TASK = load_task("products")


def problems(count):
    return [(TASK, TASK.sample(Random(seed), 0.0)) for seed in range(count)]


def rolled(sampler, **options):
    defaults = {"samples": 3, "params": SamplingParams(max_tokens=20), "seed": "a"}
    return asyncio.run(roll_out(sampler, problems(2), **{**defaults, **options}))


def test_the_same_seed_and_weights_give_the_same_trajectories():
    first, again, other = (rolled(tiny_sampler(), seed=seed) for seed in ("a", "a", "b"))
    told = [[[each.trajectory for each in group] for group in groups] for groups in (first, again, other)]
    assert told[0] == told[1]
    assert told[0] != told[2]
    assert [len(group) for group in first] == [3, 3]
    ids = {each.trajectory.segments[0].ids for group in first for each in group}
    assert len(ids) == 6  # no two samples share their random numbers


def test_each_answer_has_its_own_grade():
    for (task, problem), group in zip(problems(2), rolled(tiny_sampler()), strict=True):
        for attempt in group:
            assert attempt.problem == problem
            assert attempt.grade == task.grade(problem, attempt.completion.text)
            assert attempt.trajectory.reward == attempt.grade.score
            assert attempt.truncated == (len(attempt.completion.segments[-1].ids) == 20)


def test_a_prompt_is_prefilled_once_for_its_group():
    sampler = tiny_sampler()
    groups = rolled(sampler)
    prompts = [sampler.format.render([Message.user(p.question)], start=Start.THINK).ids for _, p in problems(2)]
    assert [prefilled_tokens(group) for group in groups] == list(map(len, prompts))
    said = [
        sum(len(each.trajectory.segments[0].ids) for each in group) for group in groups
    ]  # 60, or less: some end early
    assert [generated_tokens(group) for group in groups] == said
    counters = asyncio.run(sampler.stats()).counters
    assert counters.prefill_tokens + counters.cached_tokens >= sum(map(prefilled_tokens, groups))


def test_a_rollout_that_fails_says_why_and_holds_nothing_back():
    """Neither of the two requests ever reaches the engine, so neither is gathered."""

    async def go():
        sampler, params = tiny_sampler(), SamplingParams(max_tokens=5)
        long = replace(problems(1)[0][1], question="too long " * 1000)
        with pytest.raises(WindowExceeded):
            await roll_out(sampler, [(TASK, long)] * 2, samples=2, params=params, seed="a")
        return await asyncio.wait_for(attempts(sampler, *problems(1)[0], samples=2, params=params, seed="a"), 60)

    assert len(asyncio.run(go())) == 2


@pytest.mark.parametrize("field", [{"temperature": 0.0}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_what_bends_the_distribution_is_refused(field):
    with pytest.raises(InvalidRequest, match="own distribution"):
        rolled(tiny_sampler(), params=SamplingParams(max_tokens=5, **field))
