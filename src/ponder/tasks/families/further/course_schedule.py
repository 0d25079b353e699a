"""Whether all courses can be taken: each course's prerequisites in a table, then courses are taken one by one.

`take 1: 7 4 6` needs 7, 4 and 6 taken before; which course comes next is a proposal. Where none is left to take, every
course that is left has a prerequisite that is not taken, and that one is named: `3: 1 no`.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.protocol import Demonstration, Problem


class CourseSchedule(FromGym):
    """Three to six courses, five to ten (the default config), then up to fifty (the hard one)."""

    name = gym_name = "course_schedule"
    configs = (
        {"min_num_courses": 3, "max_num_courses": 6, "min_cycle_length": 3, "max_cycle_length": 3},
        {},
        {
            "min_num_courses": 25,
            "max_num_courses": 50,
            "min_num_prerequisites": 3,
            "max_num_prerequisites": 4,
            "min_cycle_length": 3,
            "max_cycle_length": 4,
        },
    )
    default_level = 0.66

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        needs: dict[int, list[int]] = {course: [] for course in range(len(details["courses"]))}
        for course, before in details["prerequisites"]:
            needs[course].append(before)
        lines = [f"{course}: {_numbers(before)}" for course, before in needs.items()]
        taken: set[int] = set()
        while ready := [course for course in needs if course not in taken and taken.issuperset(needs[course])]:
            taken.add(ready[0])
            lines.append(f"take {ready[0]}: {_numbers(needs[ready[0]])}")
        for course, before in needs.items():
            if course not in taken:
                lines.append(f"{course}: {next(each for each in before if each not in taken)} no")
        return Demonstration(reasoning="\n".join(lines), answer=str(len(taken) == len(needs)))


def _numbers(courses: list[int]) -> str:
    return " ".join(map(str, courses)) or "none"
