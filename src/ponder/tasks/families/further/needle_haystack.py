"""One statement among many: what is asked, then the statement that says it, word for word with its name in front.

Now and then a statement of the same words in part is taken up first, and rejected.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import SLIP_PROBABILITY
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem, mistake


class NeedleHaystack(FromGym):
    """Three to ten statements, then up to forty, then up to a hundred (the default config)."""

    name = gym_name = "needle_haystack"
    configs = (
        {"min_num_statements": 3, "max_num_statements": 10},
        {"min_num_statements": 10, "max_num_statements": 40},
        {},
    )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        asked, statements = asked_of(problem)
        lines = [asked]
        near = [each for each in statements if each.split()[-1] == asked.split()[-1] and not each.endswith(f" {asked}")]
        if near and rng.random() < 3 * SLIP_PROBABILITY:
            lines.append(f"{mistake(rng.choice(near))} no")
        lines.append(f"{problem.answer} {asked}")
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return exact(problem.answer, answer, ignore_case=True)


def asked_of(problem: Problem) -> tuple[str, list[str]]:
    """What is asked (`extols astronomy`), and the statements."""
    text, question = problem.question.rsplit("\nWho ", 1)
    return question.split("? Reply")[0], text.strip().removesuffix(".").split(". ")
