"""What `/v1/responses` and `/v1/conversations` answer, for the OpenAPI document. Tests hold the two together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ponder.serve.chat.answer import TokenLogprob, Told
from ponder.serve.streaming import event_schema

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ToldText(Told):
    type: Literal["input_text"]
    text: str


class ToldOutputText(Told):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class ToldReasoningText(Told):
    type: Literal["reasoning_text"]
    text: str


class ToldSummary(Told):
    type: Literal["summary_text"]
    text: str


class ToldMessage(Told):
    id: str
    type: Literal["message"]
    role: Literal["user", "system", "developer", "assistant"]
    status: ItemStatus
    content: list[ToldText | ToldOutputText]


class ToldReasoning(Told):
    """content, encrypted_content: where they were asked for."""

    id: str
    type: Literal["reasoning"]
    summary: list[ToldSummary]
    status: ItemStatus
    content: list[ToldReasoningText] | None = None
    encrypted_content: str | None = None


class ToldCall(Told):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class ToldCallOutput(Told):
    id: str
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ToldText]
    status: ItemStatus


AnyItem = ToldMessage | ToldReasoning | ToldCall | ToldCallOutput


class ItemPage(Told):
    object: Literal["list"]
    data: list[AnyItem]
    first_id: str
    last_id: str
    has_more: bool


class ToldError(Told):
    code: str
    message: str


class IncompleteDetails(Told):
    reason: Literal["max_output_tokens", "deadline"]


class Removed(Told):
    id: str
    type: Literal["reasoning"]
    action: Literal["removed"]
    reason: Literal["organization_mismatch", "model_mismatch", "turn_boundary"]


class ReasoningConfig(Told):
    """What held: the effort, which reasoning was rendered, and whether more compute was spent."""

    effort: str | None
    summary: None
    context: Literal["current_turn", "all_turns"]
    mode: Literal["standard", "pro"]


class InputDetails(Told):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Told):
    reasoning_tokens: int


class ResponseBill(Told):
    """refilled_tokens: run through the model once more because a thought was folded; neither input nor output."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    refilled_tokens: int | None = None


class ToldConversationName(Told):
    id: str


class ResponseObject(Told):
    """input_transformations: reasoning that the model was not given, and why. dropped_turns: how many of the oldest
    messages `truncation: "auto"` left out."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None = None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ToldError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[ToldReasoning | ToldMessage | ToldCall]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ToldConversationName | None
    prompt_cache_key: str | None
    reasoning: ReasoningConfig
    input_transformations: list[Removed]
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseBill | None
    user: str | None
    metadata: dict[str, str]
    dropped_turns: int | None = None


class ResponseDeleted(Told):
    id: str
    object: Literal["response"]
    deleted: bool


class ConversationObject(Told):
    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(Told):
    id: str
    object: Literal["conversation.deleted"]
    deleted: bool


def answers(
    model: type[Told] | Any, *, streams: bool = False, leads_to: Mapping[str, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The good answer of a route. streams: it may be events as well. leads_to: operations that take its `id`, with the
    parameter that it is."""
    told: dict[str, Any] = {"model": model, "description": "What was asked for"}
    if streams:
        told["content"] = event_schema("`response.*` events in `data`, numbered by `sequence_number`")
    if leads_to:
        told["links"] = {
            name: {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
            for name, parameter in leads_to.items()
        }
    return {200: told}
