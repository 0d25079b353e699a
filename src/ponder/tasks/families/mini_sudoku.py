"""4x4 sudokus: every cell has a letter; a cell whose row, column and box leave one number gets it.

This alone solves every puzzle of the dataset. Which cell to look at is a proposal: one that leaves several numbers is
passed over (`no`), and another is looked at.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Problem

CELLS = "abcdefghijklmnop"
VAIN_LOOK_PROBABILITY = 0.15


def _peers(cell: int) -> list[int]:
    """The seven cells that share a line with a cell or its box: the row's, the column's, the box's last."""
    row, column = divmod(cell, 4)
    in_row = [4 * row + c for c in range(4)]
    in_column = [4 * r + column for r in range(4)]
    across = 4 * (row ^ 1) + (column ^ 1)  # the only cell of the box in another row and another column
    return [each for each in [*in_row, *in_column, across] if each != cell]


PEERS = [_peers(cell) for cell in range(16)]


class MiniSudoku(FromGym):
    """Six to ten empty cells (the hard config, though the easier one) below a level of a half, else eight to twelve."""

    name = gym_name = "mini_sudoku"
    configs = ({"min_empty": 6, "max_empty": 10}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        board = [number for row in self.details(problem)["puzzle"] for number in row]
        given, looks = grid(board), []
        while 0 in board:
            left = {cell: candidates(board, cell) for cell in range(16) if not board[cell]}
            clear = [cell for cell in left if len(left[cell]) == 1]
            unclear = [cell for cell in left if len(left[cell]) == 2]
            if unclear and rng.random() < VAIN_LOOK_PROBABILITY:
                looks.append(f"{look(board, rng.choice(unclear))} no")
            cell = rng.choice(clear)
            seen = look(board, cell)
            board[cell] = left[cell][0]
            looks.append(f"{seen} so {CELLS[cell]}{board[cell]}")
        answer = "\n".join(" ".join(map(str, board[row : row + 4])) for row in range(0, 16, 4))
        looked = noticed_slip("\n".join(looks), "(?<= [a-p])[1-4_](?= )", "_1234", rng)
        return Demonstration(reasoning="\n".join([*given, looked, *grid(board)]), answer=answer)


def candidates(board: list[int], cell: int) -> list[int]:
    """The numbers that no peer of the cell has."""
    return [number for number in range(1, 5) if all(board[peer] != number for peer in PEERS[cell])]


def look(board: list[int], cell: int) -> str:
    """A cell's peers, and what they leave."""
    peers = " ".join(named(board, peer) for peer in PEERS[cell])
    return f"{CELLS[cell]}: {peers} left {' '.join(map(str, candidates(board, cell)))}"


def named(board: list[int], cell: int) -> str:
    return f"{CELLS[cell]}{board[cell] or '_'}"


def grid(board: list[int]) -> list[str]:
    """Four lines with every cell after its letter."""
    return [" ".join(named(board, cell) for cell in range(row, row + 4)) for row in range(0, 16, 4)]
