"""A family whose problems are reasoning-gym's own items: for generators too intricate to be drawn again here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import Any

from ponder.tasks.families.family import Family
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Grade, Problem


class FromGym(Family):
    """`configs` of the dataset `gym_name`, easy to hard: the level picks among them. The wording is the dataset's."""

    gym_name: str
    configs: tuple[Mapping[str, object], ...] = ({},)

    @cached_property
    def dataset(self) -> GymTask:
        """Built at the first problem, so that the families can be listed without reasoning-gym."""
        return GymTask(self.gym_name, self.configs[0], harder=self.configs[1:])

    def sample(self, rng: Random, level: float) -> Problem:
        return replace(self.dataset.sample(rng, level), task=self.name)

    def details(self, problem: Problem) -> dict[str, Any]:
        """The metadata that the dataset gives with an item."""
        found: dict[str, Any] = self.dataset.entry(problem)["metadata"]
        return found

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 for the dataset's own answer, line by line, else 0."""
        lines, wanted = ([line.rstrip() for line in text.strip().split("\n")] for text in (answer, problem.answer))
        return Grade(score=float(lines == wanted))

    def same(self, a: str, b: str) -> bool:
        return a.split() == b.split()
