"""The next number of a sequence: a rule is proposed, tried on every number that has a next one, and used on the last.

`7: *2 14 +3 17 ok` takes 7 through the rule `*2 +3` to the 17 that follows it. A rule that misses is given up with
`no`, and another is proposed. `sq` squares, `half` halves downward, `prev` adds the number before.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.graders import numeric
from ponder.tasks.protocol import Demonstration, Grade, Problem, mistake

WORDS = {"add": "+", "multiply by": "*", "double": "*2", "square": "sq", "halve": "half", "add previous": "prev"}
WRONG_RULE_SHARE = 0.25


class NumberSequence(FromGym):
    """One operation or two, then up to three, then up to four (the default config)."""

    name = gym_name = "number_sequence"
    configs = ({"max_complexity": 1}, {"max_complexity": 2}, {})

    def teaches(self, problem: Problem) -> bool:
        """Not where a rule of no operation, or none that was drawn, made the sequence."""
        details = self.details(problem)
        numbers, rule = details["sequence"], _short(details["rule"])
        return bool(rule) and all(_tried(numbers, at, rule).endswith("ok") for at in range(len(numbers) - 1))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        numbers, rule = details["sequence"], _short(details["rule"])
        known, lines = numbers[:-1], []
        if rng.random() < WRONG_RULE_SHARE:
            wrong = _altered(rule, rng)
            tries = [_tried(known, at, wrong) for at in range(len(known) - 1)]
            missed = next((at for at, line in enumerate(tries) if line.endswith("no")), None)
            if missed is not None:
                lines += [mistake(f"rule {' '.join(wrong)}"), *tries[: missed + 1]]
        lines.append(f"rule {' '.join(rule)}")
        lines += [_tried(known, at, rule) for at in range(len(known) - 1)]
        last = f"{known[-1]}:{_steps(known, len(known) - 1, rule)[0]}"
        return Demonstration(reasoning="\n".join([*lines, last]), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return numeric(problem.answer, answer)


def _short(rule: str) -> list[str]:
    """`multiply by 2 then add previous` is `*2 prev`."""
    found = []
    for operation in filter(None, rule.split(" then ")):
        word, _, parameter = operation.rpartition(" ")
        if operation in WORDS:
            found.append(WORDS[operation])
        else:
            sign = "" if WORDS[word] == "+" and parameter.startswith("-") else WORDS[word]
            found.append(f"{sign}{parameter}")
    return found


def _altered(rule: Sequence[str], rng: Random) -> list[str]:
    """The rule with one operation replaced."""
    other = rng.choice((f"{rng.choice((1, 2, 3, 5, -1, -2, -4)):+d}", f"*{rng.choice((2, 3, -1, -2))}", "prev", "half"))
    place = rng.randrange(len(rule))
    return [*rule[:place], other, *rule[place + 1 :]]


def _tried(numbers: Sequence[int], at: int, rule: Sequence[str]) -> str:
    """The rule used on one number, and whether it gives the next."""
    text, value = _steps(numbers, at, rule)
    return f"{numbers[at]}:{text} {'ok' if value == numbers[at + 1] else 'no'}"


def _steps(numbers: Sequence[int], at: int, rule: Sequence[str]) -> tuple[str, int]:
    """Every operation with what it comes to."""
    value, text = numbers[at], ""
    for operation in rule:
        if operation == "sq":
            value *= value
        elif operation == "half":
            value //= 2
        elif operation == "prev":
            value += numbers[at - 1] if at else 0
        elif operation.startswith("*"):
            value *= int(operation[1:])
        else:
            value += int(operation)
        text += f" {operation} {value}"
    return text, value
