"""Powers to three significant figures: squared and multiplied with five figures kept, folded after each product.

A number is five digits and the power of ten of the first: 12346e2 is 1.2346 * 10^2. With five figures kept after every
product, 98.5 of 100 of reasoning-gym's answers come out right to their three; with six 99.9, with four 87.
"""

from __future__ import annotations

from decimal import Decimal, DefaultContext, localcontext
from random import Random

from ponder.tasks.families.working.columns import lowest_first, multiply, multiply_steps
from ponder.tasks.families.working.euclid import take_away
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.graders import number
from ponder.tasks.protocol import Demonstration, Fold, Grade, GradeStatus, Problem

GYM = (
    "Your task is to compute an exponentiation of a number.\n\n"
    "Compute {base}^{exponent}. Return your final answer correct to 3 significant figures.\n"
    "Provide your answer in scientific notation using 'e' notation (e.g., 1.23e+4).\n",
)
VARIED = (
    "What is {base}^{exponent} to 3 significant figures, like 1.23e+4?",
    "Compute {base} to the power {exponent}. Answer with 3 significant figures as in 1.23e+4.",
)
KEPT = 5


class PowerFunction(ProblemFamily):
    """Level sets the exponent, up to 8 and down to -8 (reasoning-gym's default; its hard config starts at 4)."""

    name = "power_function"

    def sample(self, rng: Random, level: float) -> Problem:
        """A problem whose third figure survives the rounding."""
        while True:
            problem = self.draw(rng, level)
            if self.grade(problem, self.demonstrate(problem, Random(0)).answer).solved:
                return problem

    def draw(self, rng: Random, level: float) -> Problem:
        base = round(rng.uniform(-1000, 1000), 4) or 1.0
        exponent = rng.choice((-1, 1)) * rng.randint(0, size_at(level, 0, 8))
        question = self.word(rng, GYM, VARIED).format(base=base, exponent=exponent)
        metadata = {"base": base, "exponent": exponent}
        return Problem(task=self.name, question=question, answer=str(base**exponent), metadata=metadata)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        exponent = int(problem.metadata["exponent"])
        if exponent == 0:
            return Demonstration(reasoning="exponent 0", answer="1.00e+0")
        base, power, rounding = canonical(Decimal(str(abs(problem.metadata["base"]))))
        minus = problem.metadata["base"] < 0 and exponent % 2 == 1
        start = f"{base}e{power}"
        plan = operations(exponent)
        thoughts, states = [], []
        lines = [rounding, f"{'minus ' if minus else ''}base {start} {' '.join(plan)}"]
        digits, place = base, power
        for i, operation in enumerate(plan[:-1]):
            if operation == "invert":
                working, digits, place = invert(digits, place)
            else:
                factor = (digits, place) if operation == "square" else (base, power)
                working, digits, place = product((digits, place), factor, rng)
            thoughts.append("\n".join([*lines, *working]))
            lines = []
            left = " ".join(plan[i + 1 :])
            states.append(f"{'minus ' if minus else ''}base {start} now {digits}e{place} {left}")
        kept, shift, line = rounded(digits, 3)
        answer = f"{'-' if minus else ''}{kept[0]}.{kept[1:]}e{place + shift:+d}"
        return Demonstration(
            reasoning="\n".join([*lines, line, answer]),
            answer=answer,
            folds=tuple(Fold(thought, state) for thought, state in zip(thoughts, states, strict=True)),
        )

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 for the same three significant figures, as reasoning-gym does."""
        got, wanted = number(answer), Decimal(problem.answer)
        if got is None:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=f"{answer[:80]!r} is not a number")
        if "/" in answer or got == 0:
            return Grade(score=0.0, why=f"{answer[:80]!r} is not {problem.answer}")
        with localcontext(DefaultContext):  # whatever precision another library has set in this process
            decimal = Decimal(got.numerator) / Decimal(got.denominator)
            return Grade(score=float(f"{decimal:.2e}" == f"{wanted:.2e}"))


def canonical(value: Decimal) -> tuple[str, int, str]:
    """Five digits, rounded half up, and the power of ten of the first, of a value > 0; the line of the working."""
    digits = "".join(map(str, value.as_tuple().digits)).ljust(KEPT + 1, "0")
    kept, shift, line = rounded(digits, KEPT)
    return kept, value.adjusted() + shift, line


def operations(exponent: int) -> list[str]:
    """The exponent's binary digits after the first: square for each, times the base for each 1; then the end."""
    plan = []
    for bit in f"{abs(exponent):b}"[1:]:
        plan += ["square", "times"] if bit == "1" else ["square"]
    return [*plan, "invert", "round"] if exponent < 0 else [*plan, "round"]


def rounded(digits: str, keep: int) -> tuple[str, int, str]:
    """The first `keep` digits rounded half up; 1 where that makes one digit more, else 0; the line of the working."""
    up = int(digits[keep] >= "5")
    kept = str(int(digits[:keep]) + up)
    shift = len(kept) - keep
    return kept[:keep], shift, f"{digits[:keep]} {digits[keep]} {'up' if up else 'down'} {kept[:keep]}"


def product(a: tuple[str, int], b: tuple[str, int], rng: Random) -> tuple[list[str], str, int]:
    """Lines, five digits and power of ten of a * b. Ten digits of product are one power more than nine."""
    factors = int(a[0]), int(b[0])
    lines, value = multiply(*factors, Slips(rng, SLIP_PROBABILITY, multiply_steps(*factors)))
    kept, shift, line = rounded(str(value), KEPT)
    shift += len(str(value)) - (2 * KEPT - 1)
    place = a[1] + b[1] + shift
    return [*lines, str(value), line, f"{a[1]}+{b[1]}+{shift}={place}"], kept, place


def invert(digits: str, place: int) -> tuple[list[str], str, int]:
    """Lines, four digits (more are cut off) and power of ten of 1 / a: a digit of the quotient a line."""
    lines, quotient = [], ""
    rest, divisor = 10**KEPT, int(digits)
    if rest == 10 * divisor:
        return [f"1000 {-place}"], "1000", -place
    for _ in range(4):
        digit = rest // divisor
        if digit:
            lines.append(take_away(rest, divisor, digit, str(digit)))
        else:
            lines.append(f"{lowest_first(rest)}-{lowest_first(divisor)}*0 > {lowest_first(rest)}")
        quotient += str(digit)
        rest = 10 * (rest - digit * divisor)
    return [*lines, f"{quotient} {-place}-1={-place - 1}"], quotient, -place - 1
