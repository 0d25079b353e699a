"""Lanes of a council: what each voice thinks beside the others. A character is a token, so that a lane knows what has
been said in another one by the time that it needs it: voices are in step with each other under any tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ponder.dialogue.messages import LaneEnd, Voice

WAIT = "."
"""What a voice says until it has heard what it needs."""


def has_heard(at: int, said: int) -> bool:
    """Whether a voice whose next character is its number `at` has heard character number `said` of every other voice.

    The character is drawn where the voice said the one before: what the others say in that very step may come later.
    """
    return said < at - 1


def wait_for(lane: str, said: int) -> str:
    """A lane that goes on once character number `said` of the others is heard."""
    while not has_heard(len(lane), said):
        lane += WAIT
    return lane


def spoken(lanes: Sequence[str], joining: Collection[int]) -> tuple[Voice, ...]:
    """The voices of a council that the first of the lanes `joining` to end will end. The others leave at their ends,
    and are cut where they would go on beyond it. Where none joins, all leave."""
    last = min(map(len, [lanes[voice] for voice in joining] or [max(lanes, key=len)]))

    def end(voice: int) -> LaneEnd:
        if len(lanes[voice]) > last:
            return LaneEnd.CUT
        return LaneEnd.JOINED if voice in joining else LaneEnd.LEFT

    return tuple(Voice(lane[: last + 1], end(voice)) for voice, lane in enumerate(lanes))
