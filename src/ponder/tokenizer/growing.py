"""Encoding text that is still being written."""

from __future__ import annotations

from ponder.tokenizer.bpe import Tokenizer

_RETRY_CHARACTERS = 16
# At the end of a text these may still change: the last piece may grow, and the one before it may take it in (white
# space before a line break; a combining mark, where the text is normalised; 't, under GPT-4o's splitting rule).
_UNSETTLED_PIECES = 2


def settled(tokenizer: Tokenizer, text: str) -> tuple[list[int], int]:
    """The ids with which `encode` of every text that begins with `text` begins, and how many characters they spell.

    Not all such ids: where in doubt, fewer. Encoding may go on from there as if the text began there. Both hold for
    splitting rules that never look back, as those of byte-level BPE vocabularies are.
    """
    ids, begins, pieces = tokenizer.encode_with_pieces(text)
    firsts = [at for at, piece in enumerate(pieces) if at == 0 or piece != pieces[at - 1]]
    if len(firsts) <= _UNSETTLED_PIECES:
        return [], 0
    end = firsts[-_UNSETTLED_PIECES]
    return ids[:end], begins[end]


class GrowingText:
    """Gives the ids of a text piece by piece, each once no further text can change it."""

    def __init__(self, tokenizer: Tokenizer, *, every: int = _RETRY_CHARACTERS) -> None:
        """every: characters to come in before ids are looked for again."""
        self._tokenizer = tokenizer
        self._every = every
        self._open = ""
        self._try_at = every

    def feed(self, text: str) -> list[int]:
        """The ids that are settled now. Joined, they begin `encode` of the texts joined."""
        self._open += text
        if len(self._open) < self._try_at:
            return []
        ids, length = settled(self._tokenizer, self._open)
        self._open = self._open[length:]
        self._try_at = len(self._open) + max(self._every, len(self._open) // 4)
        return ids
