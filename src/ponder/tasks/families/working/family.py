"""The base classes of families: wording, levels and grading.

A family draws its own problems, so that every size is equally likely; `FromGym` draws reasoning-gym's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import Any

from ponder.tasks.graders import numeric, same_value
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Demonstration, Grade, Problem


class ProblemFamily(ABC):
    """A task with demonstrations. `gym_name` is the reasoning-gym dataset whose wording and sizes it covers."""

    name: str
    gym_wording_share = 0.7
    default_level: float = 1.0
    """The level whose sizes reach those of the dataset's default config. A family that goes further says so."""

    @abstractmethod
    def sample(self, rng: Random, level: float) -> Problem: ...

    @abstractmethod
    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration: ...

    def grade(self, problem: Problem, answer: str) -> Grade:
        """By value: signs, leading zeros and thousands commas do not matter."""
        return numeric(problem.answer, answer)

    def same(self, a: str, b: str) -> bool:
        """Whether two answers would be graded alike."""
        return same_value(a, b)

    def word(self, rng: Random, gym: Sequence[str], varied: Sequence[str]) -> str:
        """A template: most often reasoning-gym's own wording, else one of the varied phrasings."""
        return rng.choice(gym) if rng.random() < self.gym_wording_share else rng.choice(varied)


class FromGym(ProblemFamily):
    """A family whose problems are reasoning-gym's own items: for generators too intricate to be written again.

    configs: of the dataset `gym_name`, easy to hard; the level picks among them. The wording is the dataset's.
    """

    gym_name: str
    configs: tuple[Mapping[str, object], ...] = ({},)

    @cached_property
    def dataset(self) -> GymTask:
        """Built at the first problem, so that the families can be listed without reasoning-gym."""
        return GymTask(self.gym_name, self.configs[0], harder=self.configs[1:])

    def sample(self, rng: Random, level: float) -> Problem:
        while not self.teaches(problem := replace(self.dataset.sample(rng, level), task=self.name)):
            pass
        return problem

    def teaches(self, problem: Problem) -> bool:
        """Whether an item is one to learn from; another is drawn in its place otherwise."""
        return True

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


class ScoredByGym(FromGym):
    """A family whose problems have several right answers: those that the dataset's scorer accepts."""

    def grade(self, problem: Problem, answer: str) -> Grade:
        first = super().grade(problem, answer)
        return first if first.solved or not answer.strip() else self.dataset.grade(problem, answer)


def size_at(level: float, low: int, high: int) -> int:
    """The level in [0, 1] as a size in low..high; a uniform level gives every size evenly."""
    return min(high, low + int(level * (high - low + 1)))


def beyond(level: float, default_level: float) -> tuple[bool, float]:
    """Whether a level lies above the default one, and where in its part, from 0 to 1."""
    if level <= default_level:
        return False, level / default_level
    return True, (level - default_level) / (1 - default_level)


def number_of_digits(rng: Random, digits: int) -> int:
    """A random number with exactly that many digits (one digit: 0 to 9)."""
    return rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)
