"""A turned cube: its colors are numbered, and after every turn the six numbers are written, always in one order.

The order is top, right, front, left, back, bottom: `front 326541` after the front was brought to the top.
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Problem

SIDES = ("top", "right", "front", "left", "back", "bottom")
TAKEN_FROM = {
    "right": ("right", "bottom", "front", "top", "back", "left"),
    "front": ("front", "right", "bottom", "left", "top", "back"),
    "left": ("left", "top", "front", "bottom", "back", "right"),
    "back": ("back", "right", "top", "left", "bottom", "front"),
    "bottom": ("bottom", "right", "back", "left", "front", "top"),
}
"""Of each turn: the sides whose colors come to the top, the right and so on."""


class ColorCubeRotation(FromGym):
    """One to three turns (the default config), then up to ten, then up to fifty (the hard one)."""

    name = gym_name = "color_cube_rotation"
    configs = ({}, {"min_rotations": 4, "max_rotations": 10}, {"min_rotations": 10, "max_rotations": 50})
    default_level = 0.33

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        colors = [details["initial_state"][side] for side in SIDES]
        lines = [f"{side} {number} {color}" for number, (side, color) in enumerate(zip(SIDES, colors, strict=True), 1)]
        numbers = dict(zip(SIDES, "123456", strict=True))
        for turn in details["rotations"]:
            numbers = dict(zip(SIDES, (numbers[side] for side in TAKEN_FROM[turn]), strict=True))
            lines.append(f"{turn} {noticed_slip(''.join(numbers.values()), '[1-6]', '123456', rng)}")
        asked = numbers[details["target_side"]]
        lines.append(f"{details['target_side']} {asked} {colors[int(asked) - 1]}")
        return Demonstration(reasoning="\n".join(lines), answer=colors[int(asked) - 1])
