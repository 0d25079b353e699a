"""The objects of `/v1/responses` and `/v1/conversations`. A field of a request that is not here is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Discriminator, Field, StringConstraints, Tag
from typing_extensions import TypedDict

from ponder.serve.common.wire import (
    MOST_VALUES,
    Efforts,
    LongText,
    Metadata,
    Name,
    NoItems,
    ObjectFormat,
    OtherTool,
    Retention,
    Strict,
    TextFormat,
    Tier,
    TokenLogprob,
    Tree,
    Unserved,
    closed,
    event_schema,
    strict,
)

Id = Annotated[str, StringConstraints(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9_-]+$")]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
Include = Literal["reasoning.encrypted_content", "reasoning.content", "message.output_text.logprobs"]


# Parts of items: the same in a request and in an answer ---------------------------------------------------------------


@strict
class InputText(TypedDict):
    type: Literal["input_text"]
    text: LongText


@strict
class GivenText(InputText):
    cache_control: NotRequired[Tree | None]
    prompt_cache_breakpoint: NotRequired[Tree | None]


@strict
class RefusalPart(TypedDict):
    """The assistant declines to answer: its server says so."""

    type: Literal["refusal"]
    refusal: LongText


@strict
class SummaryText(TypedDict):
    type: Literal["summary_text"]
    text: LongText


@strict
class ReasoningText(TypedDict):
    type: Literal["reasoning_text"]
    text: LongText


class CallFields(TypedDict):
    """What a call of a tool says."""

    type: Literal["function_call"]
    call_id: Name
    name: Name
    arguments: LongText


class CallOutputFields(TypedDict):
    """What a tool gave back."""

    type: Literal["function_call_output"]
    call_id: Name
    output: LongText | Annotated[list[GivenText], Field(max_length=256, fail_fast=True)]


# Items of a request ---------------------------------------------------------------------------------------------------


class GivenNames(TypedDict, total=False):
    """An item that a client makes needs no id and no status; whatever the server once wrote is taken back."""

    id: Id | None
    status: ItemStatus | None
    phase: Name | None
    created_by: Name | None


@strict
class DirectCaller(TypedDict):
    """The model itself calls, as always here."""

    type: Literal["direct"]


# A field that is a keyword of the language: the SDK dumps it by either name.
AsyncName = TypedDict("AsyncName", {"async": NotRequired[Literal[False] | None]})


@strict
class GivenOutputText(TypedDict):
    """`logprobs` come back with an answer that had them, `parsed` where an SDK read it. They say nothing here."""

    type: Literal["output_text"]
    text: LongText
    annotations: NotRequired[NoItems | None]
    logprobs: NotRequired[Annotated[list[Tree], Field(max_length=MOST_VALUES, fail_fast=True)] | None]
    parsed: NotRequired[Tree | None]


GivenAnswerPart = Annotated[GivenOutputText | RefusalPart, Field(discriminator="type")]


@strict
class GivenMessage(GivenNames):
    """What a user, a developer or the system says."""

    type: NotRequired[Literal["message"] | None]
    role: Literal["user", "system", "developer"]
    content: LongText | Annotated[list[GivenText], Field(min_length=1, max_length=256, fail_fast=True)]


@strict
class GivenAnswer(GivenNames):
    """What the assistant said before."""

    type: NotRequired[Literal["message"] | None]
    role: Literal["assistant"]
    content: LongText | Annotated[list[GivenAnswerPart], Field(max_length=256, fail_fast=True)]


@strict
class GivenReasoning(TypedDict):
    """What the assistant thought before: sealed, as text, or by the id of an item that is kept here."""

    type: Literal["reasoning"]
    id: Id
    summary: NotRequired[Annotated[list[SummaryText], Field(max_length=64, fail_fast=True)] | None]
    content: NotRequired[Annotated[list[ReasoningText], Field(max_length=64, fail_fast=True)] | None]
    encrypted_content: NotRequired[Annotated[str, Field(max_length=16 << 20)] | None]
    status: NotRequired[ItemStatus | None]


@strict
class GivenCall(CallFields, GivenNames, AsyncName):
    namespace: NotRequired[None]
    caller: NotRequired[DirectCaller | None]
    async_: NotRequired[Literal[False] | None]
    parsed_arguments: NotRequired[Tree | None]


@strict
class GivenCallOutput(CallOutputFields, GivenNames):
    """name: of the tool; its call has it already."""

    name: NotRequired[Name | None]
    namespace: NotRequired[None]
    caller: NotRequired[DirectCaller | None]


@strict
class ItemReference(TypedDict):
    """An item that is kept here, by its id."""

    type: NotRequired[Literal["item_reference"] | None]
    id: Id


def _kind(item: Any) -> str | None:
    """The tag of an item: a message needs no `type`, and a reference is known by having nothing but an id."""
    get = item.get if isinstance(item, dict) else lambda name, default=None: default
    kind = get("type") or ("message" if get("role") or not get("id") else "item_reference")
    if kind == "message":
        return "assistant" if get("role") == "assistant" else "message"
    return kind if isinstance(kind, str) else None


GivenItem = GivenMessage | GivenAnswer | GivenReasoning | GivenCall | GivenCallOutput
InputItem = Annotated[
    Annotated[GivenMessage, Tag("message")]
    | Annotated[GivenAnswer, Tag("assistant")]
    | Annotated[GivenReasoning, Tag("reasoning")]
    | Annotated[GivenCall, Tag("function_call")]
    | Annotated[GivenCallOutput, Tag("function_call_output")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_kind),
]
NewItem = Annotated[
    Annotated[GivenMessage, Tag("message")]
    | Annotated[GivenAnswer, Tag("assistant")]
    | Annotated[GivenReasoning, Tag("reasoning")]
    | Annotated[GivenCall, Tag("function_call")]
    | Annotated[GivenCallOutput, Tag("function_call_output")],
    Discriminator(_kind),
]


# Items of an answer ---------------------------------------------------------------------------------------------------


@closed
class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


@closed
class MessageItem(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["user", "system", "developer", "assistant"]
    status: ItemStatus
    content: list[InputText | OutputText | RefusalPart]


@closed
class ReasoningItem(TypedDict):
    """content, encrypted_content: where they were asked for."""

    id: str
    type: Literal["reasoning"]
    summary: list[SummaryText]
    status: ItemStatus
    content: NotRequired[list[ReasoningText]]
    encrypted_content: NotRequired[str]


@closed
class CallItem(CallFields):
    id: str
    status: ItemStatus


@closed
class CallOutputItem(CallOutputFields):
    id: str
    status: ItemStatus


OutputItem = ReasoningItem | MessageItem | CallItem
AnyItem = OutputItem | CallOutputItem


@closed
class ItemPage(TypedDict):
    object: Literal["list"]
    data: list[AnyItem]
    first_id: str
    last_id: str
    has_more: bool


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
    defer_loading: Literal[False] | None = None


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
    """refilled_tokens: run through the model again because a thought was folded; neither input nor output."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    refilled_tokens: NotRequired[int]


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
