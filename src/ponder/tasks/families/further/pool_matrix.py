"""Max and average pooling: cells are named, and every window is listed with its largest value, or with running sums.

`aA2 aB3 5 bA0 5 bB4 9 by 4 2.25`: after each value from the second on stands the sum so far.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import ScoredByGym
from ponder.tasks.families.working.grids import Cell, Grid, named_cells, named_rows
from ponder.tasks.protocol import Demonstration, Problem


class PoolMatrix(ScoredByGym):
    """Up to five rows and columns, then up to ten (the default config)."""

    name = gym_name = "pool_matrix"
    configs = ({"max_rows": 5, "max_cols": 5}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        matrix, size, largest = details["matrix"], int(details["pool_size"]), details["pool_type"] == "max"
        lines = [f"{details['pool_type']} {size}"]
        if size > 1:
            lines.append(named_rows(matrix))
            lines += [", ".join(_pooled(matrix, window, largest) for window in row) for row in _windows(matrix, size)]
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)


def _windows(matrix: Grid, size: int) -> list[list[list[Cell]]]:
    """The cells of each window, in rows of windows; those at the border may be smaller."""
    height, width = len(matrix), len(matrix[0])
    return [
        [
            [(r, c) for r in range(top, min(top + size, height)) for c in range(left, min(left + size, width))]
            for left in range(0, width, size)
        ]
        for top in range(0, height, size)
    ]


def _pooled(matrix: Grid, window: list[Cell], largest: bool) -> str:
    values = [int(str(matrix[row][column])) for row, column in window]
    if largest:
        return f"{named_cells(matrix, window)} most {max(values)}"
    steps = [named_cells(matrix, window[:1])]
    for number, cell in enumerate(window[1:], 2):
        steps.append(f"{named_cells(matrix, [cell])} {sum(values[:number])}")
    return f"{' '.join(steps)} by {len(values)} {round(sum(values) / len(values), 2)}"
