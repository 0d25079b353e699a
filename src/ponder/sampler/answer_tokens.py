"""The tokens of an answer, told with the piece of its text in which they begin."""

from __future__ import annotations

from collections import deque

from ponder.sampler.protocol import SampledToken
from ponder.tokenizer import Tokenizer
from ponder.types import Phase


class AnswerTokens:
    """Follows one generation. A token whose text is held back is held back with it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._waiting: deque[tuple[int, SampledToken]] = deque()  # with the byte at which each begins
        self._sampled = 0  # bytes
        self._shown = 0

    def feed(self, token: SampledToken, phase: Phase) -> None:
        if phase is Phase.ANSWER and not self._tokenizer.is_control(token.id):
            self._waiting.append((self._sampled, token))
            self._sampled += len(self._tokenizer.token_bytes(token.id))

    def begun(self, text: str) -> tuple[SampledToken, ...]:
        """Those that begin in the next piece of the answer."""
        self._shown += len(text.encode())
        begun = []
        while self._waiting and self._waiting[0][0] < self._shown:
            begun.append(self._waiting.popleft()[1])
        return tuple(begun)
