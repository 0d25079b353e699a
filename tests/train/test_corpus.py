"""Pre-training rows: every token once an epoch, a pure function of (seed, step), no view across documents."""

from pathlib import Path

import numpy as np
import pytest

from ponder.testing.tiny import ByteTokenizer
from ponder.train.data.corpus import Corpus, build_corpus
from ponder.train.recipe.sections import TextRecipe
from ponder.types import DataError

SEPARATOR = 0


def corpus() -> Corpus:
    pieces = [np.array([SEPARATOR, *range(100 * n, 100 * n + n)], np.int32) for n in range(1, 12)]
    return Corpus(pieces, SEPARATOR)


def test_an_epoch_predicts_every_token_at_most_once_and_drops_less_than_a_row() -> None:
    text = corpus()
    sequence, rows = 7, (text.num_tokens - 1) // 7
    batches = [text.batch(step, batch=1, sequence=sequence, seed=3) for step in range(rows)]
    targets = np.concatenate([batch.targets_BT[0] for batch in batches])
    words = targets[targets != SEPARATOR]
    assert len(np.unique(words)) == len(words)
    assert text.num_tokens - len(targets) <= sequence


def test_targets_follow_inputs_and_documents_begin_at_the_separator() -> None:
    batch = corpus().batch(0, batch=4, sequence=7, seed=0)
    assert (batch.ids_BT[:, 1:] == batch.targets_BT[:, :-1]).all()
    assert (batch.weights_BT == 1).all()
    for row in range(4):
        for place in range(1, 7):
            begins = batch.ids_BT[row, place] == SEPARATOR
            assert batch.documents_BT[row, place] - batch.documents_BT[row, place - 1] == int(begins)
            assert batch.positions_BT[row, place] == (0 if begins else batch.positions_BT[row, place - 1] + 1)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    one, other = corpus(), corpus()
    late = one.batch(40, batch=2, sequence=7, seed=1)
    for step in (0, 80, 3):
        other.batch(step, batch=2, sequence=7, seed=1)
    assert (other.batch(40, batch=2, sequence=7, seed=1).ids_BT == late.ids_BT).all()
    assert (other.batch(40, batch=2, sequence=7, seed=2).ids_BT != late.ids_BT).any()


def test_held_out_documents_are_not_trained_on_whatever_their_repeat(tmp_path: Path) -> None:
    lines = "\n".join(f'{{"text": "document number {n}"}}' for n in range(200))
    (tmp_path / "texts.jsonl").write_text(lines)
    source = TextRecipe(source=str(tmp_path / "texts.jsonl"), repeat=3)
    train, held_out = build_corpus([source], ByteTokenizer(), seed=0, held_out=0.2)
    trained, kept = ({tuple(piece) for piece in part.pieces} for part in (train, held_out))
    assert not trained & kept
    assert len(trained) + len(kept) == 200
    assert len(train.pieces) == 3 * len(trained)
    assert 20 < len(kept) < 60


def test_too_little_text_for_one_row_is_an_error_with_the_counts() -> None:
    with pytest.raises(DataError, match="77 tokens, fewer than one row of 500"):
        corpus().batch(0, batch=1, sequence=500, seed=0)
