"""Which answers are the same, how they are counted, and when more of them can no longer change who wins."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from math import exp, lgamma

from ponder.tasks.graders import number
from ponder.think.ask import Same
from ponder.think.candidates import Candidate
from ponder.think.events import Vote

Weigh = Callable[[Candidate], float]
EPSILON = 0.02


class StopRule(StrEnum):
    """When no more answers are drawn.

    PREDICT: the chance that the runner-up passes within what is left is at most EPSILON, by a Polya urn from
        Beta(v1 + 1, v2 + 1) over the two largest counts (see docs/thinking.md for what it saves and costs).
    SETTLED: nothing that is left can change the answer.
    ALL: all are drawn.
    """

    PREDICT = "predict"
    SETTLED = "settled"
    ALL = "all"


def count_votes(candidates: Sequence[Candidate], same: Same, weigh: Weigh | None = None) -> tuple[Vote, ...]:
    """Candidates that came to an answer, each grouped with the first that it agrees with; the heaviest group first, of
    equal ones that of the earliest candidate. What is empty or was cut off has no vote.

    weigh: what a candidate counts; None: one.
    """
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        if not candidate.completion.answers:
            continue
        for group in groups:
            if same(group[0].completion.text, candidate.completion.text):
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    votes = [
        Vote(
            group[0].completion.text,
            tuple(each.sample for each in group),
            None if weigh is None else sum(map(weigh, group)),
        )
        for group in groups
    ]
    return tuple(sorted(votes, key=lambda vote: -vote.size))  # stable: of equal ones the earliest


def margin_of(votes: Sequence[Vote]) -> float:
    """(first - second) / all, by weight; 0 without votes."""
    sizes = [vote.size for vote in votes] + [0, 0]
    whole = sum(sizes)
    return (sizes[0] - sizes[1]) / whole if whole else 0.0


def is_enough(rule: StopRule, votes: Sequence[Vote], left: int) -> bool:
    """Whether the first of `votes` (one a sample) wins, or likely wins, whatever the `left` further samples say."""
    if left <= 0 or rule is StopRule.ALL or not votes:
        return False
    if rule is StopRule.SETTLED:
        return is_settled(votes, left)
    second = votes[1].count if len(votes) > 1 else 0
    return is_settled(votes, left) or chance_to_pass(votes[0].count, second, left) <= EPSILON


def is_settled(votes: Sequence[Vote], left: int) -> bool:
    """Whether no way that `left` samples may vote changes the winner. A tie goes to the answer that came first."""
    first, others = votes[0], votes[1:]
    return first.count >= left and all(
        vote.count + left < first.count + (vote.samples[0] > first.samples[0]) for vote in others
    )


def chance_to_pass(first: int, second: int, left: int) -> float:
    """How likely the second of two counts is larger after `left` draws from the urn that the counts describe: the
    number of draws that it gets is beta-binomial."""
    total = 0.0
    for drawn in range(left + 1):
        if second + drawn > first + (left - drawn):
            total += exp(
                _log_choose(left, drawn)
                + _log_beta(second + 1 + drawn, first + 1 + left - drawn)
                - _log_beta(second + 1, first + 1)
            )
    return total


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


# Equal answers --------------------------------------------------------------------------------------------------------


def same_answer(a: str, b: str) -> bool:
    """Whether two answers count as one vote: the same words but for case, spacing and a closing full stop, or the same
    number, however it is written (1/2, 0.5, .50, 50%, one half is not; `forty-two` is 42)."""
    first, second = bare_answer(a), bare_answer(b)
    if first == second:
        return True
    value = _value(first)
    return value is not None and value == _value(second)


BOXED = re.compile(r"\\boxed\{(.*)\}", re.DOTALL)
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
LEAD = re.compile(r"^(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final )?answer(?: is|:)[: ]*", re.IGNORECASE)
AROUND_SIGNS = re.compile(r" ?([-+*/^=<>(),;:\[\]{}]) ?")


def bare_answer(text: str) -> str:
    """An answer without what is not part of it: markup, "the answer is", case, quotes, spacing, the full stop."""
    text = " ".join(text.replace("−", "-").replace("×", "*").replace("·", "*").split())
    boxed = BOXED.search(text)
    text = boxed[1] if boxed else LEAD.sub("", text)
    text = FRACTION.sub(r"\1/\2", text.strip("$ ")).replace("**", "").replace("\\%", "%")
    text = text.strip(" `\"'“”‘’").rstrip(".!").strip(" `\"'“”‘’$")
    return AROUND_SIGNS.sub(r"\1", text.casefold())


def _value(text: str) -> object:
    """The number that an answer is; None where it is not one."""
    text = text.removeprefix("$").removeprefix("€")
    percent = text.removesuffix("%")
    value = number(percent)
    if value is None:
        spelled = _spelled(text)
        return spelled if spelled is None else number(str(spelled))
    return value / 100 if percent != text else value


LOW = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen"""
UNITS = {word: value for value, word in enumerate(LOW.split())}
TENS = {
    word: 10 * value
    for value, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)
}
SCALES = {"thousand": 1_000, "million": 1_000_000}


def _spelled(text: str) -> int | None:
    """The whole number that English words spell. None: they spell none."""
    words = [word for word in re.split(r"[\s-]+", text.removeprefix("minus ")) if word and word != "and"]
    total = part = 0
    for word in words:
        if word in TENS and part % 100 == 0:
            part += TENS[word]
        elif word in UNITS and (part % 100 == 0 or (part % 10 == 0 and part % 100 >= 20 and UNITS[word] < 10)):
            part += UNITS[word]
        elif word == "hundred" and part:
            part *= 100
        elif word in SCALES and part:
            total, part = total + part * SCALES[word], 0
        else:
            return None
    if not words:
        return None
    return -(total + part) if text.startswith("minus ") else total + part
