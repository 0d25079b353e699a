"""What `/v1/completions` answers, for its OpenAPI document. `write` makes it; tests hold the two together."""

from __future__ import annotations

from typing import Any, Literal

from ponder.serve.chat.answer import Bill, Told
from ponder.serve.streaming import event_schema


class Logprobs(Told):
    """One entry for each token, in order. Of the first token of a prompt nothing is known."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(Told):
    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(Told):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Bill


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": TextCompletion,
        "description": "The continuations, or their pieces as they come",
        "content": event_schema("`text_completion` objects in `data`, then `[DONE]`"),
    }
}
