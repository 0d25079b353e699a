"""Raw text as tokens, and the rows of pre-training cut from it.

An epoch is every document (a source's as often as its `repeat`), in an order drawn from (seed, epoch), laid end to end
and cut into rows; row i is a pure function of (corpus, seed, i), so resuming needs no state. Every document begins with
the separator, which is also what its last token predicts: no target ever needs to be masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ponder.dialogue import control
from ponder.tokenizer import Tokenizer
from ponder.train.data.packing import Batch
from ponder.train.data.sources import documents
from ponder.train.recipe.sections import TextRecipe
from ponder.types import DataError

_ENCODED_AT_ONCE = 256


class Corpus:
    """Tokenised documents. `tokens` holds all of them, each with the separator in front; `bounds` where each begins."""

    def __init__(self, pieces: Sequence[NDArray[np.int32]], separator: int) -> None:
        self.separator = separator
        self.pieces = pieces
        self._epoch: tuple[tuple[int, int], NDArray[np.int32]] | None = None

    @property
    def num_tokens(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    def batch(self, step: int, *, batch: int, sequence: int, seed: int) -> Batch:
        """The rows of micro-batch `step`."""
        rows_per_epoch = (self.num_tokens - 1) // sequence
        if rows_per_epoch < 1:
            raise DataError(f"the corpus has {self.num_tokens} tokens, fewer than one row of {sequence}: add text")
        result = Batch.empty(batch, sequence, self.separator)
        for row in range(batch):
            epoch, place = divmod(step * batch + row, rows_per_epoch)
            stream = self._stream(epoch, seed)
            window = stream[place * sequence : place * sequence + sequence + 1]
            result.ids_BT[row] = window[:-1]
            result.targets_BT[row] = window[1:]
        result.weights_BT[:] = 1.0
        starts_BT = result.ids_BT == self.separator
        starts_BT[:, 0] = False  # the piece of a document that a row begins with counts as its first
        result.documents_BT[:] = np.cumsum(starts_BT, axis=1)
        places = np.arange(sequence, dtype=np.int32)
        result.positions_BT[:] = places - np.maximum.accumulate(np.where(starts_BT, places, 0), axis=1)
        return result

    def _stream(self, epoch: int, seed: int) -> NDArray[np.int32]:
        """All documents in the order of `epoch`, end to end. The last one built is kept."""
        if self._epoch is None or self._epoch[0] != (epoch, seed):
            order = np.random.default_rng([seed, epoch]).permutation(len(self.pieces))
            self._epoch = ((epoch, seed), np.concatenate([self.pieces[i] for i in order]))
        return self._epoch[1]


def build_corpus(
    sources: Iterable[TextRecipe], tokenizer: Tokenizer, *, seed: int, held_out: float
) -> tuple[Corpus, Corpus]:
    """(training, held out). Which documents are held out depends on their text alone, so duplicates stay together."""
    separator = tokenizer.control_id(control.ENDOFTEXT)
    train: list[NDArray[np.int32]] = []
    kept_back: list[NDArray[np.int32]] = []
    for source in sources:
        for text, piece in _encode(documents(source, seed=seed), tokenizer, separator):
            if _share(text) < held_out:
                kept_back.append(piece)
            else:
                train.extend([piece] * source.repeat)
    return Corpus(train, separator), Corpus(kept_back, separator)


def _encode(texts: Iterable[str], tokenizer: Tokenizer, separator: int) -> Iterable[tuple[str, NDArray[np.int32]]]:
    """(text, ids with the separator in front), encoded many at once."""
    waiting: list[str] = []
    for text in texts:
        waiting.append(text)
        if len(waiting) == _ENCODED_AT_ONCE:
            yield from _encode_all(waiting, tokenizer, separator)
            waiting = []
    yield from _encode_all(waiting, tokenizer, separator)


def _encode_all(texts: Sequence[str], tokenizer: Tokenizer, separator: int) -> Iterable[tuple[str, NDArray[np.int32]]]:
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        yield text, np.array([separator, *ids], np.int32)


def _share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64
