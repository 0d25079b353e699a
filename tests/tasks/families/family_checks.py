"""What the tests of single families share: drawing, context lengths, and reasoning-gym's own wording and scorer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import reasoning_gym

from ponder.tasks.families import FAMILIES
from ponder.tasks.protocol import Demonstration, Problem, without_marks
from ponder.tokenizer import Tokenizer


def drawn(name: str, seed: int, level: float) -> tuple[Problem, Demonstration]:
    rng = Random(seed)
    problem = FAMILIES[name].sample(rng, level)
    demonstration = FAMILIES[name].demonstrate(problem, rng)
    return problem, replace(demonstration, reasoning=without_marks(demonstration.reasoning))


def gym_items(name: str, count: int = 30, **config: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A reasoning-gym dataset and some of its items."""
    dataset = reasoning_gym.create_dataset(name, seed=7, size=count, **config)
    return dataset, list(dataset)


def context_lengths(problem: Problem, demonstration: Demonstration) -> list[int]:
    """Tokens of every context: question, state, thought and what the thought ends in."""

    @cache
    def length(text: str) -> int:
        return len(_tokenizer().encode(without_marks(text)))

    lengths, state = [], 0
    for fold in demonstration.folds:
        lengths.append(length(problem.question) + state + length(fold.thought) + length(fold.state))
        state = length(fold.state)
    answer = sum(map(length, demonstration.pieces)) or length(demonstration.answer)
    return [*lengths, length(problem.question) + state + length(demonstration.reasoning) + answer]


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.load("src/ponder/mini")
