"""Numbers from one base to another: into decimal by Horner's rule, then divided by the target base again and again."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import divide, lowest_first
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "Your task is to convert a number between two different bases.\n\n"
    "If the target base is > 10, use lowercase letters a-z for digits above 9.\n\n"
    "Now, convert the {source} number {digits} to {target}\n",
)
VARIED = (
    "Convert the {source} number {digits} to {target}.",
    "Write {digits} ({source}) in {target}.",
    "What is {digits} from {source} in {target}?",
)
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
SOURCE_LABELS, TARGET_LABELS = "abcdefghij", "klmnopqrst"  # ten digits: up to 1023 in base 2
STEPS = 20  # about as many as a demonstration has; a slip is drawn among them


class BaseConversion(ProblemFamily):
    """Up to level 0.5 bases 2 to 16 and values up to 1000 (reasoning-gym's default), above it bases 9 to 18 and values
    up to 100,000 (its hard config)."""

    name = "base_conversion"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        if level <= self.default_level:
            value = rng.randint(0, round(10 ** (6 * level)))
            source, target = rng.sample(range(2, 17), 2)
        else:
            highest = round(10 ** (1 + 4 * level))
            value = rng.randint(highest // 10, highest)
            source, target = rng.sample(range(9, 19), 2)
        digits, answer = in_base(value, source), in_base(value, target)
        template = self.word(rng, GYM, VARIED)
        return Problem(
            task=self.name,
            question=template.format(digits=digits, source=base_name(source), target=base_name(target)),
            answer=answer,
            metadata={"value": value, "source": source, "target": target},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        value, source, target = (int(problem.metadata[key]) for key in ("value", "source", "target"))
        slips = Slips(rng, SLIP_PROBABILITY, STEPS)
        lines = [f"base {source} to {target}"]
        if source != 10:
            lines += to_decimal(in_base(value, source), source, slips)
        lines.append(str(value))
        if target != 10:
            lines += from_decimal(value, target, slips)
        answer = in_base(value, target)
        return Demonstration(reasoning="\n".join(lines), answer=answer, pieces=tuple(answer))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Digit for digit, as reasoning-gym does."""
        return exact(problem.answer, answer)

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip()


def base_name(base: int) -> str:
    return {2: "binary", 16: "hexadecimal"}.get(base, f"base-{base}")


def in_base(value: int, base: int) -> str:
    digits = ""
    while value:
        value, digit = divmod(value, base)
        digits = DIGITS[digit] + digits
    return digits or "0"


def to_decimal(digits: str, base: int, slips: Slips) -> list[str]:
    """The labelled digits as decimal numbers, then for each but the first: the sum so far (lowest digit first) times
    the base, plus the digit."""
    values = [DIGITS.index(digit) for digit in digits]
    labels = SOURCE_LABELS[: len(values)]
    lines = ["".join(f" {label}={digit}" for label, digit in zip(labels, values, strict=True))]
    total = lowest_first(values[0])
    lines.append(f" a={values[0]} > {total}")
    for label, value in zip(labels[1:], values[1:], strict=True):
        steps, row, carry = [], "", str(value)
        for digit in total:
            result = f"{int(digit) * base + int(carry):0{len(str(base)) + 1}d}"
            steps.append(f" {digit}*{base}+{carry}={slips.result(result)}")
            row, carry = row + result[-1], result[:-1]
        lines.append(f" {label}={value} {total}:{''.join(steps)} > ")
        total = row + carry[::-1].rstrip("0")
        lines[-1] += total
    return lines


def from_decimal(value: int, base: int, slips: Slips) -> list[str]:
    """A division for each digit, the lowest first, then the digits by their labels, the highest first."""
    lines: list[str] = []
    found: list[str] = []
    while value or not found:
        label = TARGET_LABELS[len(found)]
        found.append(f" {label}={DIGITS[value % base]}")
        lines.append(f"{divide(value, base, slips)}{found[-1]} > {value // base}")
        value //= base
    return [*lines, "".join(reversed(found))]
