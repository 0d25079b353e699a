"""The last angle of a polygon: two less than its sides, times 180, and all known angles are taken away.

The angles are added column by column, and their sum is taken from the whole.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import signed_sum
from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.graders import numeric
from ponder.tasks.protocol import Demonstration, Grade, Problem


class SimpleGeometry(FromGym):
    """Three to six sides (the default config), then up to nine, then up to fifteen (the hard one)."""

    name = gym_name = "simple_geometry"
    configs = ({}, {"min_sides": 7, "max_sides": 9}, {"min_sides": 10, "max_sides": 15})
    default_level = 0.33

    def teaches(self, problem: Problem) -> bool:
        """Not the rare polygons whose angles are fractions."""
        return all(float(angle).is_integer() for angle in self.details(problem)["known_angles"])

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        sides = int(details["n_sides"])
        angles = [int(angle) for angle in details["known_angles"]]
        steps, left = signed_sum(
            [180 * (sides - 2), *(-angle for angle in angles)], Slips(rng, SLIP_PROBABILITY, 3 * len(angles))
        )
        lines = [f"{sides}-2={sides - 2} {sides - 2}*180={180 * (sides - 2)}", *steps, str(left)]
        return Demonstration(reasoning="\n".join(lines), answer=str(left))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return numeric(problem.answer, answer)
