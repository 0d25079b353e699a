"""One step of the Game of Life, row by row: sums of three down a column, then of three such sums side by side.

The board is written with its last row before the first and its first after the last, and the column sums likewise with
their neighbours round the edge. A cell lives if its sum, itself included, is 3, or is 4 and it lived.
"""

from __future__ import annotations

import re
from random import Random

from ponder.tasks.families.working.family import ScoredByGym
from ponder.tasks.families.working.grids import ROW_NAMES
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Problem


class GameOfLife(ScoredByGym):
    """At most ten living cells (the default config), above a level of a half at most forty; always ten by ten."""

    name = gym_name = "game_of_life"
    configs = ({}, {"filled_cells": 40})
    default_level = 0.49

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        board = life_board(problem.question)
        size = len(board)
        lines = [f"{ROW_NAMES[row % size]}{''.join(map(str, board[row % size]))}" for row in range(-1, size + 1)]
        after = []
        for row in range(size):
            columns = [sum(board[(row + d) % size][c % size] for d in (-1, 0, 1)) for c in range(-1, size + 1)]
            sums = [sum(columns[c : c + 3]) for c in range(size)]
            after.append([int(n == 3 or (n == 4 and alive == 1)) for n, alive in zip(sums, board[row], strict=True)])
            three, all_nine, living = ("".join(map(str, each)) for each in (columns, sums, after[-1]))
            summed = noticed_slip(f"{ROW_NAMES[row]} {three}", r"\d", "0123", rng)
            lines += [summed, f"{ROW_NAMES[row]} {all_nine}", f"{ROW_NAMES[row]} {living}"]
        answer = f"[{','.join('[' + ','.join(map(str, line)) + ']' for line in after)}]"
        return Demonstration(reasoning="\n".join(lines), answer=answer)


def life_board(question: str) -> list[list[int]]:
    """The board that a question shows, which stands after its empty line."""
    rows = re.findall(r"\[([01](?:,[01])*)\]", question.split("\n\n")[1])
    return [[int(value) for value in row.split(",")] for row in rows]
