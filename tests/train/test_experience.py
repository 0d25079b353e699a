"""Trajectories in rows: every sampled token once, beside what was known when it was sampled."""

import numpy as np
import pytest

from ponder.train.policy.lessons import Lesson, lay_out, sampled_tokens
from ponder.types import DataError, Origin, Phase, Segment, Trajectory


def segment(prompt, ids, forced=()):
    origins = tuple(Origin.FORCED if i in forced else Origin.SAMPLED for i in range(len(ids)))
    return Segment(
        prompt_ids=tuple(prompt),
        ids=tuple(ids),
        logprobs=tuple(-id / 100 for id in ids),
        phases=(Phase.THINK,) * len(ids),
        origins=origins,
        weights_version=0,
    )


def lesson(*segments, advantage=1.0, weight=0.5):
    return Lesson(Trajectory(segments=segments), advantage, weight)


def told(experience):
    """(predicted id, old log-probability, advantage, weight, trajectory) of each position that counts."""
    at = experience.batch.weights_BT > 0
    columns = (experience.batch.targets_BT, experience.old_BT, experience.advantages_BT, experience.batch.weights_BT)
    return [
        (int(id), round(float(old), 4), float(advantage), float(weight), int(number))
        for id, old, advantage, weight, number in zip(
            *(column[at] for column in columns), experience.trajectories_BT[at], strict=True
        )
    ]


def test_every_sampled_token_counts_once_with_what_was_known_of_it():
    folded = lesson(segment([1, 2], [31, 32], forced=(1,)), segment([1, 2, 32], [33]), advantage=-2.0, weight=0.25)
    plain = lesson(segment([5], [41, 42, 43]), advantage=3.0)
    (made,) = lay_out([folded, plain], rows=2, sequence=8, pad=0)
    assert sorted(told(made)) == [
        (31, -0.31, -2.0, 0.25, 0),
        (33, -0.33, -2.0, 0.25, 0),
        (41, -0.41, 3.0, 0.5, 1),
        (42, -0.42, 3.0, 0.5, 1),
        (43, -0.43, 3.0, 0.5, 1),
    ]
    assert sampled_tokens(folded.trajectory) == 2


def test_an_advantage_may_differ_from_token_to_token():
    """One for each id of the segments, end to end; those of tokens that were not sampled are not read."""
    folded = lesson(
        segment([1, 2], [31, 32], forced=(1,)), segment([1, 2, 32], [33, 34]), advantage=np.array([1.5, 9.0, -2.0, 0.0])
    )
    (made,) = lay_out([folded, lesson(segment([5], [41]))], rows=2, sequence=8, pad=0)
    assert sorted((id, advantage) for id, _, advantage, _, _ in told(made)) == [
        (31, 1.5),
        (33, -2.0),
        (34, 0.0),
        (41, 1.0),
    ]
    assert folded.teaches
    assert not lesson(segment([1], [2, 3]), advantage=np.zeros(2)).teaches
    with pytest.raises(ValueError, match=r"advantages must be one number, or 4 \(got the shape \(3,\)\)"):
        lay_out([lesson(*folded.trajectory.segments, advantage=np.zeros(3))], rows=2, sequence=8, pad=0)


def test_contexts_do_not_see_each_other():
    (made,) = lay_out([lesson(segment([1], [2, 3])), lesson(segment([4], [5]))], rows=1, sequence=6, pad=0)
    assert made.batch.documents_BT.tolist() == [[0, 0, 1, 2, 2, 2]]
    assert made.batch.positions_BT.tolist() == [[0, 1, 0, 0, 1, 2]]
    assert made.batch.ids_BT.tolist() == [[1, 2, 4, 0, 0, 0]]


def test_a_trajectory_is_never_split_and_micro_batches_have_one_shape():
    rng = np.random.default_rng(0)
    lessons = [
        lesson(*(segment([7], [100 + number] * int(rng.integers(1, 9))) for _ in range(rng.integers(1, 4))))
        for number in range(40)
    ]
    made = lay_out(lessons, rows=3, sequence=12, pad=0)
    assert {each.batch.ids_BT.shape for each in made} == {(3, 12)}
    seen = [sorted({id for id, *_ in told(each)}) for each in made]
    assert [id for ids in seen for id in ids] == list(range(100, 140))  # in their order, each in one micro-batch only
    assert sum(len(told(each)) for each in made) == sum(sampled_tokens(each.trajectory) for each in lessons)
    for each in made:
        numbers = {(id, number) for id, _, _, _, number in told(each)}
        assert sorted(number for _, number in numbers) == list(range(len(numbers)))


def test_many_contexts_get_a_micro_batch_of_their_own_with_rows_for_all():
    many = lesson(*[segment([1], [9] * 4)] * 5)
    made = lay_out([lesson(segment([1], [2])), many, lesson(segment([1], [3]))], rows=2, sequence=6, pad=0)
    assert [each.batch.ids_BT.shape for each in made] == [(2, 6), (5, 6), (2, 6)]
    assert [len(told(each)) for each in made] == [1, 20, 1]


def test_a_context_longer_than_a_row_is_refused():
    with pytest.raises(DataError, match="a context of 8 tokens does not fit a row of 6"):
        lay_out([lesson(segment([1], [2] * 7))], rows=4, sequence=6, pad=0)
