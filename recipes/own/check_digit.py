"""The check digit of an article number: from the right, every other digit counts three times; the sum must end in 0."""

from random import Random

from ponder.tasks.protocol import Demonstration, Grade, Problem


class CheckDigit:
    name = "check_digit"

    def sample(self, rng: Random, level: float) -> Problem:
        digits = [rng.randrange(10) for _ in range(3 + min(9, int(10 * level)))]
        total = 3 * sum(digits[::-2]) + sum(digits[-2::-2])
        number = "".join(map(str, digits))
        return Problem(task=self.name, question=f"What is the check digit of {number}?", answer=str(-total % 10))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        number = problem.question.removesuffix("?").split()[-1]
        named = [name + digit for name, digit in zip("abcdefghijkl", number, strict=False)]
        lines, total = [" ".join(named)], 0  # each digit under a name of its own, by which its step finds it
        for place, digit in enumerate(reversed(named)):
            weight = 1 if place % 2 else 3
            value = weight * int(digit[1]) % 10  # only last digits matter
            lines.append(f"{digit}*{weight}={value} {total}+{value}={(total + value) % 10}")
            total = (total + value) % 10
        check = str(-total % 10)
        return Demonstration(reasoning="\n".join([*lines, f"{total}+{check}=0"]), answer=check)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer.strip() == problem.answer))

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip()
