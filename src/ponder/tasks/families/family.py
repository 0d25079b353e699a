"""What the families share: wording, levels, and grading. A family draws its own problems so that sizes come evenly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from ponder.tasks.graders import numeric, same_value
from ponder.tasks.protocol import Demonstration, Grade, Problem


class Family(ABC):
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


def size_at(level: float, low: int, high: int) -> int:
    """The level in [0, 1] as a size in low..high; a uniform level gives every size evenly."""
    return min(high, low + int(level * (high - low + 1)))


def beyond(level: float, default_level: float) -> tuple[bool, float]:
    """Whether a level lies above the default one, and where in its part, from 0 to 1."""
    if level <= default_level:
        return False, level / default_level
    return True, (level - default_level) / (1 - default_level)


def number_of_digits(rng: Random, digits: int) -> int:
    """A random number with exactly so many digits (one digit: 0 to 9)."""
    return rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)
