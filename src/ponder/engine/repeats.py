"""Generations that go round in circles: the same run of tokens again and again, or the same state after every fold."""

from __future__ import annotations

from collections.abc import Sequence

TIMES = 4
"""How often a run of tokens, or a state, must have come."""
LEAST = 64
"""Tokens that the repeated runs must fill together: short runs, such as zeros, may well come four times."""
EVERY = 8
"""Tokens between two looks."""


def repeats_itself(tokens: Sequence[int], begin: int, longest: int) -> bool:
    """Whether `tokens`, from `begin` on, end in a run of at most `longest` tokens that came TIMES times in a row."""
    end = len(tokens)
    for length in range(1, min(longest, (end - begin) // TIMES) + 1):
        if tokens[end - 1] != tokens[end - 1 - length] or tokens[end - 2] != tokens[end - 2 - length]:
            continue
        first = end - max(TIMES * length, LEAST)
        if first >= begin and tokens[first : end - length] == tokens[first + length : end]:
            return True
    return False
