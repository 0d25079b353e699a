"""Expressions with brackets and the four operations, reduced one operation at a time."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.columns import Slips, multiply, multiply_steps, signed_sum
from ponder.tasks.families.family import SLIP_PROBABILITY, Family, size_at
from ponder.tasks.families.gcd import largest_part, take_away
from ponder.tasks.protocol import Demonstration, Problem

LONGEST_REASONING = 400
"""Characters (about as many tokens). Longer demonstrations are not drawn: they would not fit the rows of training."""

VARIED = ("What is {expression}?", "Compute {expression}.", "Evaluate {expression}.", "{expression} =")


class BasicArithmetic(Family):
    """Expressions of reasoning-gym's shapes; level sets the number of terms."""

    name = "basic_arithmetic"

    def sample(self, rng: Random, level: float) -> Problem:
        while True:
            tokens = draw_terms(rng, size_at(level, 2, 6), digits=rng.randint(1, 4))
            if len(reasoning_for(tokens, Random(0))) <= LONGEST_REASONING:
                break
        expression = " ".join(tokens)
        question = self.word(rng, ("Calculate {expression}.",), VARIED).format(expression=expression)
        answer = str(value_of(tokens))
        return Problem(task=self.name, question=question, answer=answer, metadata={"expression": expression})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        tokens = str(problem.metadata["expression"]).split()
        return Demonstration(reasoning=reasoning_for(tokens, rng), answer=problem.answer)


def reasoning_for(tokens: list[str], rng: Random) -> str:
    """The expression, then in turn: the operation that is next, its working, and the expression with its value."""
    lines = [" ".join(tokens)]
    tokens = unbracket(tokens)
    while len(tokens) > 1:
        begin, end = next_operation(tokens)
        part = tokens[begin:end]
        working, value = reckon(part, rng)
        tokens = unbracket([*tokens[:begin], str(value), *tokens[end:]])
        lines += [" ".join(part), *working, " ".join(tokens)]
    return "\n".join(lines)


def draw_terms(rng: Random, num_terms: int, digits: int) -> list[str]:
    """Tokens of an expression of the shapes that reasoning-gym draws; every division comes out even."""
    num_left = rng.randint(1, num_terms)
    left: list[str] = []
    if num_left > 1 and rng.random() > 0.5:
        left = [rng.choice(("(", "-(")), *draw_terms(rng, num_left, digits), ")"]
    else:
        for i in range(num_left):
            left += [rng.choice("+-*")] if i else []
            left.append(str(rng.randint(-(10**digits) + 1, 10**digits - 1)))
    if num_left == num_terms:
        return left
    operator = rng.choice("+-*/")
    if operator != "/":
        return [*left, operator, *draw_terms(rng, num_terms - num_left, digits)]
    dividend = value_of(left) if left[-1] == ")" else int(left[-1])
    left += ["/", str(small_divisor(rng, dividend, digits))]
    return [*left, "+", *draw_terms(rng, num_terms - num_left - 1, digits)] if num_terms - num_left > 1 else left


def small_divisor(rng: Random, dividend: int, digits: int) -> int:
    """A divisor below 10 ** digits, or the dividend itself."""
    divisors = [d for d in range(1, min(abs(dividend) + 1, 10**digits)) if dividend % d == 0]
    if 0 < abs(dividend) < 10**6:
        divisors.append(abs(dividend))
    return rng.choice(divisors) if divisors else rng.randint(1, 10**digits - 1)


def value_of(tokens: list[str]) -> int:
    """The expression's value, by the same reductions as the demonstration."""
    tokens = unbracket(tokens)
    while len(tokens) > 1:
        begin, end = next_operation(tokens)
        tokens = unbracket([*tokens[:begin], str(exact_value(tokens[begin:end])), *tokens[end:]])
    return int(tokens[0])


def exact_value(part: list[str]) -> int:
    """One product, one even division, or one sum of signed terms."""
    if part[1:2] == ["*"]:
        return int(part[0]) * int(part[2])
    if part[1:2] == ["/"]:
        return int(part[0]) // int(part[2])
    signs = [1, *(1 if sign == "+" else -1 for sign in part[1::2])]
    return sum(sign * int(term) for sign, term in zip(signs, part[::2], strict=True))


def next_operation(tokens: list[str]) -> tuple[int, int]:
    """The slice to reckon next: in the first innermost bracket, the first * or /, else the whole sum."""
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


def reckon(part: list[str], rng: Random) -> tuple[list[str], int]:
    """The working of one product, one even division, or one sum of signed terms, and its value."""
    value = exact_value(part)
    if part[1] == "*":
        a, b = abs(int(part[0])), abs(int(part[2]))
        return multiply(a, b, Slips(rng, SLIP_PROBABILITY / 2, multiply_steps(a, b)))[0], value
    if part[1] == "/":
        rest, divisor = abs(int(part[0])), abs(int(part[2]))
        lines = []
        while rest:
            guess = largest_part(rest, divisor)
            lines.append(take_away(rest, divisor, guess))
            rest -= guess * divisor
        return lines, value
    signs = [1, *(1 if sign == "+" else -1 for sign in part[1::2])]
    terms = [sign * int(term) for sign, term in zip(signs, part[::2], strict=True)]
    return signed_sum(terms, Slips(rng, SLIP_PROBABILITY / 2, 2 * len(terms)))[0], value
