"""What was sampled, as rows to learn from: trajectories with advantages in, micro-batches out."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ponder.train.data.packing import Batch, Example, council_targets, fill, gather
from ponder.train.policy.losses import Weighting, token_weights
from ponder.types import CouncilTokens, DataError, Origin, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """A micro-batch of policy optimisation.

    It is a batch whose weights are those of `losses.token_weights`, 0 where a token was not sampled. For each of its
    positions it has what the loss needs to know about the token it predicts.

    old_BT: log-probability when it was sampled.
    values_BT, returns_BT: a critic's value then, and what it should have been; 0 without a critic.
    trajectories_BT: which trajectory it is of, numbered from 0 within the micro-batch; all segments of a trajectory are
        in one.
    """

    batch: Batch
    old_BT: NDArray[np.float32]
    advantages_BT: NDArray[np.float32]
    values_BT: NDArray[np.float32]
    returns_BT: NDArray[np.float32]
    trajectories_BT: NDArray[np.int32]

    @property
    def num_positions(self) -> int:
        return self.batch.num_positions


def pack_updates(updates: Sequence[Sequence[Experience]], said: Mapping[str, Any]) -> bytes:
    """The micro-batches of a step's updates for another process, with what is said beside them, as JSON."""
    arrays: dict[str, NDArray[Any]] = {}
    for update, batches in enumerate(updates):
        for number, each in enumerate(batches):
            parts = {**asdict(each.batch), **{f.name: getattr(each, f.name) for f in fields(each) if f.name != "batch"}}
            arrays |= {f"{update}/{number}/{name}": array for name, array in parts.items()}
    told = json.dumps({**said, "counts": [len(each) for each in updates]}).encode()
    stream = io.BytesIO()
    np.savez(stream, json=np.frombuffer(told, np.uint8), **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
    return stream.getvalue()


def unpack_updates(payload: bytes) -> tuple[list[list[Experience]], dict[str, Any]]:
    """What `pack_updates` was given."""
    own = [field.name for field in fields(Experience) if field.name != "batch"]
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        said: dict[str, Any] = json.loads(arrays["json"].tobytes())
        updates = [
            [
                Experience(
                    batch=Batch(**{field.name: arrays[f"{update}/{number}/{field.name}"] for field in fields(Batch)}),
                    **{name: arrays[f"{update}/{number}/{name}"] for name in own},
                )
                for number in range(count)
            ]
            for update, count in enumerate(said.pop("counts"))
        ]
    return updates, said


@dataclass(frozen=True, slots=True)
class Lesson:
    """A trajectory to learn from.

    advantage: what it was worth: one number for all of its tokens, or one for each id of its segments, end to end.
        Those of ids that were not sampled are not read.
    weight: of each of its sampled tokens.
    values, returns: a critic's, as advantages are; 0 without a critic.
    """

    trajectory: Trajectory
    advantage: float | NDArray[np.float32]
    weight: float
    values: float | NDArray[np.float32] = 0.0
    returns: float | NDArray[np.float32] = 0.0

    @property
    def teaches(self) -> bool:
        """Whether any advantage differs from 0."""
        return bool(np.any(self.advantage))


def sampled_tokens(trajectory: Trajectory) -> int:
    """Over all segments: what lengths are normalised by."""
    return sum(origin is Origin.SAMPLED for segment in trajectory.segments for origin in segment.origins)


def weigh(
    trajectories: Sequence[Trajectory],
    advantages: Sequence[float | NDArray[np.float32]],
    weighting: Weighting,
    *,
    longest: int,
) -> list[Lesson]:
    """The lessons of one update, each with the weight that `losses.token_weights` gives its tokens."""
    lengths_M = torch.tensor([sampled_tokens(each) for each in trajectories])
    return list(map(Lesson, trajectories, advantages, token_weights(lengths_M, weighting, longest).tolist()))


def lay_out(
    lessons: Sequence[Lesson],
    *,
    rows: int,
    sequence: int,
    pad: int,
    together: int = 1,
    council: CouncilTokens | None = None,
) -> list[Experience]:
    """Micro-batches of (rows, sequence), filled with the lessons in their order. A trajectory of more contexts than fit
    into that many rows gets a separate micro-batch, with more of them. Raises DataError for a context that is longer
    than a row, and ValueError for advantages that are neither one number nor one for each id.

    together: every that many lessons are in one micro-batch.
    council: how several voices think in one context, where the format has a way.
    """
    numbered = [_examples(lesson, number, sequence, council) for number, lesson in enumerate(lessons)]
    units = ([*chain(*numbered[at : at + together])] for at in range(0, len(numbered), together))
    return [_fill(members, sequence, pad) for members in gather(units, rows, sequence)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Example(Example):
    """One segment.

    old: log-probabilities when sampled, of every id.
    advantages, values, returns: of every id.
    number: of its lesson; those of a micro-batch follow each other.
    """

    old: NDArray[np.float32]
    advantages: NDArray[np.float32]
    values: NDArray[np.float32]
    returns: NDArray[np.float32]
    weight: float
    number: int


def _examples(lesson: Lesson, number: int, sequence: int, council: CouncilTokens | None) -> list[_Example]:
    made: list[_Example] = []
    count = sum(len(segment.ids) for segment in lesson.trajectory.segments)
    known = {"advantages": lesson.advantage, "values": lesson.values, "returns": lesson.returns}
    whole = {name: _of_ids(value, name, count) for name, value in known.items()}
    done = 0
    for segment in lesson.trajectory.segments:
        begin, ids = len(segment.prompt_ids), np.array((*segment.prompt_ids, *segment.ids), np.int32)
        if len(ids) > sequence + 1:
            raise DataError(
                f"a context of {len(ids)} tokens does not fit a row of {sequence}: raise sequence, or lower max_tokens"
            )
        learned, old = (np.zeros(len(ids), np.float32) for _ in range(2))
        learned[begin:] = [origin is Origin.SAMPLED for origin in segment.origins]
        old[begin:] = segment.logprobs
        own = {
            name: np.concatenate([np.zeros(begin, np.float32), value_N[done : done + len(segment.ids)]])
            for name, value_N in whole.items()
        }
        done += len(segment.ids)
        targets = council_targets((*segment.prompt_ids, *segment.ids), council)
        made.append(
            _Example(ids=ids, learned=learned, targets=targets, old=old, weight=lesson.weight, number=number, **own)
        )
    return made


def _of_ids(value: float | NDArray[np.float32], name: str, count: int) -> NDArray[np.float32]:
    """One number for each id of a lesson."""
    value_N = np.asarray(value, np.float32)
    if value_N.shape not in ((), (count,)):
        raise ValueError(f"a lesson's {name} must be one number, or {count} (got the shape {value_N.shape})")
    return np.broadcast_to(value_N, count)


def _fill(members: Sequence[Sequence[_Example]], sequence: int, pad: int) -> Experience:
    batch = Batch.empty(len(members), sequence, pad)
    shape = batch.ids_BT.shape
    made = Experience(
        batch=batch,
        old_BT=np.zeros(shape, np.float32),
        advantages_BT=np.zeros(shape, np.float32),
        values_BT=np.zeros(shape, np.float32),
        returns_BT=np.zeros(shape, np.float32),
        trajectories_BT=np.zeros(shape, np.int32),
    )
    first = min(example.number for contents in members for example in contents)
    for row, contents in enumerate(members):
        fill(batch, row, contents)
        begin = 0
        for example in contents:
            here = slice(begin, begin + len(example.ids) - 1)
            batch.weights_BT[row, here] *= example.weight
            made.old_BT[row, here] = example.predicted(example.old)
            made.advantages_BT[row, here] = example.predicted(example.advantages)
            made.values_BT[row, here] = example.predicted(example.values)
            made.returns_BT[row, here] = example.predicted(example.returns)
            made.trajectories_BT[row, here] = example.number - first
            begin = here.stop
    return made
