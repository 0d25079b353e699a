"""Effort as limits on thinking: a word for the caller, exact token counts for the engine."""

from __future__ import annotations

from fractions import Fraction

from ponder.types import Effort, InvalidRequest, ThinkingLimits

FRACTIONS = {
    Effort.NONE: Fraction(0),
    Effort.MINIMAL: Fraction(1, 32),
    Effort.LOW: Fraction(1, 8),
    Effort.MEDIUM: Fraction(1, 2),
    Effort.HIGH: Fraction(1),
}
"""The share that thinking may take of the window less the answer's room, or of what a model that folds was made for."""

ANSWER_SHARE = Fraction(1, 8)
"""The share of the window that is kept for the answer."""


def parse_effort(text: str) -> Effort:
    """Raises InvalidRequest that lists the efforts."""
    try:
        return Effort(text)
    except ValueError:
        raise InvalidRequest(f"there is no effort {text!r}: choose {', '.join(Effort)}") from None


def answer_room(window: int, max_tokens: int | None = None) -> int:
    """Tokens kept for the answer: an eighth of the window, at most half of `max_tokens`."""
    room = int(window * ANSWER_SHARE)
    return room if max_tokens is None else min(room, max_tokens // 2)


def limits(effort: Effort | str, window: int, longest: int | None = None) -> ThinkingLimits:
    """The cap of an effort in a window of so many tokens: its share (`FRACTIONS`) of what the answer's room leaves, or
    of `longest`, the thinking that a model which folds its thoughts was made for.

    "none" is 0, a direct prompt; any other effort has at least one token, the close.
    """
    effort = parse_effort(effort)
    most = window - answer_room(window) if longest is None else longest
    return ThinkingLimits(cap=0 if effort is Effort.NONE else max(1, int(most * FRACTIONS[effort])))
