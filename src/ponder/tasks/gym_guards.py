"""reasoning-gym's scorers that give full marks to wrong answers, by name, and the scores that are given instead.

Reward for such an answer teaches the answer: "0" for every coin, "nan" for every sum. Found by giving every dataset,
under its default and its hard config, some forty constant answers and the answers to other items (reasoning-gym
0.1.25):

    game_of_life_halting    takes the truth of the text, so that any text is True: here the text has to be the right one
    coin_flip               takes any beginning of the number for it, "0" of "0.3125": here within a thousandth of it
    puzzle24                takes any four numbers that make 24: here those of the question
    complex_arithmetic      takes "nan", which has no distance from anything: here, and in every dataset, a number that
                            is not finite scores 0, unless the right answer has one
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import takewhile
from typing import Any

Entry = Mapping[str, Any]
Guard = Callable[[Entry, str, float], float]

_WORD = re.compile(r"[+-]?(?:nan|inf|infinity)[ij]?", re.IGNORECASE)
_EXPONENT = re.compile(r"\d[\d_]*\.?\d*[eE]\+?\d+")
_CLOSE = Fraction(1, 1000)


def guarded_score(dataset: str, entry: Entry, answer: str, score: float) -> tuple[float, str]:
    """(the score to give, why it is not the dataset's own). score: the dataset's own, of `answer`."""
    if score <= 0:
        return score, ""
    if _not_finite(answer) and not _not_finite(str(entry["answer"])):
        return 0.0, "the answer is not a finite number"
    name = str(entry["metadata"].get("source_dataset", dataset)) if dataset == "composite" else dataset
    guard = GUARDED.get(name)
    given = guard(entry, answer, score) if guard else score
    return given, "" if given == score else f"not {score:g}, which reasoning-gym's {name} gives to wrong answers too"


def _not_finite(text: str) -> bool:
    words = re.split(r"[^\w.+-]+|(?<=[\w.])(?=[+-])", text)
    return any(_WORD.fullmatch(word) for word in words) or any(
        math.isinf(float(number.replace("_", ""))) for number in _EXPONENT.findall(text)
    )


def _halting(entry: Entry, answer: str, score: float) -> float:
    return float(answer.strip(" .'\"").casefold() == str(entry["answer"]).casefold())


def _coin_flip(entry: Entry, answer: str, score: float) -> float:
    """Full marks within a thousandth of the probability, else by the digits that the two share."""
    rational = entry["metadata"]["rational"]
    right = Fraction(rational["numerator"], rational["denominator"])
    try:
        given = Fraction(answer.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return 0.0
    if abs(given - right) <= _CLOSE * right:
        return 1.0
    texts = [f"{float(number):.10g}" for number in (given, right)]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    return min(score, alike / max(map(len, texts)), 0.98)


def _puzzle24(entry: Entry, answer: str, score: float) -> float:
    used = sorted(int(number) for number in re.findall(r"\d+", answer))
    return score if used == sorted(entry["metadata"]["numbers"]) else min(score, 0.01)


GUARDED: Mapping[str, Guard] = {"coin_flip": _coin_flip, "game_of_life_halting": _halting, "puzzle24": _puzzle24}
