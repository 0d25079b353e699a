"""The objects of `/v1/chat/completions`. A field of a request that is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from ponder.serve.common.wire import (
    CompletionUsage,
    Efforts,
    FinishReason,
    LongText,
    Metadata,
    Name,
    NoItems,
    ObjectFormat,
    OtherTool,
    Retention,
    Sampled,
    Strict,
    TextFormat,
    Tier,
    TokenId,
    TokenLogprob,
    Tree,
    Unserved,
    closed,
    event_schema,
    strict,
)

# In both directions ---------------------------------------------------------------------------------------------------


@strict
class CalledFunction(TypedDict):
    name: Name
    arguments: LongText


class ChatCall(TypedDict):
    id: Name
    type: Literal["function"]
    function: CalledFunction


@strict
class ReturnedFunction(CalledFunction):
    parsed_arguments: NotRequired[Tree | None]


@strict
class ReturnedCall(TypedDict):
    """A call that comes back, perhaps as it was streamed, or with what an SDK made of it."""

    id: Name
    type: Literal["function"]
    function: ReturnedFunction
    index: NotRequired[Annotated[int, Field(ge=0, le=1024)] | None]


# Requests -------------------------------------------------------------------------------------------------------------


class TextPart(Strict):
    """cache_control: here and elsewhere a hint for the cache, which finds prefixes by itself. role, refusal,
    annotations: some clients write them into the parts of an answer that they send back."""

    type: Literal["text"]
    text: LongText
    cache_control: Tree | None = None
    prompt_cache_breakpoint: Tree | None = None
    role: Name | None = None
    refusal: Unserved = None
    annotations: NoItems | None = None


class ChatRefusal(Strict):
    """What the assistant declined."""

    type: Literal["refusal"]
    refusal: LongText


class InstructingMessage(Strict):
    role: Literal["system", "developer"]
    content: LongText | Annotated[list[TextPart], Field(min_length=1, max_length=256, fail_fast=True)]
    name: Name | None = None
    cache_control: Tree | None = None


class UserMessage(Strict):
    role: Literal["user"]
    content: LongText | Annotated[list[TextPart], Field(min_length=1, max_length=256, fail_fast=True)]
    name: Name | None = None
    cache_control: Tree | None = None


AnswerPart = Annotated[TextPart | ChatRefusal, Field(discriminator="type")]


class AssistantMessage(Strict):
    """reasoning, reasoning_content: thinking sent back. It is kept after the last user message (tool loops) and dropped
    before it. parsed: what an SDK made of the content; it says nothing here."""

    role: Literal["assistant"]
    content: LongText | Annotated[list[AnswerPart], Field(max_length=256, fail_fast=True)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ReturnedCall], Field(max_length=128, fail_fast=True)] | None = None
    reasoning: LongText | None = None
    reasoning_content: LongText | None = None
    refusal: LongText | None = None
    annotations: NoItems | None = None
    audio: Unserved = None
    function_call: Unserved = None
    parsed: Tree | None = None
    cache_control: Tree | None = None


class ToolMessage(Strict):
    role: Literal["tool"]
    content: LongText | Annotated[list[TextPart], Field(max_length=256, fail_fast=True)]
    tool_call_id: Name
    name: Name | None = None
    cache_control: Tree | None = None


ChatMessage = Annotated[InstructingMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class ChatFunction(Strict):
    name: Name
    description: LongText | None = None
    parameters: Tree | None = None
    strict: bool | None = None


class ChatTool(Strict):
    type: Literal["function"]
    function: ChatFunction
    cache_control: Tree | None = None


class NamedFunction(Strict):
    name: Name


class NamedChatTool(Strict):
    type: Literal["function"]
    function: NamedFunction


class ChatSchema(Strict):
    name: Name
    description: LongText | None = None
    schema_: Annotated[Tree, Field(alias="schema")]
    strict: bool | None = None


class ChatSchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: ChatSchema


class ChatRequest(Sampled):
    """The fields of the API; `top_k`, `min_p`, `stop_token_ids`, `thinking_token_budget` as vLLM has them; and Ponder's
    own.

    reasoning_format: the field in which the thinking is shown; hidden unless asked for.
    min_thinking_tokens: the thinking may not end before that many tokens.
    answer_room: tokens of the limit that are kept for the answer: thinking is closed early enough.
    strategy: how the answer is found, such as "consensus(samples=8)"; all of it is billed.
    memory: notes of the owner that the question is about stand in the prompt, and the turn is noted.
    truncation: "auto" drops the oldest turns that do not fit, and says how many in `dropped_turns`.
    regex: the answer matches it.
    """

    model: Name
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096, fail_fast=True)]
    reasoning_effort: Efforts | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = None
    response_format: Annotated[TextFormat | ObjectFormat | ChatSchemaFormat, Field(discriminator="type")] | None = None
    tools: Annotated[list[ChatTool | OtherTool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChatTool | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    verbosity: Literal["medium"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    prompt_cache_retention: Retention | None = None
    prompt_cache_options: Tree | None = None
    service_tier: Tier | None = None
    audio: Unserved = None
    prediction: Unserved = None
    functions: Unserved = None
    function_call: Unserved = None
    web_search_options: Unserved = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    min_thinking_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    reasoning_format: Literal["hidden", "reasoning", "reasoning_content"] = "hidden"
    answer_room: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    strategy: Name | None = None
    memory: bool | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    regex: Annotated[str, Field(max_length=8192)] | None = None


# Answers --------------------------------------------------------------------------------------------------------------


@closed
class AnswerMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[ChatCall]]


@closed
class ChatLogprobs(TypedDict):
    content: list[TokenLogprob]
    refusal: None


@closed
class ChatChoice(TypedDict):
    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None


@closed
class ChatHead(TypedDict):
    """The fields of every object of one answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default"]


@closed
class ChatCompletion(ChatHead):
    """dropped_turns: the number of the oldest messages that `truncation: "auto"` left out."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: CompletionUsage | None
    dropped_turns: NotRequired[int]


class IndexedCall(ChatCall):
    """The first piece of a call in a stream, or a whole one."""

    index: int


class CalledArguments(TypedDict):
    arguments: str


class CallChunk(TypedDict):
    """A later piece of a call."""

    index: int
    function: CalledArguments


class ChatDelta(TypedDict, total=False):
    """voice: of a council, from 0: whose the piece of reasoning is."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning: str
    reasoning_content: str
    voice: int
    tool_calls: list[IndexedCall | CallChunk]


class ChunkChoice(TypedDict):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(ChatHead):
    """An event of a stream."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: NotRequired[CompletionUsage | None]


CHAT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "The answer, or its pieces as they come",
        "content": event_schema("`chat.completion.chunk` objects in `data`, then `[DONE]`"),
    }
}
