"""What `/v1/responses` and `/v1/conversations` are asked and answer; the items of both are in `items.py`. A field of a
request that is not here is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from ponder.serve.common.wire import (
    Efforts,
    LongText,
    Metadata,
    Name,
    No,
    NoItems,
    ObjectFormat,
    OtherTool,
    Retention,
    Strict,
    TextFormat,
    Tier,
    Tree,
    Unserved,
    closed,
    event_schema,
)
from ponder.serve.responses.items import (
    Id,
    InputItem,
    NewItem,
    OutputItem,
)

Include = Literal["reasoning.encrypted_content", "reasoning.content", "message.output_text.logprobs"]


# A request for a response ---------------------------------------------------------------------------------------------


class ReasoningOptions(Strict):
    """summary: "auto" leaves it to this server, which makes none: it would have to show what is hidden."""

    effort: Efforts | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: Literal["standard", "pro"] | None = None


class ResponseSchemaFormat(Strict):
    type: Literal["json_schema"]
    name: Name
    schema_: Annotated[Tree, Field(alias="schema")]
    description: LongText | None = None
    strict: bool | None = None


class TextOptions(Strict):
    format: Annotated[TextFormat | ObjectFormat | ResponseSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ResponseTool(Strict):
    type: Literal["function"]
    name: Name
    description: LongText | None = None
    parameters: Tree | None = None
    strict: bool | None = None
    cache_control: Tree | None = None
    defer_loading: No | None = None


class NamedResponseTool(Strict):
    type: Literal["function"]
    name: Name


class ConversationName(Strict):
    id: Id


class ResponseStreamOptions(Strict):
    include_obfuscation: bool | None = None


class ResponseRequest(Strict):
    """The fields of the API, and Ponder's own.

    include "reasoning.content": the thinking is shown, in reasoning items and their events; hidden unless asked for.
    strategy: how the answer is found, such as "consensus(samples=8)"; all of it is billed. reasoning.mode "pro" is one.
    seed, thinking_token_budget, answer_room, deadline: as in chat completions.
    """

    model: Name
    input: LongText | Annotated[list[InputItem], Field(max_length=4096, fail_fast=True)] | None = None
    instructions: LongText | None = None
    previous_response_id: Id | None = None
    conversation: Id | ConversationName | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: Annotated[list[Include], Field(max_length=16, fail_fast=True)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[ResponseTool | OtherTool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedResponseTool | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    client_metadata: Tree | None = None
    user: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    prompt_cache_retention: Retention | None = None
    prompt_cache_options: Tree | None = None
    service_tier: Tier | None = None
    prompt: Unserved = None
    max_tool_calls: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    context_management: NoItems | None = None
    strategy: Name | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    answer_room: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    deadline: Annotated[float, Field(gt=0, le=86_400)] | None = None


# A response -----------------------------------------------------------------------------------------------------------


@closed
class ResponseError(TypedDict):
    code: str
    message: str


@closed
class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens", "content_filter", "deadline"]


@closed
class RemovedReasoning(TypedDict):
    id: str
    type: Literal["reasoning"]
    action: Literal["removed"]
    reason: Literal["organization_mismatch", "model_mismatch", "turn_boundary"]


@closed
class ReasoningEcho(TypedDict):
    """What held: the effort, which reasoning was rendered, and whether more compute was spent."""

    effort: str | None
    summary: None
    context: Literal["current_turn", "all_turns"]
    mode: Literal["standard", "pro"]


@closed
class InputDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


@closed
class OutputDetails(TypedDict):
    reasoning_tokens: int


@closed
class ResponseUsage(TypedDict):
    """refilled_tokens: run through the model again because a thought was folded; neither input nor output.
    steps: passes that had to follow each other, where several voices spoke in one pass.
    """

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    refilled_tokens: NotRequired[int]
    steps: NotRequired[int]


@closed
class ConversationEcho(TypedDict):
    id: str


@closed
class ResponseObject(TypedDict):
    """input_transformations: reasoning that the model was not given, and why.
    dropped_turns: the number of the oldest messages that `truncation: "auto"` left out."""

    id: str
    object: Literal["response"]
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ConversationEcho | None
    prompt_cache_key: str | None
    reasoning: ReasoningEcho
    input_transformations: list[RemovedReasoning]
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
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]
    created_at: int
    completed_at: NotRequired[int]
    dropped_turns: NotRequired[int]


@closed
class ResponseDeleted(TypedDict):
    id: str
    object: Literal["response"]
    deleted: bool


# Conversations --------------------------------------------------------------------------------------------------------

MOST_ITEMS = 20  # at a time, as the API has it


class ConversationRequest(Strict):
    items: Annotated[list[NewItem], Field(max_length=MOST_ITEMS, fail_fast=True)] | None = None
    metadata: Metadata | None = None


class MetadataRequest(Strict):
    metadata: Metadata | None


class ItemsRequest(Strict):
    items: Annotated[list[NewItem], Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)]


@closed
class ConversationObject(TypedDict):
    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


@closed
class ConversationDeleted(TypedDict):
    id: str
    object: Literal["conversation.deleted"]
    deleted: bool


# The document ---------------------------------------------------------------------------------------------------------


def answers(
    model: Any, *, streams: bool = False, leads_to: Mapping[str, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The good answer of a route.

    streams: it may be events as well.
    leads_to: operations that take its `id`, with the parameter that it is.
    """
    answer: dict[str, Any] = {"model": model, "description": "What was asked for"}
    if streams:
        answer["content"] = event_schema("`response.*` events in `data`, numbered by `sequence_number`")
    if leads_to:
        answer["links"] = {
            name: {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
            for name, parameter in leads_to.items()
        }
    return {200: answer}
