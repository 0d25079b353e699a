"""Swaps that make a string of bits alternate: two bits at a time, with what differs from 01, ones and zeros so far.

`00 x1 n0 z2` after the first two bits: one differs, no ones, two zeros. Then the counts say with which bit the string
may begin, and half of what differs is swapped.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Problem


class BinaryAlternation(FromGym):
    """Four to ten bits, then ten to thirty (the default config)."""

    name = gym_name = "binary_alternation"
    configs = ({"min_n": 4, "max_n": 10}, {}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        bits: str = self.details(problem)["string"]
        differing = ones = zeros = 0
        steps = []
        for at in range(0, len(bits), 2):
            pair = bits[at : at + 2]
            differing += sum(bit != wanted for bit, wanted in zip(pair, "01", strict=False))
            ones, zeros = ones + pair.count("1"), zeros + pair.count("0")
            steps.append(f"{pair} x{differing} n{ones} z{zeros}")
        walk = noticed_slip("\n".join(steps), r"(?<=x)\d+(?= n)", [str(n) for n in range(30)], rng)
        last, swaps = _verdict(differing, ones, zeros)
        return Demonstration(reasoning=f"{walk}\n{last}", answer=str(swaps))


def _verdict(differing: int, ones: int, zeros: int) -> tuple[str, int]:
    """What follows from the counts, and the number of swaps; -1 where no order alternates."""
    head, length = f"n{ones} z{zeros}", ones + zeros
    if abs(ones - zeros) > 1:
        return f"{head} apart {abs(ones - zeros)} so -1", -1
    other = f"{length}-{differing}={length - differing}"
    if ones == zeros:
        least = min(differing, length - differing)
        return f"{head} equal {length}: {differing} or {other} least {least} half {least // 2}", least // 2
    if ones < zeros:
        return f"{head} begins 0: {differing} half {differing // 2}", differing // 2
    return f"{head} begins 1 {length}: {other} half {(length - differing) // 2}", (length - differing) // 2
