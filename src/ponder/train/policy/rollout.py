"""Answers sampled from the weights that train: to learn from, and to see how well the model answers meanwhile."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from ponder.dialogue.load import load_format
from ponder.dialogue.messages import Message
from ponder.evaluate.measure import grade_whole
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Request, Sampler
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import DemonstratedTask, EnvironmentTask, Problem, Task, without_marks
from ponder.tasks.registry import distinct_names, load_task
from ponder.tasks.turns import Attempt, play
from ponder.tokenizer import Tokenizer
from ponder.train.loop.fit import Watch
from ponder.train.recipe.sections import MixRecipe
from ponder.types import InvalidRequest, Origin, SamplingParams, ThinkingLimits

# Parameters under which what is sampled has other probabilities than those reported.
NOT_OWN = (
    "top_k",
    "top_p",
    "min_p",
    "logit_bias",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)


def generated_tokens(group: Sequence[Attempt]) -> int:
    """All tokens that the model produced, over all turns and contexts; those forced on it included."""
    return sum(attempt.completion.usage.completion_tokens for attempt in group)


def prefilled_tokens(group: Sequence[Attempt]) -> int:
    """Tokens that ran through the model without being produced: the prompt, once for the group; results of tools;
    states, after a fold. Caches that groups happen to share do not count, so that the same answers have the same cost.
    """
    brought = sum(
        origin is Origin.ENV for each in group for segment in each.trajectory.segments for origin in segment.origins
    )
    refilled = sum(each.completion.usage.refilled_tokens for each in group)
    return len(group[0].trajectory.segments[0].prompt_ids) + brought + refilled


async def roll_out(
    sampler: Sampler, problems: Sequence[tuple[Task, Problem]], *, samples: int, params: SamplingParams, seed: str
) -> list[list[Attempt]]:
    """As `roll_out_seeded`, every problem with a seed of its number."""
    seeds = [f"{seed}/{number}" for number in range(len(problems))]
    return await roll_out_seeded(sampler, problems, seeds=seeds, samples=samples, params=params)


async def roll_out_seeded(
    sampler: Sampler,
    problems: Sequence[tuple[Task, Problem]],
    *,
    seeds: Sequence[str],
    samples: int,
    params: SamplingParams,
) -> list[list[Attempt]]:
    """`samples` answers to each problem, in the problems' order. The same seeds and weights give the same answers.

    max_tokens counts every token after the prompt, over all contexts of folded thinking and all turns, results of
    tools included. Limits on thinking hold for each turn.
    Raises InvalidRequest for params under which the log-probabilities are not those of what was sampled, and for a
    sampler that gives none; and what sampling raises.
    """
    own = SamplingParams(temperature=params.temperature)
    changed = [name for name in NOT_OWN if getattr(params, name) != getattr(own, name)]
    if params.temperature == 0 or changed:
        raise InvalidRequest(
            "rollouts must be sampled from the model's own distribution (got "
            f"{', '.join(changed) or 'temperature 0'}): set a temperature above 0, and leave out "
            f"{', '.join(NOT_OWN)}"
        )

    sampler.gather(len(problems))
    try:
        async with asyncio.TaskGroup() as groups:
            running = [
                groups.create_task(attempts(sampler, *pair, samples=samples, params=params, seed=seed))
                for pair, seed in zip(problems, seeds, strict=True)
            ]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None  # typed, with its own text
    finally:
        sampler.gather(0)  # those that failed before they were sampled are not waited for
    return [each.result() for each in running]


async def attempts(
    sampler: Sampler, task: Task, problem: Problem, *, samples: int, params: SamplingParams, seed: str
) -> list[Attempt]:
    """`samples` answers to one problem, graded, under any params. Raises InvalidRequest for a sampler without ids."""
    own = replace(params, seed=Random(seed).getrandbits(63))
    completions = await sampler.sample(Request(prompt=(Message.user(problem.question),), params=own, n=samples))
    if not all(completion.segments for completion in completions):
        raise InvalidRequest(f"{sampler.name} gives no ids and log-probabilities: use a local model for rollouts")
    if isinstance(task, EnvironmentTask):
        turns = (
            play(sampler, task, problem, completion, params=params, seed=f"{seed}/{sample}")
            for sample, completion in enumerate(completions)
        )
        return list(await asyncio.gather(*turns))
    grades = await asyncio.gather(
        *(grade_whole(task, problem, each.message, complete=each.answers) for each in completions)
    )
    return [
        Attempt(problem=problem, completion=completion, grade=grade, messages=(completion.message,))
        for completion, grade in zip(completions, grades, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A problem, what metrics call its task, and how many tokens an answer and its thinking may take."""

    name: str
    task: Task
    problem: Problem
    max_tokens: int
    thinking: int | None


def solved(
    mix: Sequence[MixRecipe],
    tokenizer: Tokenizer,
    *,
    problems: int,
    sequence: int,
    seed: int,
    max_tokens: int | None = None,
    thinking: int | None = None,
) -> Watch | None:
    """A watcher of the share of problems solved per task (`solved/products`), at levels spread evenly.

    The problems are the same each time and are drawn apart from the training stream; that they were never trained on
    is for `ponder eval` to show.

    problems: how many of each task. Where it is 0, or the mix has no task, the result is None.
    sequence: the length of a row. The window is twice that.
    max_tokens: of an answer; None: twice what the demonstration takes, at least a row.
    thinking: cap of the thinking; None: no cap.
    """
    entries = [entry for entry in mix if entry.task]
    if not entries or not problems:
        return None
    tasks = [load_task(entry.task) for entry in entries]
    asked: list[_Asked] = []
    for entry, task, name in zip(entries, tasks, distinct_names(tasks), strict=True):
        for index in range(problems):
            level = entry.min_level + (entry.max_level - entry.min_level) * (index + 0.5) / problems
            rng = Random(f"watch/{seed}/{name}/{index}")
            problem = task.sample(rng, level)
            room = max_tokens or max(sequence, 2 * _demonstrated_tokens(task, problem, rng, tokenizer))
            asked.append(_Asked(name, task, problem, room, thinking))

    def watch(step: int, model: Transformer) -> Mapping[str, float]:
        sampler = LocalSampler(
            model, tokenizer, load_format(tokenizer), window=min(2 * sequence, model.config.max_positions)
        )
        scores: dict[str, list[bool]] = defaultdict(list)
        for each, right in zip(asked, run_sync(_answer(sampler, asked)), strict=True):
            scores[each.name].append(right)
        return {f"solved/{name}": sum(each) / len(each) for name, each in scores.items()}

    return watch


def _demonstrated_tokens(task: Task, problem: Problem, rng: Random, tokenizer: Tokenizer) -> int:
    """Over all contexts of the demonstration, control tokens aside; 0 without one."""
    if not isinstance(task, DemonstratedTask):
        return 0
    shown = task.demonstrate(problem, rng)
    texts = [*(text for fold in shown.folds for text in (fold.thought, fold.state)), shown.reasoning, shown.answer]
    return sum(len(tokenizer.encode(without_marks(text))) for text in texts)


async def _answer(sampler: LocalSampler, asked: Sequence[_Asked]) -> list[bool]:
    """Whether each problem was solved: greedy, all in one batch."""
    tries = (
        attempts(
            sampler,
            each.task,
            each.problem,
            samples=1,
            params=SamplingParams(
                max_tokens=each.max_tokens, temperature=0.0, thinking=ThinkingLimits(cap=each.thinking)
            ),
            seed="watch",
        )
        for each in asked
    )
    groups = await asyncio.gather(*tries)
    await sampler.close()
    return [attempt.grade.solved for (attempt,) in groups]
