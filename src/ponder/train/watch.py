"""How well the model answers while it trains: some problems of every task in the mix, thinking, greedy."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from random import Random

from ponder.dialogue.load import load_format
from ponder.dialogue.messages import Message
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Request
from ponder.sampler.sync import run_sync
from ponder.tasks.protocol import Problem
from ponder.tasks.registry import load_task
from ponder.tokenizer import Tokenizer
from ponder.train.loop import Watch
from ponder.train.recipe import GrpoRecipe, MixRecipe, SftRecipe
from ponder.types import SamplingParams


def solved(stage: SftRecipe | GrpoRecipe, tokenizer: Tokenizer, *, seed: int, max_tokens: int) -> Watch | None:
    """A watcher of the share of problems solved per task (`solved/products`), at levels spread evenly.

    The problems are the same each time and are drawn apart from the training stream; that they were never trained on
    is for `ponder eval` to show. None where the mix has no task or the recipe asks for no problems.
    """
    tasks = {entry.task: entry for entry in stage.mix if entry.task}
    if not tasks or not stage.watch_problems or not stage.eval_every:
        return None
    problems = {name: _problems(entry, stage.watch_problems, seed) for name, entry in tasks.items()}

    def watch(step: int, model: Transformer) -> Mapping[str, float]:
        sampler = LocalSampler(
            model, tokenizer, load_format(tokenizer), window=min(2 * stage.sequence, model.config.max_positions)
        )
        asked = [(name, problem) for name, chosen in problems.items() for problem in chosen]
        answers = run_sync(_answer(sampler, [problem for _, problem in asked], max_tokens))
        scores: dict[str, list[bool]] = defaultdict(list)
        for (name, problem), answer in zip(asked, answers, strict=True):
            scores[name].append(load_task(name).grade(problem, answer).solved)
        return {f"solved/{name}": sum(each) / len(each) for name, each in scores.items()}

    return watch


def _problems(entry: MixRecipe, count: int, seed: int) -> list[Problem]:
    task = load_task(entry.task)
    span = entry.max_level - entry.min_level
    levels = [entry.min_level + span * (index + 0.5) / count for index in range(count)]
    return [task.sample(Random(f"watch/{seed}/{entry.task}/{i}"), level) for i, level in enumerate(levels)]


async def _answer(sampler: LocalSampler, problems: list[Problem], max_tokens: int) -> list[str]:
    """The greedy answers, thinking, all in one batch."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    requests = [Request(prompt=(Message.user(problem.question),), params=params) for problem in problems]
    completions = await asyncio.gather(*(sampler.sample(request) for request in requests))
    await sampler.close()
    return [completion[0].text for completion in completions]
