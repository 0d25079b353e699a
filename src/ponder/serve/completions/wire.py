"""The objects of `/v1/completions`. A field of a request that is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from ponder.serve.common.wire import (
    MOST_VALUES,
    CompletionUsage,
    FinishReason,
    LongText,
    Name,
    Sampled,
    TokenId,
    Unserved,
    closed,
    event_schema,
)

MOST_PROMPTS = 1024
PromptIds = Annotated[list[TokenId], Field(min_length=1, max_length=MOST_VALUES, fail_fast=True)]


class CompletionRequest(Sampled):
    """The fields of the API, with `top_k` and `min_p` as vLLM has them. Control tokens other than those that end a
    turn are not sampled: the text is text.

    prompt: text, whose control tokens are spelled as any other; or ids, which are taken as they are; or several.
    max_tokens: 0 computes nothing new, for `echo` with `logprobs`.
    logprobs: the number of likeliest tokens that are given at each place.
    """

    model: Name
    prompt: (
        LongText
        | Annotated[list[LongText], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
        | PromptIds
        | Annotated[list[PromptIds], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 16
    suffix: Unserved = None
    best_of: Annotated[int, Field(ge=1, le=1024)] | None = None
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


# Answers --------------------------------------------------------------------------------------------------------------


@closed
class TextLogprobs(TypedDict):
    """One entry for each token, in order. Nothing is known of the first token of a prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


@closed
class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class TextPiece(TypedDict):
    """A piece of a choice in a stream; the last one has the reason for its end."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


@closed
class TextHead(TypedDict):
    """The fields of every object of one answer."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str


@closed
class TextCompletion(TextHead):
    choices: list[TextChoice]
    usage: CompletionUsage | None


class TextChunk(TextHead):
    """An event of a stream."""

    choices: list[TextPiece]
    usage: NotRequired[CompletionUsage | None]


TEXT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": TextCompletion,
        "description": "The continuations, or their pieces as they come",
        "content": event_schema("`text_completion` objects in `data`, then `[DONE]`"),
    }
}
