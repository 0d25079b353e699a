"""Countdown: reach a target with all the numbers. Plans are tried one after the other until one comes out.

A plan joins no pair, or one pair by * or /, and then asks which values to subtract: with S the sum of all values and
T the target, those that sum to (S - T) / 2.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, permutations
from random import Random

from ponder.tasks.families.family import Family, size_at
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem

FORMAT = """{question}

Final answer format instructions:
1. Provide your solution as a arithmetic expression (no '=' sign).
2. Do not include the target number in the expression.
3. Use '*' for multiplication.
4. Use '/' for division.
5. Do not include any other text or formatting.
"""
GYM = (
    "Using all the numbers {numbers}, create an expression that equals {target}.\nYou can only use each number once.",
    "Find a way to make {target} using all of these numbers: {numbers}.\nEach number can only be used once.",
    "Calculate {target} using all of these numbers: {numbers}.\nEach number may be used at most once.",
)
VARIED = ("Make {target} from the numbers {numbers}.", "Use {numbers} to reach {target}.")
MAX_WRONG_PLANS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """Values to be added or subtracted, each with the expression that makes it."""

    values: tuple[int, ...]
    expressions: tuple[str, ...]

    def subtracted(self, target: int) -> tuple[int, ...] | None:
        """The positions to subtract (not all of them), as few as possible; None: this plan cannot reach the target."""
        twice = sum(self.values) - target
        if twice < 0 or twice % 2:
            return None
        for size in range(len(self.values)):
            for chosen in combinations(range(len(self.values)), size):
                if 2 * sum(self.values[i] for i in chosen) == twice:
                    return chosen
        return None

    def working(self, target: int) -> str:
        """The plan's sum step by step, and the half of what is too much."""
        total, steps = self.values[0], []
        for value in self.values[1:]:
            steps.append(f"{total}+{value}={total + value}")
            total += value
        joined = [e for e in self.expressions if "*" in e or "/" in e]
        head = [f"{e}={self.values[self.expressions.index(e)]}" for e in joined]
        line = " ".join([*head, *steps])
        if total < target:
            return f"{line} less"
        twice = total - target
        line = f"{line} {total}-{target}={twice}"
        return f"{line} odd" if twice % 2 else f"{line} half {twice // 2}"


def plans(numbers: list[int]) -> Iterator[Plan]:
    """The plain plan, then every pair joined by * or, where it is even, by /."""
    yield Plan(tuple(numbers), tuple(map(str, numbers)))
    for i, j in permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        if i < j:
            yield Plan((a * b, *rest), (f"{a}*{b}", *map(str, rest)))
        if a % b == 0 and b > 1:
            yield Plan((a // b, *rest), (f"{a}/{b}", *map(str, rest)))


class Countdown(Family):
    """Four to six numbers up to 100, targets from 100 to 999; only problems that a plan solves are drawn."""

    name = "countdown"

    def sample(self, rng: Random, level: float) -> Problem:
        while True:
            numbers = [rng.randint(1, 100) for _ in range(size_at(level, 4, 6))]
            drawn = list(plans(numbers))
            plan = drawn[0] if rng.random() < 0.4 else rng.choice(drawn)
            target = sum(value * rng.choice((1, 1, -1)) for value in plan.values)
            if 100 <= target <= 999 and plan.subtracted(target) is not None:
                break
        listed = ", ".join(map(str, numbers))
        question = self.word(rng, GYM, VARIED)
        wording = FORMAT.format(question=question) if question in GYM else question
        return Problem(
            task=self.name,
            question=wording.format(numbers=listed, target=target),
            answer=answer_of(plan, target),
            metadata={"numbers": numbers, "target": target},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        numbers: list[int] = problem.metadata["numbers"]
        target: int = problem.metadata["target"]
        plain, *joined = plans(numbers)
        lines = [f"{' '.join(map(str, numbers))} to {target}"]
        tried = [plain]
        if plain.subtracted(target) is None:
            good = [plan for plan in joined if plan.subtracted(target) is not None]
            bad = [plan for plan in joined if plan.subtracted(target) is None]
            tried += rng.sample(bad, min(len(bad), rng.randrange(MAX_WRONG_PLANS + 1)))
            tried.append(good[0])
        for plan in tried:
            chosen = plan.subtracted(target)
            line = plan.working(target)
            if chosen is None:
                lines.append(line if line.endswith(("less", "odd")) else f"{line} no")
            else:
                lines.append(f"{line} is {'+'.join(str(plan.values[i]) for i in chosen) or 0}")
        answer = answer_of(tried[-1], target)
        return Demonstration(reasoning="\n".join(lines), answer=answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 when the expression uses every number once and equals the target."""
        numbers: list[int] = problem.metadata["numbers"]
        try:
            value, used = evaluate_expression(answer)
        except (ValueError, SyntaxError, ZeroDivisionError, RecursionError) as error:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=f"not an arithmetic expression: {error}")
        if sorted(used) != sorted(numbers):
            return Grade(score=0.0, why=f"uses {sorted(used)}, not {sorted(numbers)}")
        hit = value == problem.metadata["target"]
        return Grade(score=float(hit), why="" if hit else f"equals {value}")

    def same(self, a: str, b: str) -> bool:
        return "".join(a.split()) == "".join(b.split())


def answer_of(plan: Plan, target: int) -> str:
    """The expression: what is added first, then what is subtracted."""
    chosen = plan.subtracted(target) or ()
    added = [e for i, e in enumerate(plan.expressions) if i not in chosen]
    return " + ".join(added) + "".join(f" - {plan.expressions[i]}" for i in chosen)


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def evaluate_expression(text: str) -> tuple[Fraction, list[int]]:
    """An arithmetic expression over whole numbers: its exact value and the numbers it uses.

    Raises ValueError or SyntaxError for anything else, ZeroDivisionError for a division by zero.
    """
    if len(text) > 400:
        raise ValueError("longer than 400 characters")
    used: list[int] = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)) if not isinstance(number, bool) and number < 10**6:
                used.append(number)
                return Fraction(number)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
        raise ValueError(f"unexpected {type(node).__name__}")

    return value(ast.parse(text.strip(), mode="eval").body), used
