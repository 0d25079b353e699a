"""What the tests of single families share: drawing, context lengths, and reasoning-gym's own wording and scorer."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import reasoning_gym

from ponder.tasks.families import FAMILIES
from ponder.tasks.protocol import DemonstratedTask, Demonstration, Problem, without_marks
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


def assert_scored_alike(family: DemonstratedTask, dataset: Any, item: dict[str, Any], facts: dict[str, Any]) -> Problem:
    """The family's answer to an item of a dataset is right by the dataset's scorer, and by the family's own.

    facts: the metadata of the problem, as the family draws it.
    """
    problem = Problem(task=family.name, question=item["question"], answer=item["answer"], metadata=facts)
    answer = family.demonstrate(problem, Random(0)).answer
    assert dataset.score_answer(answer, item) == 1.0
    assert family.grade(problem, answer).solved
    return problem


def corrected(line: str) -> str:
    """The line without its slip; a slip that changes nothing is an error."""
    for wrong, right in re.findall(r"(\d+) no (\d+)", line):
        assert wrong != right
    return re.sub(r"\d+ no ", "", line)


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
