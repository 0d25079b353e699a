"""The items of a conversation in `/v1/responses` and `/v1/conversations`: as a request may hold them, and as they are
written. A field of a request that is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Discriminator, Field, StringConstraints, Tag
from typing_extensions import TypedDict

from ponder.serve.common.wire import (
    MOST_VALUES,
    LongText,
    Name,
    No,
    NoItems,
    TokenLogprob,
    Tree,
    closed,
    strict,
)

Id = Annotated[str, StringConstraints(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9_-]+$")]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


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
AsyncName = TypedDict("AsyncName", {"async": NotRequired[No | None]})


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
    async_: NotRequired[No | None]
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
