"""How many primes lie between two numbers: a table from memory, the primes below every hundred, and in each hundred.

`6248: 6200 808, 11 809, 17 810, 29 811, 47 812, 57 no` counts the primes below 6248: 808 lie below 6200, 6211 is the
next. What is below the first number is taken from what is not above the last.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from random import Random

from ponder.tasks.families.working.columns import difference, lowest_first
from ponder.tasks.families.working.family import ProblemFamily, beyond
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Problem

GYM = ("Count how many prime numbers there are between {start} and {end} (inclusive) ?",)
VARIED = ("How many primes are there from {start} to {end}?",)
_DEFAULT_MOST, _HARD_MOST = 10_000, 50_000


class CountPrimes(ProblemFamily):
    """Numbers up to 10,000 at level 0.5 (the default config), from 10,000 to 50,000 above (the hard one).

    Half of the problems draw both ends evenly, so that every hundred of the table is met.
    """

    name = "count_primes"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        low, most = (_DEFAULT_MOST, _HARD_MOST) if hard else (1, max(100, round(level * _DEFAULT_MOST)))
        start = rng.randint(low, most)
        end = rng.randint(start, most)
        if rng.random() < 0.5:
            start, end = sorted((start, rng.randint(low, most)))
        if not hard and rng.random() < 0.05:
            start = 1
        question = self.word(rng, GYM, VARIED).format(start=start, end=end)
        answer = bisect_left(_primes(), end + 1) - bisect_left(_primes(), start)
        return Problem(task=self.name, question=question, answer=str(answer), metadata={"start": start, "end": end})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        start, end = problem.metadata["start"], problem.metadata["end"]
        counts = [bisect_left(_primes(), bound) for bound in (start, end + 1)]
        slips = Slips(rng, SLIP_PROBABILITY, 4)
        lines = [f"{start} to {end}", _below(start), _below(end + 1)]
        lines += difference(lowest_first(counts[1]), lowest_first(counts[0]), slips)[0]
        return Demonstration(reasoning="\n".join([*lines, problem.answer]), answer=problem.answer)


@cache
def _primes() -> list[int]:
    """All primes that the table needs: those below the end of the last hundred."""
    most = _HARD_MOST + 200
    sieve = bytearray([1]) * most
    sieve[:2] = b"\0\0"
    for number in range(2, int(most**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, most, number)))
    return [number for number in range(most) if sieve[number]]


def _below(bound: int) -> str:
    """The primes below a number: those below its hundred, then one by one, to the first that is not below."""
    hundred = bound - bound % 100
    count = bisect_left(_primes(), hundred)
    text = f"{bound}: {hundred} {count}"
    for prime in _primes()[count:]:
        if prime >= hundred + 100:
            return f"{text}, end"
        if prime >= bound:
            return f"{text}, {prime % 100:02d} no"
        count += 1
        text += f", {prime % 100:02d} {count}"
    raise AssertionError("the table ends before the number")
