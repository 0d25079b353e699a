"""The objects of `/v1/messages`. A field of a request that is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from ponder.serve.common.wire import (
    LongText,
    Name,
    No,
    Strict,
    Tree,
    Unserved,
    closed,
    event_schema,
    strict,
)

# In both directions ---------------------------------------------------------------------------------------------------


class CacheControl(Strict):
    """A hint: prefixes are cached here in any case."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


@strict
class TextBlock(TypedDict):
    type: Literal["text"]
    text: LongText
    citations: NotRequired[None]
    cache_control: NotRequired[CacheControl | None]


@strict
class ThinkingBlock(TypedDict):
    """signature: says that the thinking is whole, and is not checked; the thinking itself is what comes back."""

    type: Literal["thinking"]
    thinking: LongText
    signature: NotRequired[Annotated[str, Field(max_length=65_536)]]


@strict
class DirectCall(TypedDict):
    """The model itself calls, as always here."""

    type: Literal["direct"]


@strict
class ToolUseBlock(TypedDict):
    type: Literal["tool_use"]
    id: Name
    name: Name
    input: Tree
    cache_control: NotRequired[CacheControl | None]
    caller: NotRequired[DirectCall | None]
    toolset_name: NotRequired[None]


# Requests -------------------------------------------------------------------------------------------------------------


class ToolResultBlock(Strict):
    """is_error: the tool failed; the model is told so."""

    type: Literal["tool_result"]
    tool_use_id: Name
    content: LongText | Annotated[list[TextBlock], Field(max_length=256, fail_fast=True)] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


InputBlock = Annotated[
    TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]


class InputMessage(Strict):
    role: Literal["user", "assistant"]
    content: LongText | Annotated[list[InputBlock], Field(max_length=1024, fail_fast=True)]


class DeclaredTool(Strict):
    """eager_input_streaming: a hint, arguments are streamed as they come in any case. defer_loading, allowed_callers:
    nothing here but what they are without being said."""

    type: Literal["custom"] | None = None
    name: Name
    description: LongText | None = None
    input_schema: Tree
    strict: bool | None = None
    eager_input_streaming: bool | None = None
    defer_loading: No | None = None
    allowed_callers: Annotated[list[Literal["direct"]], Field(max_length=1)] | None = None
    cache_control: CacheControl | None = None


class ChosenTool(Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Strict):
    """enabled: thinking is capped at `budget_tokens` and shown; adaptive: as long as the effort says, and shown;
    disabled: the answer comes at once."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputForm(Strict):
    type: Literal["json_schema"]
    schema_: Annotated[Tree, Field(alias="schema")]


class OutputConfig(Strict):
    """format: what the text of the answer keeps to; thinking is free."""

    effort: Literal["low", "medium", "high"] | None = None
    format: OutputForm | None = None


class Metadata(Strict):
    user_id: Name | None = None


Blocks = Annotated[list[TextBlock], Field(max_length=256, fail_fast=True)]


class CountRequest(Strict):
    """`/v1/messages/count_tokens`."""

    model: Name
    messages: Annotated[list[InputMessage], Field(min_length=1, max_length=4096, fail_fast=True)]
    system: LongText | Blocks | None = None
    tools: Annotated[list[DeclaredTool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: ChosenTool | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


class MessagesRequest(CountRequest):
    """The fields of the API, and Ponder's own `seed`, `strategy` and `deadline` (seconds).

    output_format: the older place of `output_config.format`, where some clients still put it.
    """

    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)]
    stop_sequences: Annotated[list[Name], Field(max_length=16, fail_fast=True)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    container: Unserved = None
    context_management: Unserved = None
    inference_geo: Unserved = None
    mcp_servers: Unserved = None
    output_format: OutputForm | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    strategy: Name | None = None
    deadline: Annotated[float, Field(gt=0, le=86_400)] | None = None


# Answers --------------------------------------------------------------------------------------------------------------

MessageStop = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
OutputBlock = TextBlock | ThinkingBlock | ToolUseBlock


@closed
class MessageUsage(TypedDict):
    """input_tokens: of the prompt, without those that were found in the cache, once these are known.
    estimated: the model's server sends no usage; the numbers are made from the length of the texts.
    """

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: NotRequired[int]
    cache_read_input_tokens: NotRequired[int]
    estimated: NotRequired[Literal[True]]


@closed
class MessageObject(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[OutputBlock]
    stop_reason: MessageStop | None
    stop_sequence: str | None
    usage: MessageUsage


@closed
class TokenCount(TypedDict):
    input_tokens: int


MESSAGE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": MessageObject,
        "description": "The answer, or its events as they come",
        "content": event_schema("`message_start` to `message_stop`, each named by its `event`"),
    }
}
COUNT_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": TokenCount, "description": "The tokens of the prompt"}}
