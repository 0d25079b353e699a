"""A completion request as asks, one for each prompt of ids, and continuations as the objects of the API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ponder.dialogue.format import Format
from ponder.engine.requests import check_prompt
from ponder.sampler.protocol import Completion, ToolChoice
from ponder.serve.common.convert import check_sampled, completion_usage, finish_reason, read_sampled, tenant
from ponder.serve.completions.wire import (
    MOST_PROMPTS,
    CompletionRequest,
    TextChoice,
    TextChunk,
    TextCompletion,
    TextHead,
    TextLogprobs,
    TextPiece,
)
from ponder.serve.errors import BadRequest, Unsupported, too_long
from ponder.serve.models import Served
from ponder.serve.settings import Settings
from ponder.think.ask import Ask
from ponder.tokenizer import StreamDecoder, Tokenizer
from ponder.types import InvalidRequest, Phase, StopReason, ThinkingLimits, TopLogprobs, WindowExceeded

NEVER = -1e9  # added to a logit
Token = tuple[int, float | None, TopLogprobs]  # None: nothing is known of the first token of a prompt
Scores = tuple[Sequence[float], Sequence[TopLogprobs]]


# In -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPrompt:
    """ask: None: nothing is sampled.
    top: the number of likeliest ids at each place of the prompt whose log-probabilities are given; None: the prompt is
        not scored.
    """

    ids: tuple[int, ...]
    ask: Ask | None
    top: int | None


def read_prompts(body: CompletionRequest, served: Served, settings: Settings, owner: str) -> list[TextPrompt]:
    """Raises BadRequest naming the field that cannot be served as asked."""
    can = served.capabilities
    tokenizer, format, window = can.tokenizer, can.format, can.window
    if tokenizer is None or format is None or window is None:
        raise Unsupported("model", f"{served.name!r} runs on another server: ask it under /v1/chat/completions")
    check_sampled(body, settings)
    _refuse(body)
    prompts = _ids(body, tokenizer)
    if len(prompts) * body.n > MOST_PROMPTS:
        raise BadRequest(
            f"n: too many completions ({len(prompts)} prompts of {body.n} each): ask for at most {MOST_PROMPTS} in all",
            param="n",
        )
    for number, ids in enumerate(prompts):
        where = f"prompt[{number}]" if len(prompts) > 1 else "prompt"
        if not ids:
            raise BadRequest(f"{where} is empty: write at least one token", param="prompt")
        if _thinks(ids, format):
            raise BadRequest(
                f"{where} ends inside thinking, which completions cannot hide: use /v1/chat/completions", param="prompt"
            )
        try:
            check_prompt(ids, tokenizer.vocab_size, window)
        except InvalidRequest as error:
            if isinstance(error, WindowExceeded):
                which = f"{where}: {error}" if len(prompts) > 1 else str(error)
                raise too_long(f"{window} tokens: {which}", param="prompt") from None
            raise BadRequest(f"{where}: {error}", param="prompt", code="invalid_value") from None
    ends = format.phase_tokens.end
    banned = tuple((id, NEVER) for id in tokenizer.control.values() if id not in ends)
    first = read_sampled(body, prompts[0], served, settings)
    first = replace(
        first,
        max_tokens=body.max_tokens or None,
        logit_bias=tuple((dict(first.logit_bias) | dict(banned)).items()),
        top_logprobs=body.logprobs or 0,
        thinking=ThinkingLimits(cap=0),
        start=Phase.ANSWER,
        tool_choice=ToolChoice.NONE,
        tenant=tenant(owner, None, served),
    )
    top = body.logprobs if body.echo else None
    return [
        TextPrompt(ids=ids, top=top, ask=replace(first, prompt=ids) if body.max_tokens else None) for ids in prompts
    ]


def _refuse(body: CompletionRequest) -> None:
    if body.best_of not in (None, body.n):
        raise Unsupported("best_of", "completions are not ranked here: leave it out, or set n")
    if not body.max_tokens and not body.echo:
        raise BadRequest(
            "max_tokens is 0 and echo is off, so the response would be empty: set one of them", param="max_tokens"
        )


def _ids(body: CompletionRequest, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Text is encoded as text, whatever it spells."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [tuple(tokenizer.encode(prompt))]
    if isinstance(prompt[0], str):
        return [tuple(ids) for ids in tokenizer.encode_batch(prompt)]
    each = [prompt] if isinstance(prompt[0], int) else prompt
    return [tuple(ids) for ids in each]


def _thinks(ids: tuple[int, ...], format: Format) -> bool:
    tokens = format.phase_tokens
    last = next((id for id in reversed(ids) if id in (tokens.think_open, tokens.think_close)), None)
    return last is not None and last == tokens.think_open


# Out ------------------------------------------------------------------------------------------------------------------


class TextWriter:
    """One answer."""

    def __init__(self, body: CompletionRequest, served: Served) -> None:
        assert served.tokenizer is not None, "read_prompts refuses a model whose tokens are not here"
        self._body = body
        self._tokenizer = served.tokenizer
        self._head: TextHead = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    def whole(self, choices: list[TextChoice], completions: Iterable[Completion]) -> TextCompletion:
        return {**self._head, "choices": choices, "usage": completion_usage(completions)}

    def chunk(self, choices: list[TextPiece]) -> TextChunk:
        """A chunk; with a null where the last one is the bill."""
        chunk: TextChunk = {**self._head, "choices": choices}
        if self._body.include_usage:
            chunk["usage"] = None
        return chunk

    def bill(self, completions: Iterable[Completion]) -> TextChunk:
        """The chunk that ends a stream where it was asked for."""
        return {**self.chunk([]), "usage": completion_usage(completions)}

    def choice(self, index: int, prompt: TextPrompt, completion: Completion, scores: Scores | None) -> TextChoice:
        return {
            "index": index,
            "text": self.echoed(prompt) + completion.text,
            "logprobs": self._logprobs(prompt, completion, scores),
            "finish_reason": finish_reason(completion),
        }

    def piece(self, index: int, text: str) -> TextPiece:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def ending(self, index: int, prompt: TextPrompt, completion: Completion, scores: Scores | None) -> TextPiece:
        """The last piece, with the log-probabilities of the whole."""
        return {**self.choice(index, prompt, completion, scores), "text": ""}

    def echoed(self, prompt: TextPrompt) -> str:
        return self._tokenizer.decode(prompt.ids) if self._body.echo else ""

    def _logprobs(self, prompt: TextPrompt, completion: Completion, scores: Scores | None) -> TextLogprobs | None:
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
        """The likeliest tokens and the one that stands there."""
        if logprob is None:
            return None
        return {self._spelled(other): likely for other, likely in (*reversed(top), (id, logprob))}

    def _spelled(self, id: int) -> str:
        """Spell a token as the API does, also one that is not text by itself."""
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
