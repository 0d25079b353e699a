"""What `/v1/chat/completions` answers, for its OpenAPI document. `write` makes it; tests hold the two together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ponder.serve.streaming import event_schema


class Told(BaseModel):
    """A JSON object with these fields and no others; those with a default may be missing."""

    model_config = ConfigDict(extra="forbid")


class CalledFunction(Told):
    name: str
    arguments: str


class MadeCall(Told):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(Told):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[MadeCall] | None = None


class TopLogprob(Told):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(Told):
    content: list[TokenLogprob]
    refusal: None


class Choice(Told):
    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: Logprobs | None


class PromptDetails(Told):
    cached_tokens: int


class CompletionDetails(Told):
    reasoning_tokens: int


class Bill(Told):
    """refilled_tokens: run through the model once more because a thought was folded; neither prompt nor completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    refilled_tokens: int | None = None


class ChatCompletion(Told):
    """dropped_turns: how many of the oldest messages `truncation: "auto"` left out."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default"]
    choices: list[Choice]
    usage: Bill
    dropped_turns: int | None = None


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "The answer, or its pieces as they come",
        "content": event_schema("`chat.completion.chunk` objects in `data`, then `[DONE]`"),
    }
}
