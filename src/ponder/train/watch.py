"""How well the model answers while it trains: some problems of every task in the mix, greedy."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from ponder.dialogue.load import load_format
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.sampler.sync import run_sync
from ponder.tasks.protocol import DemonstratedTask, Problem, Task, without_marks
from ponder.tasks.registry import distinct_names, load_task
from ponder.tokenizer import Tokenizer
from ponder.train.loop import Watch
from ponder.train.recipe import GrpoRecipe, MixRecipe, SftRecipe
from ponder.train.rollout import attempts
from ponder.types import SamplingParams, ThinkingLimits


@dataclass(frozen=True, slots=True)
class _Asked:
    """A problem, what metrics call its task, and how many tokens an answer and its thinking may take."""

    name: str
    task: Task
    problem: Problem
    max_tokens: int
    thinking: int | None


def solved(stage: SftRecipe | GrpoRecipe, tokenizer: Tokenizer, *, seed: int) -> Watch | None:
    """A watcher of the share of problems solved per task (`solved/products`), at levels spread evenly.

    The problems are the same each time and are drawn apart from the training stream; that they were never trained on
    is for `ponder eval` to show. None where the mix has no task or the recipe asks for no problems.
    Answers are held to what reinforcement learning samples under; after SFT to twice what the demonstration takes, at
    least a row.
    """
    entries = [entry for entry in stage.mix if entry.task]
    if not entries or not stage.watch_problems or not stage.eval_every:
        return None
    tasks = [load_task(entry.task) for entry in entries]
    named = zip(entries, tasks, distinct_names(tasks), strict=True)
    asked = [each for entry, task, name in named for each in _asked(entry, task, name, stage, tokenizer, seed)]

    def watch(step: int, model: Transformer) -> Mapping[str, float]:
        sampler = LocalSampler(
            model, tokenizer, load_format(tokenizer), window=min(2 * stage.sequence, model.config.max_positions)
        )
        scores: dict[str, list[bool]] = defaultdict(list)
        for each, right in zip(asked, run_sync(_answer(sampler, asked)), strict=True):
            scores[each.name].append(right)
        return {f"solved/{name}": sum(each) / len(each) for name, each in scores.items()}

    return watch


def _asked(
    entry: MixRecipe,
    task: Task,
    name: str,
    stage: SftRecipe | GrpoRecipe,
    tokenizer: Tokenizer,
    seed: int,
) -> list[_Asked]:
    count = stage.watch_problems
    found = []
    for index in range(count):
        level = entry.min_level + (entry.max_level - entry.min_level) * (index + 0.5) / count
        rng = Random(f"watch/{seed}/{name}/{index}")
        problem = task.sample(rng, level)
        if isinstance(stage, GrpoRecipe):
            room, thinking = stage.max_tokens, stage.thinking
        else:
            room, thinking = max(stage.sequence, 2 * _demonstrated_tokens(task, problem, rng, tokenizer)), None
        found.append(_Asked(name, task, problem, room, thinking))
    return found


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
