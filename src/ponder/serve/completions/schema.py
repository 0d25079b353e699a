"""The body of a completion request. What is not here is refused by name; every value has a bound."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ponder.serve.bounds import MOST_VALUES, LongText, Name
from ponder.serve.chat.schema import Sampled, TokenId

MOST_PROMPTS = 1024
Ids = Annotated[list[TokenId], Field(min_length=1, max_length=MOST_VALUES, fail_fast=True)]


class CompletionRequest(Sampled):
    """The fields of the API, with `top_k` and `min_p` as vLLM has them. Control tokens other than those that end a
    turn are not sampled: the text is text.

    prompt: text, whose control tokens are spelled as any other; or ids, which are taken as they are; or several.
    max_tokens: 0 computes nothing new, for `echo` with `logprobs`. logprobs: so many of the likeliest tokens at each
    place.
    """

    model: Name
    prompt: (
        LongText
        | Annotated[list[LongText], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 16
    best_of: Annotated[int, Field(ge=1, le=1024)] | None = None
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
