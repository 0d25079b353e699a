"""Counts of things that rules turn into others: halving, taking the smaller, and the digits' order, step by step.

Inside the working a count's digits stand lowest first (`columns.py`); what is compared or halved stands highest first.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import add, lowest_first, subtract
from ponder.tasks.families.working.comparing import verdicts
from ponder.tasks.families.working.family import beyond, size_at
from ponder.tasks.families.working.slips import Slips


def count_at(rng: Random, level: float, default_level: float) -> int:
    """A count from 0 to at most 5 up to the default level, above it from half of at most 100 up."""
    hard, level = beyond(level, default_level)
    if not hard:
        return rng.randint(0, size_at(level, 1, 5))
    most = size_at(level, 6, 100)
    return rng.randint(most // 2, most)


def halve(count: int) -> str:
    """Digit by digit from the highest: `93: 9/2=4 1 13/2=6 1 > 64 1`, the half lowest first, and what is left over."""
    rest = 0
    steps: list[str] = []
    for digit in str(count):
        value = 10 * rest + int(digit)
        rest = value % 2
        steps.append(f"{digit if len(steps) == 0 else value}/2={value // 2} {rest}")
    return f"{count}: {' '.join(steps)} > {lowest_first(count // 2)} {rest}"


def smaller(a: int, b: int) -> str:
    """Both padded to one width and compared place by place: `146 096 = > 96`; of equals, either."""
    width = max(len(str(a)), len(str(b)))
    x, y = str(a).zfill(width), str(b).zfill(width)
    return f"{x} {y}{verdicts(x, y)} least {min(a, b)}"


def plus(name: str, a: int, b: int, slips: Slips) -> str:
    """a + b, ending in the new count after its name, where the next look-up finds it: `X 871+33: … > 112 X 211`."""
    return f"{name} {add(lowest_first(a), lowest_first(b), slips)[0]} {name} {a + b}"


def minus(name: str, a: int, b: int, slips: Slips) -> str:
    """a - b for a >= b. The steps' digits may have zeros on the high side, the count after the name has none."""
    return f"{name} {subtract(lowest_first(a), lowest_first(b), slips)[0]} {name} {a - b}"
