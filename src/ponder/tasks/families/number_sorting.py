"""Numbers in ascending or descending order by insertion, compared place by place."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from ponder.tasks.families.working.comparing import insertions, number_key, verdicts
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.protocol import Demonstration, Fold, Grade, GradeStatus, Problem

GYM = (
    "Sort these numbers in {direction} order: {numbers}\n"
    "Please follow the instruction below:\n"
    "## 1. Let all your answers be a list of numbers. Instead of reporting your answer as -69, -13, 1, 7, 11, 43, 59, "
    "61, use ['-69', '-13', '1', '7', '11', '43', '59', '61'] instead\n"
    "## 2. Convert all numbers in the square brackets as strings. For example, ['-69', '-13', '1', '7', '11', '43', "
    "'59', '61']\n",
)
VARIED = (
    "Sort these numbers in {direction} order, as a list of strings: {numbers}",
    "Put {numbers} in {direction} order. Answer with a list of strings.",
)
DECIMALS = 2
FOLD_AFTER = 6
"""Items sorted before the thought is folded."""
TOLERANCE = 1e-8


class NumberSorting(ProblemFamily):
    """Level sets how many numbers, three to ten (the default config), from -100 to 100."""

    name = "number_sorting"

    def sample(self, rng: Random, level: float) -> Problem:
        numbers = [self._numeral(rng) for _ in range(size_at(level, 3, 10))]
        if rng.random() < 0.3:  # close neighbours, so that later places are compared too
            near = float(rng.choice(numbers))
            at = rng.randrange(len(numbers))
            numbers[at] = str(round(max(-100.0, min(100.0, near + rng.uniform(-1, 1))), rng.randint(0, DECIMALS)))
        direction = rng.choice(("ascending", "descending"))
        answer = str(sorted(numbers, key=float, reverse=direction == "descending"))
        question = self.word(rng, GYM, VARIED).format(direction=direction, numbers=", ".join(numbers))
        metadata = {"numbers": numbers, "direction": direction}
        return Problem(task=self.name, question=question, answer=answer, metadata=metadata)

    def _numeral(self, rng: Random) -> str:
        if rng.random() < 0.003:
            return rng.choice(("-100.0", "100.0", "-0.0", "0.0"))
        return str(round(rng.uniform(-100, 100), rng.randint(0, DECIMALS)))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        numbers: list[str] = problem.metadata["numbers"]
        labels = [f" {letter}" for letter in "abcdefghij"[: len(numbers)]]
        item = dict(zip(labels, numbers, strict=True))
        key = {label: number_key(number, DECIMALS) for label, number in item.items()}

        def compare(a: str, b: str) -> str:
            return f"{a}{key[a]}{b}{key[b]}{verdicts(key[a], key[b])}"

        table = "\n".join(f"{label}: {item[label]}{label}{key[label]}" for label in labels)
        head, tail = labels[:FOLD_AFTER], labels[FOLD_AFTER:]
        lines, order = insertions(head, compare)
        thought, folds = [table, *lines], []
        if tail:
            folds = [Fold("\n".join(thought), f"{table}\nso{''.join(order)}")]
            thought, order = insertions(tail, compare, order)
        if problem.metadata["direction"] == "descending":
            order = order[::-1]
            thought.append(f"descending{''.join(order)}")
        thought.append(",".join(f"{label}: {item[label]}" for label in order))
        answer = str([item[label] for label in order])
        return Demonstration(reasoning="\n".join(thought), answer=answer, folds=tuple(folds))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """A list of the numbers in order, each a string or a number, compared by value."""
        values = _values(answer)
        if values is None:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why="no list of numbers")
        gold = _values(problem.answer) or []
        right = len(values) == len(gold) and all(abs(a - b) <= TOLERANCE for a, b in zip(values, gold, strict=True))
        return Grade(score=float(right), why="" if right else f"{values} is not {gold}")

    def same(self, a: str, b: str) -> bool:
        return _values(a) is not None and _values(a) == _values(b)


def _values(text: str) -> list[float] | None:
    try:
        listed: Any = json.loads(text.replace("'", '"'))
        return [float(each) for each in listed] if isinstance(listed, list) else None
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None
