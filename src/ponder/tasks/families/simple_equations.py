"""Linear equations in one unknown: isolated, the fraction of twos and fives freed, then divided lowest digit first.

Every division comes out, so its quotient can be had from the low end, without a guess: in a * x = n, where a ends in
1, 3, 7 or 9, the last digits of a and n settle the last digit of x. It is multiplied out and subtracted, the zero that
this leaves at the end is dropped, and so on. An a that ends in another digit is brought there first: both sides times
5 (an even digit) or times 2 (a five), and the zeros at the end of both dropped.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import add, highest_first, lowest_first, subtract, times_digit_onto
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Problem

GYM = (
    "Find the value of {variable} in the equation: {equation}",
    "Solve for {variable}: {equation}",
    "Determine the value of {variable} that satisfies: {equation}",
)
VARIED = ("{equation}\nWhat is {variable}?", "If {equation}, what is {variable}?", "Solve {equation} for {variable}.")
MAX_WORKING = 900
"""In characters, nearly each of which is one token. Longer ones (2 in 100) are drawn again."""


class SimpleEquations(ProblemFamily):
    """Level sets the terms, 2 to 4, joined from left to right by +, - and *. All values lie in 1 to 100."""

    name = "simple_equations"

    def sample(self, rng: Random, level: float) -> Problem:
        while True:
            factor, constant = linear(rng, size_at(level, 2, 4))
            value = rng.randint(1, 100)
            result = factor * value + constant
            if not factor:  # the dataset's 0 = 0: no answer can be found
                continue
            if len("\n".join(solve_equation(factor, constant, result, "x", Slips(rng, 0, 0)))) <= MAX_WORKING:
                break
        variable = rng.choice("abcdefghijklmnopqrstuvwxyz")
        question = self.word(rng, GYM, VARIED).format(
            variable=variable, equation=f"{left_side(factor, constant, variable)} = {result}"
        )
        metadata = {"factor": factor, "constant": constant, "result": result, "variable": variable}
        return Problem(task=self.name, question=question, answer=str(value), metadata=metadata)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        factor, constant = problem.metadata["factor"], problem.metadata["constant"]
        result, variable = problem.metadata["result"], problem.metadata["variable"]
        slips = Slips(rng, SLIP_PROBABILITY, 3 * len(str(result)))
        lines = solve_equation(factor, constant, result, variable, slips)
        return Demonstration(reasoning="\n".join(lines), answer=lines[-1])


def linear(rng: Random, num_terms: int) -> tuple[int, int]:
    """factor * x + constant, as the dataset draws it: one of the terms holds x, the operators work left to right."""
    place = rng.randrange(num_terms)
    total = (0, 0)
    for i in range(num_terms):
        number = rng.randint(1, 100)
        term = (number, 0) if i == place else (0, number)
        sign = rng.choices((1, -1, 0), (0.4, 0.4, 0.2))[0] if i else 1
        if sign:
            total = (total[0] + sign * term[0], total[1] + sign * term[1])
        else:
            total = (total[0] * term[1] + total[1] * term[0], total[1] * term[1])
    return total


def left_side(factor: int, constant: int, variable: str) -> str:
    """As sympy prints it: a negative term never stands first where the other is positive."""
    size = variable if abs(factor) == 1 else f"{abs(factor)}*{variable}"
    if factor < 0 < constant:
        return f"{constant} - {size}"
    tail = f" {'-' if constant < 0 else '+'} {abs(constant)}" if constant else ""
    return f"{'-' if factor < 0 else ''}{size}{tail}"


def solve_equation(factor: int, constant: int, result: int, variable: str, slips: Slips) -> list[str]:
    """The lines of the working; the last is the value."""
    if factor < 0:  # the other way round: every sign turns
        factor, constant, result = -factor, -constant, -result
    first, second = result, -constant  # their sum is factor * x
    if first < 0 or (first == 0 and second):
        first, second = second, first
    n = lowest_first(first)
    if not constant:
        lines = [f"{factor}*{variable} = {first}"]
    elif second > 0:
        line, n = add(n, lowest_first(second), slips)
        lines = [f"{factor}*{variable} = {first}+{second}", line]
    else:
        line, n = subtract(n, lowest_first(-second), slips)
        lines = [f"{factor}*{variable} = {first}-{-second}", line]
    a, n = lowest_first(factor), n.rstrip("0")
    while a != "1" and a[0] in "024568":
        lines.append(f"{a} {n}")
        if a[0] != "0":
            by = "2" if a[0] == "5" else "5"
            row, a = times(a, by, slips)
            lines.append(row)
            row, n = times(n, by, slips)
            lines.append(row)
        a, n = a[1:], n[1:]
    return lines + divide_exactly(a, n, slips)


def times(a: str, digit: str, slips: Slips) -> tuple[str, str]:
    """a * digit, lowest first, as a line and its digits."""
    steps, digits = times_digit_onto(a, digit, "0" * len(a), slips)
    digits = digits.removesuffix("0") if len(digits) > len(a) else digits
    return f"{a}*{digit}: {steps} > {digits}", digits


def divide_exactly(a: str, n: str, slips: Slips) -> list[str]:
    """n / a, which comes out, both lowest first; a is 1 or ends in 1, 3, 7 or 9."""
    if a == "1":
        return [f"{a} {n}", highest_first(n)]
    lines, quotient = [], ""
    while n:
        digit = next(str(q) for q in range(10) if int(a[0]) * q % 10 == int(n[0]))
        lines.append(f"{a} {n} by {digit}")
        if digit != "0":
            row, product = times(a, digit, slips)
            line, rest = subtract(n, product, slips)
            lines += [row, line]
            n = rest.rstrip("0")
        quotient, n = quotient + digit, n[1:]
    return [*lines, quotient, highest_first(quotient)]
