"""Which task at which level next: what the model neither solves nor fails every time teaches it most.

A group of answers that are all right, or all wrong, has no advantage to learn from. Problems are drawn in proportion to
p(1 - p), the variance of a pass or fail at pass rate p: "learnability" (Rutherford et al. 2024, arXiv 2408.15099;
Foster et al. 2025, arXiv 2502.12272, for reasoning models). A floor under it keeps every task and level alive, so that
what was solved is not forgotten and what was hopeless is tried again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from random import Random
from typing import Any

from ponder.train.recipe.sections import MixRecipe
from ponder.types import CheckpointError

BINS = 10  # of a task's range of levels
FLOOR = 0.1  # of the weight at p = 1/2, which is 1
RATE = 0.3  # how far one result moves the pass rate of its bin
REACH = 2.0  # bins: a result moves its neighbours' rates too, less the further away, to nothing at this distance


class Levels(StrEnum):
    """How problems are drawn.

    EVEN: by the weights of the mix, at levels drawn evenly.
    ADAPTIVE: what the model neither solves nor fails every time is drawn more often (`Curriculum`).
    """

    EVEN = "even"
    ADAPTIVE = "adaptive"


class Curriculum:
    """A pass rate for every task of the mix and every bin of its levels, moved by what comes back.

    `draw` is a function of (seed, step, index) and of the results so far, which `state` holds as JSON.
    names: what the summary calls the entries; None: as the mix does.
    """

    def __init__(self, mix: Sequence[MixRecipe], seed: int, names: Sequence[str] | None = None) -> None:
        self.mix = tuple(mix)
        self.names = [entry.task for entry in self.mix] if names is None else list(names)
        self.seed = seed
        self.pass_rates = [[0.5] * BINS for _ in self.mix]  # nothing is known: everything is worth a try

    def draw(self, step: int, index: int) -> tuple[int, float]:
        """(number of the entry in the mix, level) of problem `index` of a step."""
        rng = Random(f"curriculum/{self.seed}/{step}/{index}")
        (number,) = rng.choices(range(len(self.mix)), self._shares())
        (bin,) = rng.choices(range(BINS), list(map(_weight, self.pass_rates[number])))
        entry = self.mix[number]
        return number, entry.min_level + (entry.max_level - entry.min_level) * (bin + rng.random()) / BINS

    def update(self, results: Sequence[tuple[int, float, float]]) -> None:
        """Learn from (number of the entry, level, share of the answers that were right), in the order of their draws.

        Raises ValueError for a share outside [0, 1].
        """
        for number, level, passed in results:
            if not 0 <= passed <= 1:
                raise ValueError(f"the pass rate of {self.mix[number].task!r} must be from 0 to 1 (got {passed})")
            entry, rates = self.mix[number], self.pass_rates[number]
            span = entry.max_level - entry.min_level
            place = BINS * (level - entry.min_level) / span - 0.5 if span else (BINS - 1) / 2
            for bin, rate in enumerate(rates):
                near = max(0.0, 1 - abs(bin - place) / REACH)
                rates[bin] = rate + RATE * near * (passed - rate)

    def summary(self) -> dict[str, float]:
        """For each task: the share of the draws that it gets (`share/products`) and their mean level."""
        shares = self._shares()
        summary: dict[str, float] = {}
        for name, entry, rates, share in zip(self.names, self.mix, self.pass_rates, shares, strict=True):
            weights = list(map(_weight, rates))
            middle = sum(weight * (bin + 0.5) for bin, weight in enumerate(weights)) / sum(weights) / BINS
            summary[f"share/{name}"] = share / sum(shares)
            summary[f"level/{name}"] = entry.min_level + (entry.max_level - entry.min_level) * middle
        return summary

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {"tasks": [entry.task for entry in self.mix], "pass_rates": [list(rates) for rates in self.pass_rates]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`. Raises CheckpointError for one of another mix."""
        tasks, rates = state.get("tasks"), state.get("pass_rates")
        if tasks != [entry.task for entry in self.mix] or not _is_table(rates, len(self.mix)):
            raise CheckpointError(
                f"the saved curriculum has the tasks {tasks}, but the mix has "
                f"{[entry.task for entry in self.mix]}: resume with the mix that the run began with"
            )
        self.pass_rates = [list(row) for row in state["pass_rates"]]

    def _shares(self) -> list[float]:
        """A task's weight in the mix times the mean weight of its levels."""
        return [
            entry.weight * sum(map(_weight, rates)) / BINS
            for entry, rates in zip(self.mix, self.pass_rates, strict=True)
        ]


def _weight(rate: float) -> float:
    """1 at a pass rate of 1/2, FLOOR at 0 and at 1."""
    return FLOOR + (1 - FLOOR) * 4 * rate * (1 - rate)


def _is_table(rates: Any, rows: int) -> bool:
    return (
        isinstance(rates, list)
        and len(rates) == rows
        and all(isinstance(row, list) and len(row) == BINS for row in rates)
        and all(isinstance(rate, float) and math.isfinite(rate) for row in rates for rate in row)
    )
