"""Matrices changed again and again: one operation a thought, the matrix after it in the state with fresh names.

An operation's lines have the cells where they come to lie, under the names they had before, with their new values. The
state begins with the operations that are left, in short: `90` degrees, mirrored `h v d c`, `map 8 9`, `zero 3`,
`crop 1-3 2-5`, `rows 2` and `columns 3` for every second row and third column removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.grids import Cell, Grid, cell_name, cell_rows, named_rows, turned_cells
from ponder.tasks.protocol import Demonstration, Fold, Problem

MIRRORS = {"hmirror": "h", "vmirror": "v", "dmirror": "d", "cmirror": "c"}

Rows = list[list[Cell]]


class ManipulateMatrix(FromGym):
    """One to three operations on up to five rows and columns, then up to ten on up to ten (the default config)."""

    name = gym_name = "manipulate_matrix"
    configs = ({"max_rows": 5, "max_cols": 5, "max_transforms": 3}, {"max_transforms": 4}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        matrix, operations = details["matrix"], details["operations"]
        codes = [_code(each) for each in operations]
        folds, lines = [], [", ".join(codes), named_rows(matrix)]
        for number, operation in enumerate(operations):
            rows = _moved(matrix, operation)
            changed = [[_changed(matrix[r][c], operation) for r, c in row] for row in rows]
            lines.append(codes[number])
            lines += [
                " ".join(f"{cell_name(cell)}{value}" for cell, value in zip(row, values, strict=True))
                for row, values in zip(rows, changed, strict=True)
            ]
            matrix = changed
            if number < len(operations) - 1:
                folds.append(Fold("\n".join(lines), f"{', '.join(codes[number + 1 :])}\n{named_rows(matrix)}"))
                lines = []
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer, folds=tuple(folds))


def _code(operation: Mapping[str, object]) -> str:
    match operation["transform"]:
        case "rotate":
            return str(operation["degrees"])
        case "map":
            return f"map {operation['from']} {operation['to']}"
        case "zero_divisible":
            return f"zero {operation['k']}"
        case "crop":
            rows, columns = (f"{operation[f'{k}_start']}-{operation[f'{k}_end']}" for k in ("row", "col"))
            return f"crop {rows} {columns}"
        case "remove_every_nth_row":
            return f"rows {operation['n']}"
        case "remove_every_nth_col":
            return f"columns {operation['n']}"
    return MIRRORS[str(operation["transform"])]


def _moved(matrix: Grid, operation: Mapping[str, object]) -> Rows:
    """The cells that are left, where they come to lie."""
    rows = cell_rows(matrix)
    match operation["transform"]:
        case "rotate":
            return turned_cells(matrix, int(str(operation["degrees"])) // 90)
        case "hmirror":
            return rows[::-1]
        case "vmirror":
            return [row[::-1] for row in rows]
        case "dmirror":
            return [list(row) for row in zip(*rows, strict=True)]
        case "cmirror":
            return [list(row)[::-1] for row in zip(*rows, strict=True)][::-1]
        case "crop":
            top, bottom, left, right = (
                int(str(operation[k])) for k in ("row_start", "row_end", "col_start", "col_end")
            )
            return [row[left - 1 : right] for row in rows[top - 1 : bottom]]
        case "remove_every_nth_row":
            return [row for number, row in enumerate(rows, 1) if number % int(str(operation["n"]))]
        case "remove_every_nth_col":
            return [[cell for number, cell in enumerate(row, 1) if number % int(str(operation["n"]))] for row in rows]
    return rows


def _changed(value: int, operation: Mapping[str, object]) -> int:
    match operation["transform"]:
        case "map":
            return int(str(operation["to"])) if value == operation["from"] else value
        case "zero_divisible":
            return 0 if value % int(str(operation["k"])) == 0 else value
    return value
