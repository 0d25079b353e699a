"""One-bits of a number: divided by eight again and again, digit by digit, and the remainders' bits summed.

The digits are labelled from the highest on, a b c …, the lowest z. A step is its label, the digit, the quotient's digit
and the remainder: ` c480` after a remainder of 6 says 64 = 8*8+0. Each row divides the quotient's digits of the row
before, found by their labels.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY
from ponder.tasks.protocol import Demonstration, Problem, mistake

GYM = ("How many 1 bits are there in the binary representation of the number {number}?",)
VARIED = (
    "How many ones does {number} have in binary?",
    "Count the 1 bits of {number}.",
    "What is the popcount of {number}?",
    "Write {number} in binary. How many digits are 1?",
)
LABELS = "abcdefghijklmnopqrstuvwxy"


class CountBits(ProblemFamily):
    """Level sets the bits, up to 31: reasoning-gym's default. Its hard config is easier."""

    name = "count_bits"

    def sample(self, rng: Random, level: float) -> Problem:
        number = rng.randint(1, 2 ** size_at(level, 1, 31) - 1)
        question = self.word(rng, GYM, VARIED).format(number=number)
        return Problem(task=self.name, question=question, answer=str(number.bit_count()), metadata={"number": number})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        digits = [int(d) for d in str(problem.metadata["number"])]
        labels = [*LABELS[: len(digits) - 1], "z"]
        lines = ["".join(f" {label}:{digit}" for label, digit in zip(labels, digits, strict=True))]
        # A number of n digits has at least n rows.
        slip_row = rng.randint(1, len(digits)) if rng.random() < SLIP_PROBABILITY else 0
        total = 0
        while digits != [0]:
            row, digits, remainder = divide_by_eight(labels, digits, rng if slip_row == len(lines) else None)
            bits = remainder.bit_count()
            lines.append(f"{row} {total}+{bits}={total + bits}")
            total += bits
            if digits[0] == 0 and len(digits) > 1:
                labels, digits = labels[1:], digits[1:]
        return Demonstration(reasoning="\n".join([*lines, str(total)]), answer=str(total))


def divide_by_eight(labels: list[str], digits: list[int], slip: Random | None) -> tuple[str, list[int], int]:
    """One row: its steps (one of them first wrong, where `slip` draws it), the quotient's digits, the remainder."""
    at = slip.randrange(len(digits)) if slip else -1
    steps, quotient, remainder = [], [], 0
    for i, (label, digit) in enumerate(zip(labels, digits, strict=True)):
        q, r = divmod(10 * remainder + digit, 8)
        if slip and i == at:
            wrong = (
                f"{(q + slip.choice((1, 9))) % 10}{r}" if slip.random() < 0.5 else f"{q}{(r + slip.randint(1, 7)) % 8}"
            )
            steps.append(f" {label}{digit}{mistake(wrong)} no")
        steps.append(f" {label}{digit}{q}{r}")
        quotient.append(q)
        remainder = r
    return "".join(steps), quotient, remainder
