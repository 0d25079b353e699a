"""Fields, bounds and objects that several endpoints share. Every text, list, number and tree of a request has a bound.

Requests are pydantic models. Objects that are written are typed dictionaries: what a writer builds is what is sent, and
the OpenAPI document is made from the same types. An object that is read as well has its bounds in them too.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator, with_config
from typing_extensions import TypedDict

from ponder.think.ask import FRACTIONS

LONGEST_TEXT = 4 * 1024 * 1024  # characters
LARGEST_TREE = 256 * 1024  # bytes of JSON
MOST_VALUES = 500_000  # of a whole body; a list of ids in a prompt holds at most as many
MOST_NAMES = 1024  # of one object
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

T = TypeVar("T")


class Strict(BaseModel):
    """A JSON object with these fields and no others, each of the exact type: "1" is not 1. A null in an optional field
    means that it was not given: clients in several languages write all their fields out."""

    model_config = ConfigDict(**STRICT, json_schema_extra=lambda schema: _nullable(schema))

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict) or None not in given.values():
            return given
        optional = {field.alias or name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in given.items() if value is not None or name not in optional}


def _nullable(schema: dict[str, Any]) -> None:
    """Say in the schema of an object that each optional field may be null."""
    for name, each in schema.get("properties", {}).items():
        kinds = each.get("anyOf", [])
        if name in schema.get("required", ()) or {"type": "null"} in kinds or each.get("type") == "null":
            continue
        about = {key: each.pop(key) for key in ("title", "default", "description") if key in each}
        schema["properties"][name] = {"anyOf": [*(kinds or [each]), {"type": "null"}], **about}


def strict(kind: type[T]) -> type[T]:
    """The same for a typed dictionary that is read: a decorator."""
    return with_config(STRICT)(kind)


def closed(kind: type[T]) -> type[T]:
    """A decorator of a typed dictionary that is written: it has these fields and no others."""
    return with_config(ConfigDict(extra="forbid"))(kind)


def check_text(text: str) -> str:
    """Raises ValueError for what cannot be written as UTF-8: half of a surrogate pair, which JSON can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode: it holds half of a surrogate pair") from None
    return text


def check_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """Free JSON inside a request: a schema, metadata. Raises ValueError where it is too large."""
    size = len(json.dumps(tree, ensure_ascii=False).encode())
    if size > LARGEST_TREE:
        raise ValueError(f"is too large ({size} bytes of JSON): send at most {LARGEST_TREE}")
    return tree


def check_boolean(value: Any) -> Any:
    """Raises ValueError for a number: pydantic takes 0 for False where a field allows no other value."""
    if not isinstance(value, bool):
        raise ValueError("must be a boolean")
    return value


Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(check_text)]
LongText = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(check_text)]
MetadataKey = Annotated[str, Field(max_length=64), AfterValidator(check_text)]
MetadataValue = Annotated[str, Field(max_length=512), AfterValidator(check_text)]
Tree = Annotated[dict[str, Any], Field(max_length=MOST_NAMES), AfterValidator(check_tree)]
Efforts = Literal["none", "minimal", "low", "medium", "high"]
assert set(Efforts.__args__) == {effort.value for effort in FRACTIONS}  # type: ignore[attr-defined]
FinishReason = str  # "stop", "length", "tool_calls", "content_filter", or the word of the server that answered
No = Annotated[Literal[False], BeforeValidator(check_boolean)]
NoItems = Annotated[list[Name], Field(max_length=0, fail_fast=True)]
Unserved: TypeAlias = None  # the type of a field that is known and not served: null is accepted
Tier = Literal["auto", "default", "flex", "scale", "priority"]  # a hint: there is one tier here
Retention = Literal["in-memory", "in_memory", "24h"]  # a hint: the cache keeps what there is room for
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
TokenText = Annotated[str, Field(max_length=10, pattern="^[0-9]+$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenId = Annotated[int, Field(ge=0, le=2**31)]


def event_schema(what: str) -> dict[str, Any]:
    """A stream in the OpenAPI document: each event is an object of its fields."""
    fields = {"event": {"type": "string"}, "data": {"type": "string"}}
    event = {"type": "object", "description": what, "properties": fields, "required": ["data"]}
    return {"text/event-stream": {"schema": event}}


# Requests -------------------------------------------------------------------------------------------------------------


class StreamOptions(Strict):
    """continuous_usage_stats: a hint; the count comes with the last chunk all the same."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class Sampled(Strict):
    """What a request for chat completions or completions may say of sampling.

    deadline: seconds, after which the answer is given as far as it came.
    """

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
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Name | None = None
    deadline: Annotated[float, Field(gt=0, le=86_400)] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the bill."""
        return self.stream_options is not None and self.stream_options.include_usage


class OtherTool(BaseModel):
    """A tool that a server of the API would run itself, or whose calls are not JSON. It is not offered to the model:
    beside functions it is left out, alone it is refused."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"maxProperties": MOST_NAMES})
    type: Literal[
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "custom",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "shell",
        "tool_search",
        "web_search",
        "web_search_preview",
    ]

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, given: Any) -> Any:
        return check_tree(given) if isinstance(given, dict) else given


class TextFormat(Strict):
    type: Literal["text"]


class ObjectFormat(Strict):
    type: Literal["json_object"]


# Answers --------------------------------------------------------------------------------------------------------------


@closed
class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


@closed
class TokenLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


@closed
class PromptDetails(TypedDict):
    cached_tokens: int


@closed
class CompletionDetails(TypedDict):
    reasoning_tokens: int


@closed
class CompletionUsage(TypedDict):
    """refilled_tokens: run through the model again because a thought was folded; neither prompt nor completion.
    steps: passes that had to follow each other, where several voices spoke in one pass.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    refilled_tokens: NotRequired[int]
    steps: NotRequired[int]
