"""Keeping or removing the numbers above or below a bound: each is compared with the bound place by place."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.comparing import number_key, verdicts
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "{operation} all numbers {relation} than {bound} in this list: {numbers}\nReturn the new list in the same format.",
)
VARIED = (
    "{operation} every number {relation} than {bound} in the list {numbers}.",
    "From {numbers} {lower} all numbers that are {relation} than {bound}. Answer with the new list.",
)
DECIMALS = 4


class NumberFiltering(ProblemFamily):
    """Level sets how many numbers, three to ten (the default config), from -100 to 100 with up to four decimals."""

    name = "number_filtering"

    def sample(self, rng: Random, level: float) -> Problem:
        numbers = [_numeral(rng, rng.uniform(-100, 100)) for _ in range(size_at(level, 3, 10))]
        values = [float(number) for number in numbers]
        bound = _numeral(rng, rng.uniform(min(values), max(values)))
        if rng.random() < 0.2:  # close to a number or equal to it, so that later places are compared too
            bound = _numeral(rng, rng.choice(values) + rng.choice((0, rng.uniform(-1, 1))), -99.9, 99.9)
        operation, relation = rng.choice(("keep", "remove")), rng.choice(("larger", "smaller"))
        hit = {n: float(n) > float(bound) if relation == "larger" else float(n) < float(bound) for n in numbers}
        answer = [number for number in numbers if hit[number] == (operation == "keep")]
        question = self.word(rng, GYM, VARIED).format(
            operation=operation.capitalize(), lower=operation, relation=relation, bound=bound, numbers=numbers
        )
        return Problem(
            task=self.name,
            question=question,
            answer=str(answer),
            metadata={"numbers": numbers, "bound": bound, "operation": operation, "relation": relation},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        numbers: list[str] = problem.metadata["numbers"]
        bound: str = problem.metadata["bound"]
        keeps = problem.metadata["operation"] == "keep"
        sign = ">" if problem.metadata["relation"] == "larger" else "<"
        rules = [f"{each} {'yes' if (each == sign) == keeps else 'no'}" for each in "<=>"]
        bound_key = number_key(bound, DECIMALS)
        lines, kept = [f"{bound} is {bound_key}", " ".join(rules)], []
        for number in numbers:
            key = number_key(number, DECIMALS)
            line = f"{number} is {key} to {bound_key}{verdicts(key, bound_key)}"
            if (line[-1] == sign) == keeps:
                kept.append(number)
                lines.append(f"{line} yes {_label(len(kept))}: {number}")
            else:
                lines.append(f"{line} no")
        lines.append(",".join(f" {_label(place)}: {number}" for place, number in enumerate(kept, 1)) or "none")
        return Demonstration(reasoning="\n".join(lines), answer=str(kept))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The list as it stands in the question, the right numbers in their order."""
        return exact(problem.answer, answer)

    def same(self, a: str, b: str) -> bool:
        return "".join(a.split()) == "".join(b.split())


def _label(place: int) -> str:
    return "abcdefghij"[place - 1]


def _numeral(rng: Random, value: float, low: float = -100, high: float = 100) -> str:
    return f"{max(low, min(high, value)):.{rng.randint(0, DECIMALS)}f}"
