"""The body of a request for a response. What is not here is refused by name; every value has a bound."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from ponder.serve.bounds import MOST_VALUES, LongText, Name, Tree, check_text
from ponder.serve.chat.schema import Efforts, ObjectFormat, Strict, TextFormat

Id = Annotated[str, StringConstraints(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9_-]+$")]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
MetadataKey = Annotated[str, Field(max_length=64), AfterValidator(check_text)]
MetadataValue = Annotated[str, Field(max_length=512), AfterValidator(check_text)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Include = Literal["reasoning.encrypted_content", "reasoning.content", "message.output_text.logprobs"]
Empty = Annotated[list[Name], Field(max_length=0, fail_fast=True)]


class InputText(Strict):
    type: Literal["input_text"]
    text: LongText


class OutputText(Strict):
    """`logprobs` come back with an answer that had them, and say nothing here."""

    type: Literal["output_text"]
    text: LongText
    annotations: Empty | None = None
    logprobs: Annotated[list[Tree], Field(max_length=MOST_VALUES, fail_fast=True)] | None = None


class Instruction(Strict):
    """What a user, a developer or the system says."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    content: LongText | Annotated[list[InputText], Field(min_length=1, max_length=256, fail_fast=True)]
    id: Id | None = None
    status: ItemStatus | None = None


class AssistantSaid(Strict):
    """What the assistant said before."""

    type: Literal["message"] = "message"
    role: Literal["assistant"]
    content: LongText | Annotated[list[OutputText], Field(max_length=256, fail_fast=True)]
    id: Id | None = None
    status: ItemStatus | None = None


class SummaryText(Strict):
    type: Literal["summary_text"]
    text: LongText


class ReasoningText(Strict):
    type: Literal["reasoning_text"]
    text: LongText


class ReasoningItem(Strict):
    """What the assistant thought before: sealed, as text, or by the id of an item that is kept here."""

    type: Literal["reasoning"]
    id: Id
    summary: Annotated[list[SummaryText], Field(max_length=64, default_factory=list, fail_fast=True)]
    content: Annotated[list[ReasoningText], Field(max_length=64, fail_fast=True)] | None = None
    encrypted_content: Annotated[str, Field(max_length=16 << 20)] | None = None
    status: ItemStatus | None = None


class FunctionCallItem(Strict):
    type: Literal["function_call"]
    call_id: Name
    name: Name
    arguments: LongText
    id: Id | None = None
    status: ItemStatus | None = None


class FunctionCallOutput(Strict):
    type: Literal["function_call_output"]
    call_id: Name
    output: LongText | Annotated[list[InputText], Field(max_length=256, fail_fast=True)]
    id: Id | None = None
    status: ItemStatus | None = None


def _kind(item: Any) -> str | None:
    """Which of the items it is: a message needs no `type`."""
    get = item.get if isinstance(item, dict) else lambda name, default=None: getattr(item, name, default)
    kind = get("type", "message")
    if kind == "message":
        return "assistant" if get("role") == "assistant" else "message"
    return kind if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[Instruction, Tag("message")]
    | Annotated[AssistantSaid, Tag("assistant")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    Discriminator(_kind),
]


class Reasoning(Strict):
    """summary: "auto" leaves it to this server, which makes none: it would have to tell what is hidden."""

    effort: Efforts | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: Literal["standard", "pro"] | None = None


class SchemaFormat(Strict):
    type: Literal["json_schema"]
    name: Name
    schema_: Annotated[Tree, Field(alias="schema")]
    description: LongText | None = None
    strict: bool | None = None


class TextConfig(Strict):
    format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None


class FunctionTool(Strict):
    type: Literal["function"]
    name: Name
    description: LongText | None = None
    parameters: Tree | None = None
    strict: bool | None = None


class NamedTool(Strict):
    type: Literal["function"]
    name: Name


class ConversationName(Strict):
    id: Id


class StreamOptions(Strict):
    include_obfuscation: Literal[False] | None = None


class ResponseRequest(Strict):
    """Beside the fields of the API, Ponder's own.

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
    stream_options: StreamOptions | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: Annotated[list[Include], Field(max_length=16, fail_fast=True)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    text: TextConfig | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    user: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    service_tier: Literal["auto", "default"] | None = None
    strategy: Name | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    answer_room: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    deadline: Annotated[float, Field(gt=0, le=86_400)] | None = None

    @property
    def conversation_id(self) -> str | None:
        named = self.conversation
        return named.id if isinstance(named, ConversationName) else named

    @property
    def stored(self) -> bool:
        return self.store is not False
