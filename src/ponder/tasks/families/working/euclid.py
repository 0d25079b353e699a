"""Euclid's algorithm on numbers of any length, lowest digit first, one digit of a quotient a line.

    5678-1234*2: 1002:53 2004:62 3006:71 4008:80 > 321

takes 2 * 4321 from 8765. A digit's step: the divisor's digit, the carry, the product (1*2+0=02); after `:` the upper
number's digit and what is left of it (5-2=3, lent a ten where needed). The carry that the next step shows is the
product's tens and what was lent. A guess that was too big leaves a carry at the end; one too small is mended by
the next line.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import lowest_first
from ponder.tasks.protocol import mistake

WRONG_GUESS_PROBABILITY = 0.05


def several(rng: Random, level: float) -> list[int]:
    """Three or four numbers from 1000 to at most 10,000: the hard configs of gcd and lcm, at levels above 0.5."""
    most = round(18_000 * level - 8000)
    return [rng.randint(1000, most) for _ in range(rng.randint(3, 4))]


def euclid(a: int, b: int, rng: Random) -> tuple[list[str], int]:
    """The lines of the working, the larger number first, and the greatest common divisor of a, b > 0."""
    a, b = max(a, b), min(a, b)
    lines = [f"{a} {b}"]
    while b > 1:
        while a >= b:
            shift = len(str(a)) - len(str(b))
            shift -= b * 10**shift > a
            shifted = b * 10**shift
            digit = a // shifted
            if rng.random() < WRONG_GUESS_PROBABILITY:
                guess = digit + 1 if digit == 1 or (digit < 9 and rng.random() < 0.5) else digit - 1
                lines.append(take_away(a, shifted, guess, mistake(str(guess))))
                if guess > digit:
                    lines.append(take_away(a, shifted, digit, str(digit)))
                    guess = digit
                digit = guess
            else:
                lines.append(take_away(a, shifted, digit, str(digit)))
            a -= digit * shifted
        a, b = b, a
    divisor = b or a
    return [*lines, f"gcd {divisor}"], divisor


def take_away(a: int, divisor: int, digit: int, shown: str) -> str:
    """One line: a - divisor * digit. `shown` is the digit as the head shows it."""
    top = lowest_first(a)
    below = lowest_first(divisor)
    steps, rest, carry = [], "", 0
    for a_i, b_i in zip(top, below.ljust(len(top), "0"), strict=True):
        product = int(b_i) * digit + carry
        left = (int(a_i) - product) % 10
        steps.append(f" {b_i}{carry}{product:02d}:{a_i}{left}")
        rest += str(left)
        carry = product // 10 + (int(a_i) < product % 10)
    end = "too big" if carry else rest.rstrip("0") or "0"
    return f"{top}-{below}*{shown}:{''.join(steps)} > {end}"
