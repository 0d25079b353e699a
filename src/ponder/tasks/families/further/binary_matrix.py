"""Distances to the nearest 0, by rounds: first the zeros, then what is beside them, until no x is left.

Every round writes the whole field again. A cell that is still x gets the round's number if a neighbour has the one
before.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.grids import cell_rows, cells_around, field_rows, printed_rows
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Problem

UNKNOWN = "x"


class BinaryMatrix(FromGym):
    """Sides of three to five, then three to ten (the default config)."""

    name = gym_name = "binary_matrix"
    configs = ({"max_n": 5}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        matrix = self.details(problem)["matrix"]
        grid: list[list[int | str]] = [[UNKNOWN if value else 0 for value in row] for row in matrix]
        lines, distance = [f"0\n{field_rows(grid)}"], 0
        while any(UNKNOWN in row for row in grid):
            distance += 1
            grid = [
                [
                    distance
                    if grid[r][c] == UNKNOWN
                    and any(near and grid[near[0]][near[1]] == distance - 1 for near in cells_around(grid, (r, c)))
                    else grid[r][c]
                    for r, c in row
                ]
                for row in cell_rows(grid)
            ]
            round_shown = noticed_slip(field_rows(grid), r"[0-9x]", "x0123", rng)
            lines.append(f"{distance}\n{round_shown}")
        return Demonstration(reasoning="\n".join(lines), answer=printed_rows(grid))
