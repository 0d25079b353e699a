"""Slips: wrong steps of a demonstration that are noticed at once and put right: `8*7+0+5=62 no 61`. The wrong result is
marked as a mistake: noticing it is taught, making it is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from ponder.tasks.protocol import mistake

SLIP_PROBABILITY = 0.04
"""The share of demonstrations with one slip."""


class Slips:
    """At most one slip in a demonstration of `num_steps` steps."""

    def __init__(self, rng: Random, probability: float, num_steps: int) -> None:
        self._at = rng.randrange(num_steps) if num_steps and rng.random() < probability else -1
        self._rng = rng
        self._step = 0

    def result(self, right: str) -> str:
        """`right`, or a slip with its correction. The slip differs in one digit."""
        step, self._step = self._step, self._step + 1
        if step != self._at:
            return right
        place = self._rng.randrange(len(right))
        wrong_digit = (int(right[place]) + self._rng.choice((1, 2, 8, 9))) % 10
        return f"{mistake(f'{right[:place]}{wrong_digit}{right[place + 1 :]}')} no {right}"


def noticed_slip(text: str, pattern: str, alternatives: Sequence[str], rng: Random) -> str:
    """Now and then one of the results that `pattern` finds becomes `wrong no right`, the wrong one as a mistake."""
    found = list(re.finditer(pattern, text))
    if not found or rng.random() >= SLIP_PROBABILITY:
        return text
    hit = rng.choice(found)
    wrong = rng.choice([each for each in alternatives if each != hit[0]])
    return f"{text[: hit.start()]}{mistake(wrong)} no {hit[0]}{text[hit.end() :]}"
