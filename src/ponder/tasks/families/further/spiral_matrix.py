"""Matrices read in a spiral: cells are named, and every side of a ring is a line of cells, from the outside inward."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.grids import Cell, Grid, cell_rows, named_cells, named_rows
from ponder.tasks.protocol import Demonstration, Problem


class SpiralMatrix(FromGym):
    """Sides of two to five, then two to ten (the default config)."""

    name = gym_name = "spiral_matrix"
    configs = ({"max_n": 5}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        matrix = self.details(problem)["matrix"]
        lines = [named_rows(matrix)]
        for number, side in enumerate(_sides(matrix)):
            lines.append(f"{('right', 'down', 'left', 'up')[number % 4]} {named_cells(matrix, side)}")
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)


def _sides(matrix: Grid) -> list[list[Cell]]:
    """The sides in their order: the top row is taken off, and what is left is turned to the left."""
    rows, sides = cell_rows(matrix), []
    while rows:
        sides.append(rows[0])
        rows = [list(row) for row in zip(*rows[1:], strict=True)][::-1]
    return sides
