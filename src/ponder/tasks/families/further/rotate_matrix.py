"""Matrices turned clockwise: full turns are taken off, cells are named, and the turned rows are read by name.

`450 -360 90` leaves a quarter, whose first row is column A from the bottom up: `cA5 bA2 aA7`.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.grids import named_rows, turned_cells
from ponder.tasks.protocol import Demonstration, Problem


class RotateMatrix(FromGym):
    """Sides of two to five, then two to ten (the default config)."""

    name = gym_name = "rotate_matrix"
    configs = ({"max_n": 5}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        matrix, degrees = details["matrix"], 90 * int(details["num_rotations"])
        turns = f"{degrees}{''.join(f' -360 {left}' for left in range(degrees - 360, -1, -360))}"
        lines = [turns]
        if degrees % 360:
            lines += [named_rows(matrix), str(degrees % 360), named_rows(matrix, turned_cells(matrix, degrees // 90))]
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)
