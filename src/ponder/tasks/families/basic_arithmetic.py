"""Expressions with brackets and the four operations, reduced one operation at a time, folded into what is left."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd, isqrt
from random import Random

from ponder.tasks.families.working import long_multiplication
from ponder.tasks.families.working.columns import (
    difference,
    lowest_first,
    multiply,
    multiply_steps,
    signed_sum,
    times_digit_onto,
)
from ponder.tasks.families.working.family import ProblemFamily, beyond, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Fold, Problem

VARIED = ("What is {expression}?", "Compute {expression}.", "Evaluate {expression}.", "{expression} =")
COMPACT_DIGITS = 5
"""Factors of at most this many digits are multiplied in one context."""
LONGEST_NUMBER, LONGEST_FACTOR, LONGEST_SUM = 24, 10, 110
"""Digits; of a sum, the longest term's times terms and signs. Expressions that come to more are not drawn."""
LONG_THOUGHT = 350
"""Characters after which a division folds."""
WRONG_GUESS_PROBABILITY = 0.03
MISTAKE_PROBABILITY = 0.04


class BasicArithmetic(ProblemFamily):
    """Expressions of reasoning-gym's shapes: two to six terms of one to four digits up to level 0.5 (the default
    config), above it five to ten terms of two to five (its hard config)."""

    name = "basic_arithmetic"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        if hard:
            num_terms, digits = size_at(level, 5, 10), rng.randint(2, 5)
        else:
            num_terms, digits = size_at(level, 2, 6), rng.randint(1, 4)
        tokens: list[str] = []
        while not tokens or not within_reach(tokens):
            tokens = " ".join(draw_terms(rng, num_terms, digits)).replace("/ 0", "/ 1").split()
        question = self.word(rng, ("Calculate {expression}.",), VARIED)
        return self.problem(question, " ".join(tokens))

    def problem(self, template: str, expression: str) -> Problem:
        """The problem of an expression, tokens parted by spaces."""
        question, answer = template.format(expression=expression), str(value_of(expression.split()))
        return Problem(task=self.name, question=question, answer=answer, metadata={"expression": expression})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        """A context for each operation: what is computed, its working; the state is the expression with its value."""
        tokens = unbracket(str(problem.metadata["expression"]).split())
        folds = []
        while True:
            begin, end = next_operation(tokens)
            part = tokens[begin:end]
            thought = " ".join(part)
            for working, left in compute_part(part, rng):
                thought += "\n" + working
                if left:
                    folds.append(Fold(thought, " ".join(tokens) + "\n" + left))
                    thought = ""
            tokens = unbracket([*tokens[:begin], str(exact_value(part)), *tokens[end:]])
            if len(tokens) == 1:
                return Demonstration(reasoning=f"{thought}\n{tokens[0]}", answer=tokens[0], folds=tuple(folds))
            folds.append(Fold(thought, " ".join(tokens)))


def compute_part(part: list[str], rng: Random) -> Iterator[tuple[str, str]]:
    """The working of one product, one division, or one sum of signed terms: (thought, what follows the expression
    in a state). The last has no state."""
    if part[1] == "*":
        a, b = abs(int(part[0])), abs(int(part[2]))
        if max(a, b) < 10**COMPACT_DIGITS:
            slips = Slips(rng, SLIP_PROBABILITY / 2, multiply_steps(a, b))
            yield "\n".join(multiply(a, b, slips)[0]), ""
            return
        product = ""
        for thought, state in long_multiplication.contexts([a, b], rng, MISTAKE_PROBABILITY, long_multiplication.ROWS):
            yield thought.removeprefix("\n"), state.text
            product = state.sum
        yield long_multiplication.closing(product).removeprefix("\n"), ""
    elif part[1] == "/":
        yield from divide_in_contexts(int(part[0]), int(part[2]), rng)
    else:
        terms = signed_terms(part)
        yield "\n".join(signed_sum(terms, Slips(rng, SLIP_PROBABILITY / 2, 2 * len(terms)))[0]), ""


def divide_in_contexts(dividend: int, divisor: int, rng: Random) -> Iterator[tuple[str, str]]:
    """Rounded down: digit by digit, each guessed, multiplied and taken away; too much is seen by the borrow that is
    left over. The state holds the quotient's parts and the rest."""
    rest, by = abs(dividend), abs(divisor)
    slips = Slips(rng, SLIP_PROBABILITY / 2, 2 * len(str(by)))
    parts: list[int] = []
    lines: list[str] = []
    if by == 1:
        yield str(rest), ""
        return
    while rest >= by:
        if len("\n".join(lines)) > LONG_THOUGHT:
            yield "\n".join(lines), f"{' '.join(map(str, parts))}: {rest}"
            lines = []
        guess = largest_part(rest, by)
        digit, zeros = str(guess)[0], str(guess)[1:]
        if digit != "9" and rng.random() < WRONG_GUESS_PROBABILITY:
            digit = str(int(digit) + 1)
        steps, product = times_digit_onto(lowest_first(by), digit, "0" * len(str(by)), slips)
        product = zeros + (product[:-1] if product.endswith("0") else product)
        taken, left = difference(lowest_first(rest), product, slips)
        lines += [f"{rest}-{by}*{digit}{zeros}", f"{steps} > {product}", taken[0]]
        if left >= 0:
            rest = left
            parts.append(guess)
    end = f"{rest}<{by}" if rest else "0"
    quotient = sum(parts)
    lines.append(f"{end} {' '.join(map(str, parts or [0]))}={quotient}")
    if rest and (dividend < 0) != (divisor < 0):
        lines.append(f"-{quotient}-1={-quotient - 1}")
    yield "\n".join(lines), ""


def largest_part(a: int, b: int) -> int:
    """The highest digit of a // b, with its zeros: 765 // 36 = 21 gives 20."""
    quotient = str(a // b)
    return int(quotient[0]) * 10 ** (len(quotient) - 1)


def draw_terms(rng: Random, num_terms: int, digits: int) -> list[str]:
    """Tokens of an expression of the shapes that reasoning-gym draws; most divisions come out even."""
    num_left = rng.randint(1, num_terms)
    left: list[str] = []
    if num_left > 1 and rng.random() > 0.5:
        left = [rng.choice(("(", "-(")), *draw_terms(rng, num_left, digits), ")"]
    else:
        for i in range(num_left):
            left += [rng.choice("+-*")] if i else []
            left.append(str(rng.randint(-(10**digits) + 1, 10**digits - 1)))
    num_right = num_terms - num_left
    if not num_right:
        return left
    operator = rng.choice("+-*/")
    if operator != "/":
        return [*left, operator, *draw_terms(rng, num_right, digits)]
    try:
        dividend = value_of(left) if left[-1] == ")" else int(left[-1])
        right = draw_terms(rng, num_right - 1, digits) if num_right > 1 else []
        if right and right[-1] == ")":
            value = value_of(right)
            correction = rng.choice(divisors(gcd(dividend, value))) - value if value else 1
            return [*left, "/", *right[:-1], "+", str(correction), ")"]
    except ZeroDivisionError:
        return draw_terms(rng, num_terms, digits)
    divisor = rng.choice(divisors(dividend)) if dividend else rng.randint(1, 10**digits - 1)
    return [*left, "/", str(divisor), *(["+", *right] if right else [])]


def divisors(number: int) -> list[int]:
    """The divisors of a number; of one beyond 10^8 those that are small or leave a small quotient. Of 0: 1."""
    number = abs(number) or 1
    small = [d for d in range(1, min(isqrt(number), 10_000 if number < 10**8 else 1000) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def within_reach(tokens: list[str]) -> bool:
    """Whether no number of the working is longer than the working is made for, and nothing is divided by 0."""
    tokens = unbracket(tokens)
    while len(tokens) > 1:
        begin, end = next_operation(tokens)
        part = tokens[begin:end]
        if part[1] == "/" and part[2] == "0":
            return False
        if part[1] == "*" and len(part[2].strip("-")) > LONGEST_FACTOR:
            return False
        value = str(exact_value(part))
        if len(value) > LONGEST_NUMBER or len(part) * max(map(len, part)) > LONGEST_SUM:
            return False
        tokens = unbracket([*tokens[:begin], value, *tokens[end:]])
    return True


def value_of(tokens: list[str]) -> int:
    """The expression's value, by the same reductions as the demonstration."""
    tokens = unbracket(tokens)
    while len(tokens) > 1:
        begin, end = next_operation(tokens)
        tokens = unbracket([*tokens[:begin], str(exact_value(tokens[begin:end])), *tokens[end:]])
    return int(tokens[0])


def exact_value(part: list[str]) -> int:
    """One product, one division rounded down, or one sum of signed terms."""
    if part[1:2] == ["*"]:
        return int(part[0]) * int(part[2])
    if part[1:2] == ["/"]:
        return int(part[0]) // int(part[2])
    return sum(signed_terms(part))


def signed_terms(part: list[str]) -> list[int]:
    signs = [1, *(1 if sign == "+" else -1 for sign in part[1::2])]
    return [sign * int(term) for sign, term in zip(signs, part[::2], strict=True)]


def next_operation(tokens: list[str]) -> tuple[int, int]:
    """The slice to compute next: in the first innermost bracket, the first * or /, else the whole sum."""
    end = tokens.index(")") if ")" in tokens else len(tokens)
    begin = max((i + 1 for i in range(end) if tokens[i] in ("(", "-(")), default=0)
    for i in range(begin, end):
        if tokens[i] in ("*", "/"):
            return i - 1, i + 2
    return begin, end


def unbracket(tokens: list[str]) -> list[str]:
    """Brackets around a single number are dropped, their minus sign taken in."""
    tokens = list(tokens)
    i = 0
    while i + 2 < len(tokens):
        if tokens[i] in ("(", "-(") and tokens[i + 2] == ")":
            value = int(tokens[i + 1]) * (-1 if tokens[i] == "-(" else 1)
            tokens[i : i + 3] = [str(value)]
            i = max(0, i - 1)
        else:
            i += 1
    return tokens
