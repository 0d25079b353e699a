"""The largest island of a grid: every cell of land is met in order, and each new one is followed to all its neighbours.

`cE: cF1+2 dE0 cD0 -` looks right, down, left and up of cE: cF is land not met before, the second cell of this island;
above is the border.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.grids import Cell, Grid, cell_name, cell_rows, cells_around, named_rows
from ponder.tasks.graders import numeric
from ponder.tasks.protocol import Demonstration, Grade, Problem


class LargestIsland(FromGym):
    """Up to six rows and columns, then up to ten (the default config)."""

    name = gym_name = "largest_island"
    configs = ({"max_rows": 6, "max_cols": 6}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        grid = self.details(problem)["grid"]
        lines, met, most = [named_rows(grid)], set[Cell](), 0
        for cell in (cell for row in cell_rows(grid) for cell in row if grid[cell[0]][cell[1]]):
            if cell in met:
                lines.append(f"{cell_name(cell)} seen")
                continue
            followed, island = _follow(grid, cell)
            met |= island
            most = max(most, len(island))
            lines += [f"{cell_name(cell)} new", *followed, f"size {len(island)} most {most}"]
        return Demonstration(reasoning="\n".join([*lines, str(most)]), answer=str(most))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return numeric(problem.answer, answer)


def _follow(grid: Grid, first: Cell) -> tuple[list[str], set[Cell]]:
    """The lines of one island, and its cells."""
    queue, lines = [first], []
    for cell in queue:
        looks = []
        for near in cells_around(grid, cell):
            if near is None:
                looks.append("-")
                continue
            look = f"{cell_name(near)}{grid[near[0]][near[1]]}"
            if grid[near[0]][near[1]] and near not in queue:
                queue.append(near)
                look += f"+{len(queue)}"
            looks.append(look)
        lines.append(f"{cell_name(cell)}: {' '.join(looks)}")
    return lines, set(queue)
