"""The body of a chat completion request. What is not here is refused by name; every value has a bound."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ponder.serve.bounds import LongText, Name, Tree
from ponder.think.ask import FRACTIONS

Efforts = Literal["none", "minimal", "low", "medium", "high"]
assert set(Efforts.__args__) == {effort.value for effort in FRACTIONS}  # type: ignore[attr-defined]


class Strict(BaseModel):
    """A JSON object with these fields and no others, each of the kind that it should be: no "1" for 1."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class TextPart(Strict):
    type: Literal["text"]
    text: LongText


class FunctionCall(Strict):
    name: Name
    arguments: LongText


class Call(Strict):
    id: Name
    type: Literal["function"]
    function: FunctionCall


class InstructingMessage(Strict):
    role: Literal["system", "developer"]
    content: LongText | Annotated[list[TextPart], Field(min_length=1, max_length=256, fail_fast=True)]
    name: Name | None = None


class UserMessage(Strict):
    role: Literal["user"]
    content: LongText | Annotated[list[TextPart], Field(min_length=1, max_length=256, fail_fast=True)]
    name: Name | None = None


class AssistantMessage(Strict):
    """reasoning, reasoning_content: thinking sent back, kept since the last user message (tool loops) and dropped
    before it."""

    role: Literal["assistant"]
    content: LongText | Annotated[list[TextPart], Field(max_length=256, fail_fast=True)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[Call], Field(min_length=1, max_length=128, fail_fast=True)] | None = None
    reasoning: LongText | None = None
    reasoning_content: LongText | None = None
    refusal: None = None


class ToolMessage(Strict):
    role: Literal["tool"]
    content: LongText | Annotated[list[TextPart], Field(max_length=256, fail_fast=True)]
    tool_call_id: Name


AnyMessage = Annotated[InstructingMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(Strict):
    name: Name
    description: LongText | None = None
    parameters: Tree | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    name: Name


class NamedTool(Strict):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(Strict):
    type: Literal["text"]


class ObjectFormat(Strict):
    type: Literal["json_object"]


class Schema(Strict):
    name: Name
    description: LongText | None = None
    schema_: Annotated[Tree, Field(alias="schema")]
    strict: bool | None = None


class SchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: Schema


class StreamOptions(Strict):
    include_usage: bool = False


TokenText = Annotated[str, Field(max_length=10, pattern="^[0-9]+$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenId = Annotated[int, Field(ge=0, le=2**31)]


class Sampled(Strict):
    """What every request that samples may say. deadline: seconds, after which what is there is given."""

    n: Annotated[int, Field(ge=1, le=1024)] = 1
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Name | Annotated[list[Name], Field(max_length=16, fail_fast=True)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    logit_bias: (
        Annotated[dict[TokenText, Bias], Field(max_length=1024, json_schema_extra={"additionalProperties": False})]
        | None
    ) = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Name | None = None
    deadline: Annotated[float, Field(gt=0, le=86_400)] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the bill."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Sampled):
    """Beside the fields of the API: `top_k`, `min_p`, `stop_token_ids`, `thinking_token_budget` as vLLM has them, and
    Ponder's own.

    reasoning_format: the field in which the thinking is shown; hidden unless asked for.
    answer_room: so many tokens of the limit are kept for the answer: thinking is closed early enough.
    strategy: how the answer is found, such as "consensus(samples=8)"; all of it is billed.
    truncation: "auto" drops the oldest turns that do not fit, and says how many in `dropped_turns`.
    regex: the answer matches it.
    """

    model: Name
    messages: Annotated[list[AnyMessage], Field(min_length=1, max_length=4096, fail_fast=True)]
    reasoning_effort: Efforts | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = None
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    service_tier: Literal["auto", "default"] | None = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    reasoning_format: Literal["hidden", "reasoning", "reasoning_content"] = "hidden"
    answer_room: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    strategy: Name | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    regex: Annotated[str, Field(max_length=8192)] | None = None
