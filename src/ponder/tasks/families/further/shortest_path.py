"""Shortest paths on a grid: cells are named, and looked around in the order in which they are reached.

`dD: dEO+ eDX - cDO` looks right, down, left and up of dD: dE is open and reached for the first time, eD is blocked, the
third is beyond the border, and cD was reached before. From the destination the cells that led to it are traced back.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import ScoredByGym
from ponder.tasks.families.working.grids import AROUND, Cell, Grid, cell_name, cell_rows, cells_around, named_rows
from ponder.tasks.protocol import Demonstration, Problem

START, END, OPEN = "*#O"
NO_PATH = "infeasible"


class ShortestPath(ScoredByGym):
    """Up to five rows and columns, then five to eight (the default config)."""

    name = gym_name = "shortest_path"
    configs = ({"min_rows": 3, "max_rows": 5, "min_cols": 3, "max_cols": 5}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        grid = self.details(problem)["matrix"]
        (start,) = (cell for row in cell_rows(grid) for cell in row if grid[cell[0]][cell[1]] == START)
        lines, reached = _search(grid, start)
        end = next((cell for cell in reached if grid[cell[0]][cell[1]] == END), None)
        if end is None:
            return Demonstration(reasoning="\n".join([named_rows(grid), *lines, "none left"]), answer=NO_PATH)
        back = [end]
        while back[-1] != start:
            back.append(reached[back[-1]])
        ways = [_direction(a, b) for a, b in zip(back[::-1], back[-2::-1], strict=False)]
        forth = " ".join(f"{way} {cell_name(cell)}" for way, cell in zip(ways, back[-2::-1], strict=True))
        lines += [f"back {' '.join(map(cell_name, back))}", f"forth {cell_name(start)} {forth}"]
        return Demonstration(reasoning="\n".join([named_rows(grid), *lines]), answer=" ".join(ways))


def _search(grid: Grid, start: Cell) -> tuple[list[str], dict[Cell, Cell]]:
    """The lines of the search, and from where each cell was reached; it ends with the destination."""
    lines: list[str] = []
    reached = {start: start}
    queue = [start]
    for cell in queue:
        looks: list[str] = []
        for near in cells_around(grid, cell):
            value = grid[near[0]][near[1]] if near else ""
            look = f"{cell_name(near)}{value}" if near else "-"
            if near and value in (OPEN, END) and near not in reached:
                reached[near] = cell
                queue.append(near)
                look += "+"
            looks.append(look)
            if value == END:
                return [*lines, f"{cell_name(cell)}: {' '.join(looks)}"], reached
        lines.append(f"{cell_name(cell)}: {' '.join(looks)}")
    return lines, reached


def _direction(a: Cell, b: Cell) -> str:
    """The way from a cell to its neighbour."""
    return next(way for way, (row, column) in AROUND.items() if (a[0] + row, a[1] + column) == b)
