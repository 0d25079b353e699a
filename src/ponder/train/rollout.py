"""Answers sampled from the weights that train, graded while others are still being sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from ponder.dialogue.messages import Message
from ponder.evaluate.measure import grade_async
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Request, Sampler
from ponder.tasks.protocol import EnvironmentTask, Problem, Task
from ponder.tasks.turns import Attempt, play
from ponder.types import InvalidRequest, Origin, SamplingParams


def generated_tokens(group: Sequence[Attempt]) -> int:
    """All that the model said, over all turns and contexts; what was forced on it too."""
    return sum(attempt.completion.usage.completion_tokens for attempt in group)


def prefilled_tokens(group: Sequence[Attempt]) -> int:
    """What ran through the model without being said by it: the prompt, once for the group; results of tools; states,
    behind a fold. Caches that groups happen to share do not count, so that the same answers have the same cost."""
    brought = sum(
        origin is Origin.ENV for each in group for segment in each.trajectory.segments for origin in segment.origins
    )
    refilled = sum(each.completion.usage.refilled_tokens for each in group)
    return len(group[0].trajectory.segments[0].prompt_ids) + brought + refilled


async def roll_out(
    sampler: Sampler, problems: Sequence[tuple[Task, Problem]], *, samples: int, params: SamplingParams, seed: str
) -> list[list[Attempt]]:
    """`samples` answers to each problem, in the problems' order. The same seed and weights give the same answers.

    max_tokens counts every token behind the prompt, over all contexts of folded thinking and all turns, results of
    tools included. Limits on thinking hold for each turn.
    Raises InvalidRequest for params under which the log-probabilities are not those of what was sampled, and for a
    sampler that gives none; and what sampling raises.
    """
    if params.temperature == 0 or params.top_k or params.top_p < 1 or params.min_p or params.logit_bias:
        raise InvalidRequest(
            "rollouts are sampled from the model's own distribution: temperature above 0, no top_k, top_p, min_p or "
            "logit_bias"
        )

    gather = sampler.gather if isinstance(sampler, LocalSampler) else lambda requests: None
    gather(len(problems))
    try:
        async with asyncio.TaskGroup() as groups:
            running = [
                groups.create_task(attempts(sampler, *pair, samples=samples, params=params, seed=f"{seed}/{number}"))
                for number, pair in enumerate(problems)
            ]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None  # typed, and told by its own text
    finally:
        gather(0)  # those that failed before they were sampled are not waited for
    return [each.result() for each in running]


async def attempts(
    sampler: Sampler, task: Task, problem: Problem, *, samples: int, params: SamplingParams, seed: str
) -> list[Attempt]:
    """`samples` answers to one problem, graded, under any params. Raises InvalidRequest for a sampler without ids."""
    own = replace(params, seed=Random(seed).getrandbits(63))
    completions = await sampler.sample(Request(prompt=(Message.user(problem.question),), params=own, n=samples))
    if not all(completion.segments for completion in completions):
        raise InvalidRequest(f"{sampler.name} gives no ids and log-probabilities: rollouts need a local model")
    if isinstance(task, EnvironmentTask):
        turns = (
            play(sampler, task, problem, completion, params=params, seed=f"{seed}/{sample}")
            for sample, completion in enumerate(completions)
        )
        return list(await asyncio.gather(*turns))
    grades = await asyncio.gather(*(grade_async(task, problem, each.text) for each in completions))
    return [
        Attempt(problem=problem, completion=completion, grade=grade, messages=(completion.message,))
        for completion, grade in zip(completions, grades, strict=True)
    ]
