"""Arithmetic that falls into parts: whole questions for a planner, single steps for workers.

A question is a product of two numbers, a long sum, or a story of two or three operations. The planner learns to write a
plan of steps (`Planned`), to plan what is left when a step has failed (`Replanned`), to write the answer from results
(`Written`), and, to be compared with, to work all of it out alone (`Alone`). A worker learns one step (`Step`): a
number times one digit and zeros, or a sum of two numbers.
"""

import re
from random import Random

from ponder.tasks.graders import number
from ponder.tasks.protocol import Demonstration, Grade, Problem
from ponder.think.plan import BadPlan, PlanForm, PlanStep, fill_in, plan_words, read_plan, write_words

MOST = 16  # steps of one plan
NAMES = "abcdefghijklmnop"
STORIES = (
    "A box holds {a} pens. There are {b} boxes and {c} pens beside them. How many pens are there?",
    "A train has {b} cars with {a} seats each, and {c} people stand. How many people can it carry?",
    "Ann earns {a} a day for {b} days and is given {c} more. How much does she have?",
    "A farm sells {a} eggs a day. In {b} days it sold those and {c} from the day before. How many were sold?",
)


# Questions and their steps -------------------------------------------------------------------------------------------


def digits(rng: Random, most: int) -> int:
    """A number of 1 to `most` digits, each length as likely as the others."""
    length = rng.randint(1, most)
    return rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length)


def draw(rng: Random, level: float) -> Problem:
    """A question. metadata: what it takes, as terms that are added up, each a tuple of one number or two factors."""
    size = 1 + round(4 * level)
    kind = rng.choice(("product", "sum", "story"))
    if kind == "product":
        terms = ((digits(rng, size + 1), digits(rng, size)),)
        question = "What is {} * {}?".format(*terms[0])
    elif kind == "sum":
        terms = tuple((digits(rng, size + 2),) for _ in range(rng.randint(3, 3 + size)))
        question = f"What is {' + '.join(str(term) for (term,) in terms)}?"
    else:
        a, b, c = (digits(rng, each) for each in (size, min(size, 3), size))
        terms, question = ((a, b), (c,)), rng.choice(STORIES).format(a=a, b=b, c=c)
    total = sum(term[0] * (term[1] if len(term) == 2 else 1) for term in terms)
    return Problem(task="alone", question=question, answer=str(total), metadata={"terms": terms})


def plan_of(problem: Problem) -> list[PlanStep]:
    """One product by a digit for each digit of the second factor that is not 0, then sums of two, nearest first."""
    steps: list[PlanStep] = []

    def step(task: str) -> str:
        steps.append(PlanStep(NAMES[len(steps)], task, tuple(re.findall(r"\{(\w)\}", task)), "integer"))
        return f"{{{steps[-1].name}}}"

    parts: list[str] = []
    for term in problem.metadata["terms"]:
        if len(term) == 1:
            parts.append(str(term[0]))
            continue
        by = [int(digit) * 10**place for place, digit in enumerate(reversed(str(term[1])))]
        parts += [step(f"{term[0]} * {each}") for each in by if each] or [step(f"{term[0]} * 0")]
    while len(parts) > 1:
        sums = [step(f"{first} + {second}") for first, second in zip(parts[::2], parts[1::2], strict=False)]
        parts = sums + parts[len(sums) * 2 :]
    return steps or [PlanStep("a", f"{parts[0]} + 0", (), "integer")]


def value(task: str) -> int:
    """What a step's task comes to. Raises ValueError for a task of another kind."""
    found = re.fullmatch(r"(\d+) ([*+]) (\d+)", task)
    if found is None:
        raise ValueError(f"{task[:80]!r} is not a product or a sum of two numbers")
    first, sign, second = found.groups()
    return int(first) * int(second) if sign == "*" else int(first) + int(second)


def carried_out(steps: list[PlanStep], results: dict[str, str]) -> dict[str, str]:
    """The right results of all steps, those in `results` included. Raises ValueError for other tasks than steps'."""
    results, left = dict(results), list(steps)
    while left:
        ready = [step for step in left if results.keys() >= set(step.needs)]
        results |= {step.name: str(value(fill_in(step.task, results))) for step in ready}
        left = [step for step in left if step.name not in results]
    return results


def result_lines(steps: list[PlanStep], results: dict[str, str]) -> str:
    """Steps and results as `delegate` shows them to the planner."""
    return "\n".join(
        f"{step.name}: {fill_in(step.task, results)} = {results[step.name]}" for step in steps if step.name in results
    )


def check(task: str, result: str) -> Grade:
    """Casting out nines: a check of a step's result that is cheap and passes some wrong ones."""
    found = number(result)
    if found is None or found.denominator != 1:
        return Grade(score=0.0, why="not a whole number")
    fits = (value(task) - int(found)) % 9 == 0
    return Grade(score=float(fits), why="" if fits else "the remainders by nine differ")


# Tasks ---------------------------------------------------------------------------------------------------------------


class Base:
    """What the tasks share: the answer is a number."""

    name = ""

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer.strip() == problem.answer))

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip()


class Alone(Base):
    """The whole question. Shown is the plan, step by step, each worked out."""

    name = "alone"

    def sample(self, rng: Random, level: float) -> Problem:
        return draw(rng, level)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        results: dict[str, str] = {}
        lines = []
        for step in plan_of(problem):
            task = fill_in(step.task, results)
            results[step.name] = str(value(task))
            lines += [f"{step.name}: {task}", *worked(task), f"{step.name} = {results[step.name]}"]
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)


class Step(Base):
    """One step, as `delegate` hands it to a worker."""

    name = "step"

    def sample(self, rng: Random, level: float) -> Problem:
        size = 1 + round(10 * level)
        if rng.random() < 0.5:
            task = f"{digits(rng, size)} * {rng.randint(0, 9) * 10 ** rng.randrange(5)}"
        else:
            task = f"{digits(rng, size + 1)} + {digits(rng, size + 1)}"
        return Problem(task=self.name, question=task, answer=str(value(task)))

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return Demonstration(reasoning="\n".join(worked(problem.question)), answer=problem.answer)


def worked(task: str) -> list[str]:
    """A step, digit by digit from the right: each line ends with the digit that it writes and the carry."""
    first, sign, second = task.split(" ")
    zeros = len(second) - len(second.rstrip("0") or second) if sign == "*" else 0
    above = [int(digit) for digit in reversed(first)]
    below = [int(digit) for digit in reversed(second[: len(second) - zeros])]
    if sign == "*":
        below = below * len(above)
    length, carry, written, lines = max(len(above), len(below)), 0, "0" * zeros, []
    for a, b in zip(above + [0] * (length - len(above)), below + [0] * (length - len(below)), strict=True):
        total = (a * b if sign == "*" else a + b) + carry
        written = f"{total % 10}{written}"
        lines.append(f"{a}{sign}{b}+{carry}={total} {written}")
        carry = total // 10
    if carry:
        written = f"{carry}{written}"
        lines.append(f"+{carry} {written}")
    return lines if str(int(written)) == written else [*lines, str(int(written))]


class Planned(Base):
    """The plan of a question. Every plan counts that comes to the right number."""

    name = "planned"

    def sample(self, rng: Random, level: float) -> Problem:
        whole = draw(rng, level)
        return self._problem(whole, plan_words(PlanForm.LINES, MOST), plan_of(whole), {})

    def _problem(self, whole: Problem, words: str, steps: list[PlanStep], results: dict[str, str]) -> Problem:
        return Problem(
            task=self.name,
            question=f"{whole.question}\n\n{words}",
            answer="\n".join(map(str, steps)),
            metadata={"results": results, "comes_to": whole.answer},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        tasks = [step.split(": ")[1].split(" -> ")[0] for step in problem.answer.splitlines()]
        return Demonstration(reasoning=", ".join(tasks), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        results = problem.metadata["results"]
        try:
            steps = list(read_plan(answer, PlanForm.LINES, MOST, results))
            found = carried_out(steps, results)
        except (BadPlan, ValueError) as error:
            return Grade(score=0.0, why=str(error))
        needed = {need for step in steps for need in step.needs}
        ends = [found[step.name] for step in steps if step.name not in needed]
        return Grade(score=float(ends == [problem.metadata["comes_to"]]))

    def same(self, a: str, b: str) -> bool:
        return a.split() == b.split()


class Replanned(Planned):
    """What is planned after a step has failed: the same step again, and all that needs it."""

    name = "replanned"

    def sample(self, rng: Random, level: float) -> Problem:
        whole = draw(rng, level)
        steps = plan_of(whole)
        right = carried_out(steps, {})
        bad = rng.choice(steps)
        lost = {bad.name}
        for step in steps:
            if lost & set(step.needs):
                lost.add(step.name)
        results = {name: result for name, result in right.items() if name not in lost}
        wrong = str(int(right[bad.name]) + rng.choice((1, 10, 100)))
        said = f"{bad.name}: {fill_in(bad.task, results)} = {wrong} (the remainders by nine differ)"
        words = plan_words(PlanForm.LINES, MOST, done=result_lines(steps, results), failed=said)
        return self._problem(whole, words, [step for step in steps if step.name in lost], results)


class Written(Base):
    """The answer, from the results of the steps."""

    name = "written"

    def sample(self, rng: Random, level: float) -> Problem:
        whole = draw(rng, level)
        steps = plan_of(whole)
        words = write_words(result_lines(steps, carried_out(steps, {})))
        return Problem(task=self.name, question=f"{whole.question}\n\n{words}", answer=whole.answer)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        last = problem.question.splitlines()[-3]
        return Demonstration(reasoning=last, answer=problem.answer)
