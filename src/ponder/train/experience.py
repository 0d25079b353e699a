"""What was sampled, as rows to learn from: trajectories with advantages in, micro-batches out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ponder.train.packing import Batch, Example, fill, place
from ponder.types import DataError, Origin, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """A micro-batch of policy optimisation: a batch whose weights are those of `losses.token_weights`, 0 where a token
    was not sampled, and for each of its positions what the loss needs to know about the token it predicts.

    old_BT: log-probability when it was sampled. trajectories_BT: which trajectory it is of, numbered from 0 within the
    micro-batch; all segments of a trajectory are in one.
    """

    batch: Batch
    old_BT: NDArray[np.float32]
    advantages_BT: NDArray[np.float32]
    trajectories_BT: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A trajectory, what it was worth, and the weight of each of its sampled tokens."""

    trajectory: Trajectory
    advantage: float
    weight: float


def sampled_tokens(trajectory: Trajectory) -> int:
    """Over all segments: what lengths are normalised by."""
    return sum(origin is Origin.SAMPLED for segment in trajectory.segments for origin in segment.origins)


def lay_out(lessons: Sequence[Lesson], *, rows: int, sequence: int, pad: int) -> list[Experience]:
    """Micro-batches of (rows, sequence), filled with the lessons in their order. Raises DataError for a trajectory that
    does not fit one alone."""
    made: list[Experience] = []
    current: list[Lesson] = []
    members: list[list[_Example]] = []
    for lesson in lessons:
        found = _place([*current, lesson], rows, sequence)
        if found is None and current:
            made.append(_fill(members, sequence, pad))
            current, found = [], _place([lesson], rows, sequence)
        if found is None:
            segments = lesson.trajectory.segments
            longest = max(len(segment.prompt_ids) + len(segment.ids) for segment in segments)
            raise DataError(
                f"a trajectory of {len(segments)} contexts of up to {longest} tokens does not fit a micro-batch of "
                f"{rows} x {sequence}: raise sequence or batch, or lower max_tokens"
            )
        current.append(lesson)
        members = found
    return [*made, _fill(members, sequence, pad)] if current else made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Example(Example):
    """One segment. old: log-probabilities when sampled, of every id. number: of its trajectory."""

    old: Sequence[float]
    lesson: Lesson
    number: int


def _place(lessons: Sequence[Lesson], rows: int, sequence: int) -> list[list[_Example]] | None:
    """The segments in each row; None where they do not all fit."""
    examples = [
        _Example(
            ids=(*segment.prompt_ids, *segment.ids),
            learned=[False] * len(segment.prompt_ids) + [origin is Origin.SAMPLED for origin in segment.origins],
            old=[0.0] * len(segment.prompt_ids) + list(segment.logprobs),
            lesson=lesson,
            number=number,
        )
        for number, lesson in enumerate(lessons)
        for segment in lesson.trajectory.segments
    ]
    if any(len(example.ids) > sequence + 1 for example in examples):
        return None
    return place(examples, rows, sequence)


def _fill(members: Sequence[Sequence[_Example]], sequence: int, pad: int) -> Experience:
    batch = Batch.empty(len(members), sequence, pad)
    shape = batch.ids_BT.shape
    made = Experience(
        batch=batch,
        old_BT=np.zeros(shape, np.float32),
        advantages_BT=np.zeros(shape, np.float32),
        trajectories_BT=np.zeros(shape, np.int32),
    )
    for row, contents in enumerate(members):
        fill(batch, row, contents)
        begin = 0
        for example in contents:
            here = slice(begin, begin + len(example.ids) - 1)
            batch.weights_BT[row, here] *= example.lesson.weight
            made.old_BT[row, here] = example.old[1:]
            made.advantages_BT[row, here] = example.lesson.advantage
            made.trajectories_BT[row, here] = example.number
            begin = here.stop
    return made
