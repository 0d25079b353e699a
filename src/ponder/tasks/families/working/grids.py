"""Grids of up to ten by ten: every cell has a name, a small letter for its row and a capital for its column.

`aB7` is the cell in row a and column B, whose value is 7. A field is a grid filled up with dots to ten by ten, so that
a cell's neighbours always stand at the same distances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ROW_NAMES, COLUMN_NAMES = "abcdefghij", "ABCDEFGHIJ"
SIDE = len(ROW_NAMES)
AROUND = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}

Cell = tuple[int, int]
Grid = Sequence[Sequence[object]]


def cell_name(cell: Cell) -> str:
    return ROW_NAMES[cell[0]] + COLUMN_NAMES[cell[1]]


def cell_rows(grid: Grid) -> list[list[Cell]]:
    """The cells of a grid, row by row."""
    return [[(row, column) for column in range(len(line))] for row, line in enumerate(grid)]


def named_cells(grid: Grid, cells: Iterable[Cell]) -> str:
    """`aA3 aB7`: cells with their values."""
    return " ".join(f"{cell_name(cell)}{grid[cell[0]][cell[1]]}" for cell in cells)


def named_rows(grid: Grid, rows: Iterable[Iterable[Cell]] | None = None) -> str:
    """A line for each row of cells; all rows of the grid where none are given."""
    return "\n".join(named_cells(grid, row) for row in (cell_rows(grid) if rows is None else rows))


def printed_rows(grid: Grid) -> str:
    """As reasoning-gym prints a matrix."""
    return "\n".join(" ".join(map(str, line)) for line in grid)


def field_rows(grid: Grid) -> str:
    """A field: ten lines of a row's name and its ten values, one character each."""
    lines = [*("".join(map(str, line)) for line in grid), *[""] * (SIDE - len(grid))]
    return "\n".join(f"{name}{line.ljust(SIDE, '.')}" for name, line in zip(ROW_NAMES, lines, strict=True))


def turned_cells(grid: Grid, quarters: int) -> list[list[Cell]]:
    """The cells of a grid as they lie after quarter turns clockwise."""
    rows = cell_rows(grid)
    for _ in range(quarters % 4):
        rows = [list(row) for row in zip(*rows[::-1], strict=True)]
    return rows


def cells_around(grid: Grid, cell: Cell) -> list[Cell | None]:
    """The neighbours to the right, down, left and up; None beyond the border."""
    found = [(cell[0] + row, cell[1] + column) for row, column in AROUND.values()]
    return [each if 0 <= each[0] < len(grid) and 0 <= each[1] < len(grid[0]) else None for each in found]
