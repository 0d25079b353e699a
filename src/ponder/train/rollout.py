"""Answers sampled from the weights that train, graded while others are still being sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from ponder.dialogue.messages import Message
from ponder.evaluate.measure import grade_async
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Completion, Request, Sampler
from ponder.tasks.protocol import Grade, Problem, Task
from ponder.types import InvalidRequest, SamplingParams, StopReason, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One answer to a problem. The reward is the grade's score, with nothing added yet."""

    problem: Problem
    completion: Completion
    grade: Grade

    @property
    def trajectory(self) -> Trajectory:
        return Trajectory(segments=self.completion.segments, reward=self.grade.score)

    @property
    def truncated(self) -> bool:
        return self.completion.stop_reason is StopReason.LENGTH


async def roll_out(
    sampler: Sampler, problems: Sequence[tuple[Task, Problem]], *, samples: int, params: SamplingParams, seed: str
) -> list[list[Attempt]]:
    """`samples` answers to each problem, in the problems' order. The same seed and weights give the same answers.

    Raises InvalidRequest for params under which the log-probabilities are not those of what was sampled, and for a
    sampler that gives none.
    """
    if params.temperature == 0 or params.top_k or params.top_p < 1 or params.min_p or params.logit_bias:
        raise InvalidRequest(
            "rollouts are sampled from the model's own distribution: temperature above 0, no top_k, top_p, min_p or "
            "logit_bias"
        )

    async def group(number: int, task: Task, problem: Problem) -> list[Attempt]:
        own = replace(params, seed=Random(f"{seed}/{number}").getrandbits(63))
        request = Request(prompt=(Message.user(problem.question),), params=own, n=samples)
        completions = await sampler.sample(request)
        if not all(completion.segments for completion in completions):
            raise InvalidRequest(f"{sampler.name} gives no ids and log-probabilities: rollouts need a local model")
        grades = await asyncio.gather(*(grade_async(task, problem, each.text) for each in completions))
        return [
            Attempt(problem=problem, completion=completion, grade=grade)
            for completion, grade in zip(completions, grades, strict=True)
        ]

    if isinstance(sampler, LocalSampler):
        sampler.gather(len(problems))
    async with asyncio.TaskGroup() as groups:
        running = [groups.create_task(group(number, *pair)) for number, pair in enumerate(problems)]
    return [each.result() for each in running]
