"""Whether a score holds for other questions of the same kind: reasoning carries over, recognised patterns do not.

Each change leaves the problem as hard as it was, or makes it one size larger, and does not touch how it is solved. It
is made to the question alone, so any model can be asked, an endpoint too. (Changed numbers and names: GSM-Symbolic; a
clause that does not matter: GSM-NoOp; both arXiv 2410.05229.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from ponder.evaluate.audit.effects import ChangeEffect
from ponder.evaluate.measure import Result, measure
from ponder.evaluate.problems import held_out
from ponder.evaluate.wording import Reworded
from ponder.sampler.protocol import Sampler
from ponder.tasks.families.plain.task import Plain
from ponder.tasks.families.plain.wording import Half
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem, Task
from ponder.think import Strategy

RENAMED = "other numbers and names, as large"
CLAUSE = "a clause that does not matter"
REORDERED = "reordered"
WORDS = "in other words"
LARGER = "one size up"
SEEN = "seen in training"
CHANGES = (RENAMED, CLAUSE, REORDERED, WORDS, LARGER, SEEN)
DRAWS = 300
"""Problems that are drawn to find one of the same size."""

CLAUSES = (
    "My train leaves at platform {n}.",
    "There are {n} people in this room.",
    "I have {n} minutes left.",
    "This is question {n} of my list.",
    "It is {n} degrees outside.",
    "My neighbour is {n} years old.",
    "I wrote this down on page {n}.",
    "We have waited for {n} days.",
)

SIZES: Mapping[str, tuple[Mapping[str, int], Mapping[str, int]]] = {
    "products": (
        {"min_terms": 2, "max_terms": 2, "min_digits": 8, "max_digits": 8},
        {"min_terms": 2, "max_terms": 2, "min_digits": 9, "max_digits": 9},
    ),
    "chain_sum": (
        {"min_terms": 8, "max_terms": 8, "min_digits": 6, "max_digits": 6},
        {"min_terms": 8, "max_terms": 8, "min_digits": 7, "max_digits": 7},
    ),
    "letter_counting": ({"min_words": 50, "max_words": 50}, {"min_words": 65, "max_words": 65}),
    "gcd": (
        {"min_numbers": 4, "max_numbers": 4, "min_value": 1000, "max_value": 10000},
        {"min_numbers": 5, "max_numbers": 5, "min_value": 1000, "max_value": 10000},
    ),
    "basic_arithmetic": (
        {"min_terms": 10, "max_terms": 10, "min_digits": 2, "max_digits": 5},
        {"min_terms": 11, "max_terms": 11, "min_digits": 2, "max_digits": 5},
    ),
}
"""Of reasoning-gym's configs, the largest size that mini's training draws, and one above it. (Its words to be spelled
backward are never longer than those of training.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAudit:
    """One task under one mode.

    base: as the problems stand in the suite.
    effects: of each change; the last are of other problems, not of pairs.
    """

    mode: str
    base: Result
    effects: tuple[ChangeEffect, ...]

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        return {"mode": self.mode, "base": self.base.summary(), "effects": [each.summary() for each in self.effects]}


def audit_questions(
    sampler: Sampler,
    task: Task,
    n: int,
    modes: Mapping[str, Strategy],
    *,
    start: int = 0,
    trained_on: frozenset[str] | None = None,
    concurrency: int = 64,
) -> list[QuestionAudit]:
    """Ask `n` held-out problems of a task as they are, and with each change, by every mode.

    trained_on: question hashes of the training data; None: nothing is said of seen questions.
    """
    problems = held_out(task, n, start=start)
    changed = changed_questions(task, problems, start=start)

    def one_mode(name: str, mode: Strategy) -> QuestionAudit:
        def ask(asked: Sequence[Problem], of: Task) -> Result:
            return measure(sampler, of, asked, mode, concurrency=concurrency, trained_on=trained_on)

        base = ask(problems, task)
        effects = [_effect(each, base, ask) for each in changed]
        return QuestionAudit(mode=name, base=base, effects=(*effects, _sizes(task, n, start, ask), _seen(base)))

    return [one_mode(name, mode) for name, mode in modes.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedQuestions:
    """The same problems after one change; None where it cannot be made.

    task: what grades them.
    keeps_answer: whether the right answer is still the same.
    """

    change: str
    task: Task
    problems: tuple[Problem | None, ...]
    keeps_answer: bool


AskAll = Callable[[Sequence[Problem], Task], Result]


def changed_questions(task: Task, problems: Sequence[Problem], *, start: int = 0) -> list[ChangedQuestions]:
    """Every change of the question alone. problems: the held-out problems of the task from number `start` on."""
    renamed = tuple(same_size(task, each, number, len(problems), start) for number, each in enumerate(problems))
    clauses, orders = Reworded(task), Reworded(task)
    family = _family(task)
    reorder = REORDER.get(family or "")
    words: Sequence[Problem | None] = [None] * len(problems)
    worded: Task = task
    if isinstance(task, Plain) and task.gym and task.half is Half.HELD_OUT:
        worded = Plain(task.family.name, Half.HELD_OUT)
        words = held_out(worded, len(problems), start=start)
    return [
        ChangedQuestions(change=RENAMED, task=task, problems=renamed, keeps_answer=False),
        ChangedQuestions(
            change=CLAUSE,
            task=clauses,
            problems=tuple(clauses.reworded(each, f"{_clause(each)} {each.question}") for each in problems),
            keeps_answer=True,
        ),
        ChangedQuestions(
            change=REORDERED,
            task=orders,
            problems=tuple(_reordered(orders, each, reorder) for each in problems),
            keeps_answer=True,
        ),
        ChangedQuestions(change=WORDS, task=worded, problems=tuple(words), keeps_answer=True),
    ]


def _effect(changed: ChangedQuestions, base: Result, ask: AskAll) -> ChangeEffect:
    pairs = [(item, each) for item, each in zip(base.items, changed.problems, strict=True) if each is not None]
    after = ask([each for _, each in pairs], changed.task).items if pairs else ()
    differs = tuple(not changed.task.same(old.answer, new.answer) for (old, _), new in zip(pairs, after, strict=True))
    return ChangeEffect(
        task=base.task,
        change=changed.change,
        before=tuple(item.grade.solved for item, _ in pairs),
        after=tuple(item.grade.solved for item in after),
        differs=differs if changed.keeps_answer else None,
        missing=len(base.items) - len(pairs),
    )


def same_size(task: Task, problem: Problem, number: int, n: int, start: int = 0) -> Problem | None:
    """Another problem of the task, of the same shape (every digit a digit, the words as they are) or else the nearest
    in digits and length. Levels are those of `held_out`; None for a task that is not drawn by level."""
    if isinstance(task, GymTask):
        return None
    nearest: tuple[tuple[int, int], Problem] | None = None
    for draw in range(DRAWS):
        found = task.sample(Random(f"renamed {task.name} {start + number} {draw}"), (number + 0.5) / n)
        if found.question == problem.question:
            continue
        if shape(found.question) == shape(problem.question):
            return found
        distance = (abs(_digits(found) - _digits(problem)), abs(len(found.question) - len(problem.question)))
        if nearest is None or distance < nearest[0]:
            nearest = distance, found
    return None if nearest is None else nearest[1]


def shape(question: str) -> str:
    """The question with every digit as 0."""
    return re.sub(r"\d", "0", question)


def _digits(problem: Problem) -> int:
    return sum(map(str.isdigit, problem.question))


def _clause(problem: Problem) -> str:
    rng = Random(f"clause {problem.question}")
    return rng.choice(CLAUSES).format(n=rng.randint(2, 99))


Order = Callable[[Problem], tuple[str, str]]
"""What stands in the question, and the same in another order."""


def _turned(separator: str, key: str) -> Order:
    def order(problem: Problem) -> tuple[str, str]:
        items = [str(each) for each in problem.metadata[key]]
        return separator.join(items), separator.join(reversed(items))

    return order


def _turned_chain(problem: Problem) -> tuple[str, str]:
    """`1 - 2 + 3` as `1 + 3 - 2`."""
    first, *rest = [int(term) for term in problem.metadata["terms"]]
    signed = [f" {'-' if term < 0 else '+'} {abs(term)}" for term in rest]
    return "".join([str(first), *signed]), "".join([str(first), *reversed(signed)])


REORDER: Mapping[str, Order] = {
    "products": _turned(" * ", "factors"),
    "chain_sum": _turned_chain,
    "gcd": _turned(", ", "numbers"),
    "lcm": _turned(", ", "numbers"),
    "letter_counting": _turned(" ", "words"),
    "number_sorting": _turned(", ", "numbers"),
    "word_sorting": _turned(", ", "words"),
}
"""The families whose parts may stand in any order."""


def _reordered(reworded: Reworded, problem: Problem, order: Order | None) -> Problem | None:
    if order is None:
        return None
    old, new = order(problem)
    if old == new or problem.question.count(old) != 1:
        return None
    return reworded.reworded(problem, problem.question.replace(old, new))


def _sizes(task: Task, n: int, start: int, ask: AskAll) -> ChangeEffect:
    """The largest size that mini is trained on, against the next: other problems of one dataset."""
    family = _family(task)
    results: list[tuple[bool, ...]] = [(), ()]
    if family is not None and family in SIZES:
        for place, config in enumerate(SIZES[family]):
            sized = GymTask(family, dict(config))
            results[place] = tuple(item.grade.solved for item in ask(held_out(sized, n, start=start), sized).items)
    before, after = results
    return ChangeEffect(task=task.name, change=LARGER, before=before, after=after, paired=False, missing=n - len(after))


def _seen(base: Result) -> ChangeEffect:
    """Questions that training did not hold, against those that it did."""
    before = tuple(item.grade.solved for item in base.items if item.seen_in_training is False)
    after = tuple(item.grade.solved for item in base.items if item.seen_in_training)
    return ChangeEffect(
        task=base.task, change=SEEN, before=before, after=after, paired=False, missing=base.n - len(after)
    )


def _family(task: Task) -> str | None:
    """The family whose wording and metadata these are; None for another task."""
    return task.family.name if isinstance(task, Plain) and task.gym else None
