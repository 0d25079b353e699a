"""The check digit of an article number (EAN): every second digit counts three times, and the sum must end in 0."""

from random import Random

from ponder.tasks.protocol import Demonstration, Grade, Problem


class CheckDigit:
    name = "check_digit"

    def sample(self, rng: Random, level: float) -> Problem:
        digits = [rng.randrange(10) for _ in range(3 + round(9 * level))]
        weighted = sum(digit * (3 - place % 2 * 2) for place, digit in enumerate(reversed(digits)))
        number = "".join(map(str, digits))
        return Problem(task=self.name, question=f"What is the check digit of {number}?", answer=str(-weighted % 10))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        number = problem.question.removesuffix("?").split()[-1]
        named = [name + digit for name, digit in zip("abcdefghijkl", number, strict=False)]  # so that each is found
        lines, total = [" ".join(named)], 0
        for place, digit in enumerate(reversed(named)):
            weight = 3 - place % 2 * 2
            value = int(digit[1]) * weight
            lines.append(f"{digit}*{weight}={value} {total}+{value}={total + value}")
            total += value
        return Demonstration(reasoning="\n".join([*lines, f"{total} ends in {total % 10}"]), answer=str(-total % 10))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer.strip() == problem.answer))

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip()
