"""Continuations as the API's `text_completion` objects."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ponder.sampler.protocol import Completion
from ponder.serve.chat.write import finish_reason, usage
from ponder.serve.completions.read import Prompt
from ponder.serve.completions.schema import CompletionRequest
from ponder.serve.models import Served
from ponder.tokenizer import StreamDecoder, Tokenizer
from ponder.types import StopReason, TopLogprobs, Usage

Token = tuple[int, float | None, TopLogprobs]  # of the first token of a prompt nothing is known
Scores = tuple[Sequence[float], Sequence[TopLogprobs]]


class Writer:
    """One response."""

    def __init__(self, body: CompletionRequest, served: Served, tokenizer: Tokenizer) -> None:
        self._body = body
        self._tokenizer = tokenizer
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    def whole(self, choices: list[dict[str, Any]], completions: Iterable[Completion]) -> dict[str, Any]:
        return {**self._head, "choices": choices, "usage": usage(sum((each.usage for each in completions), Usage()))}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._head, "choices": choices, **more}

    def choice(self, index: int, prompt: Prompt, completion: Completion, scores: Scores | None) -> dict[str, Any]:
        return {
            "index": index,
            "text": self.echoed(prompt) + completion.text,
            "logprobs": self.logprobs(prompt, completion, scores),
            "finish_reason": finish_reason(completion),
        }

    def piece(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def ending(self, index: int, prompt: Prompt, completion: Completion, scores: Scores | None) -> dict[str, Any]:
        """The last piece, with the log-probabilities of the whole."""
        return {**self.choice(index, prompt, completion, scores), "text": ""}

    def echoed(self, prompt: Prompt) -> str:
        return self._tokenizer.decode(prompt.ids) if self._body.echo else ""

    def logprobs(self, prompt: Prompt, completion: Completion, scores: Scores | None) -> dict[str, Any] | None:
        if self._body.logprobs is None:
            return None
        tokens = [*_scored(prompt.ids, scores), *self._generated(completion)]
        decoder, offset, offsets = StreamDecoder(self._tokenizer), 0, []
        for id, _, _ in tokens:
            offsets.append(offset)
            offset += len(decoder.feed(id))
        return {
            "tokens": [self._spelled(id) for id, _, _ in tokens],
            "token_logprobs": [logprob for _, logprob, _ in tokens],
            "top_logprobs": [self._top(*token) for token in tokens],
            "text_offset": offsets,
        }

    def _generated(self, completion: Completion) -> Iterator[Token]:
        """Token by token, the end token too; where a stop string cut the text, up to there."""
        segment = completion.segment
        if segment is None:
            return
        left = len(completion.text.encode()) if completion.stop_reason is StopReason.STOP else None
        tops = segment.top_logprobs or ((),) * len(segment.ids)
        for id, logprob, top in zip(segment.ids, segment.logprobs, tops, strict=True):
            if left is not None and left <= 0:
                return
            left = None if left is None else left - len(self._tokenizer.token_bytes(id))
            yield id, logprob, top

    def _top(self, id: int, logprob: float | None, top: TopLogprobs) -> dict[str, float] | None:
        """The likeliest, and the token that stands there."""
        if logprob is None:
            return None
        return {self._spelled(other): likely for other, likely in (*reversed(top), (id, logprob))}

    def _spelled(self, id: int) -> str:
        """As the API spells a token that is no text by itself."""
        token = self._tokenizer.token_bytes(id)
        try:
            return token.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def _scored(ids: Sequence[int], scores: Scores | None) -> Iterator[Token]:
    if scores is None:
        return
    yield ids[0], None, ()
    yield from zip(ids[1:], *scores, strict=True)
