"""A response as it is written: its items, the object, its bill, how it ended, and what of it is kept and never sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ponder.dialogue.messages import Message, Part, Reasoning, ReasoningPolicy, Text, ToolCall
from ponder.sampler.protocol import Completion
from ponder.sampler.replies import OVERFLOW_CODE
from ponder.serve.common.convert import offered
from ponder.serve.common.wire import TokenLogprob
from ponder.serve.errors import BadRequest, ModelBusy, NotFound, QueueFull, ServeError, UnknownReference, logged
from ponder.serve.models import Served
from ponder.serve.responses.convert import (
    conversation_of,
    effort_of,
    is_pro,
    is_stored,
    item_id,
    output_text,
    refusal_part,
    vocabulary_of,
)
from ponder.serve.responses.items import (
    ItemPage,
    ItemStatus,
    OutputItem,
    ReasoningText,
)
from ponder.serve.responses.seal import Sealer
from ponder.serve.responses.wire import (
    IncompleteDetails,
    NamedResponseTool,
    ResponseError,
    ResponseObject,
    ResponseRequest,
    ResponseUsage,
)
from ponder.serve.store import ResponseStatus, SortOrder, StoredItem
from ponder.think.ask import Ask
from ponder.tokenizer import Tokenizer
from ponder.types import StopReason, Usage

ENDED_EARLY = (StopReason.LENGTH, StopReason.REPEATED, StopReason.DEADLINE, StopReason.ABORTED, StopReason.FILTERED)
RENAMED = {"logprobs": "include"}  # fields of an ask that this API calls otherwise


# Items ----------------------------------------------------------------------------------------------------------------


def call_id(response_id: str, number: int) -> str:
    """The handle of call `number` of a response, where the sampler gave none."""
    return f"call_{response_id.partition('_')[2]}_{number}"


def output_items(
    completion: Completion, response_id: str, served: Served, logprobs: Sequence[TokenLogprob] = ()
) -> list[StoredItem]:
    """A reasoning item if anything was thought, a message if anything was said, and the calls, in this order.

    Hidden are the parts themselves, with their ids, the model and its vocabulary: the next turn is rendered from them.
    """
    parts = _with_call_ids(completion.message, response_id).parts
    early = completion.stop_reason in ENDED_EARLY
    calls = [part for part in parts if isinstance(part, ToolCall)]
    texts = [part for part in parts if isinstance(part, Text)]
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    said, refused = completion.message.answer, completion.message.refusal
    spoken = completion.text or not (calls or early)
    content = [output_text(said, logprobs)] if said or not refused else []
    items: list[StoredItem] = []

    def id_of(kind: str) -> str:
        return item_id(kind, response_id, len(items))

    def add(body: OutputItem, hidden: Sequence[Part]) -> None:
        kept = {"model": served.name, "vocabulary": vocabulary_of(served), "parts": write_parts(hidden)}
        items.append(StoredItem(body["id"], body, kept))

    if completion.reasoning.strip():
        cut = _status(early and not spoken and not calls)
        add({"id": id_of("reasoning"), "type": "reasoning", "summary": [], "status": cut}, thoughts)
    if spoken:
        add(
            {
                "id": id_of("message"),
                "type": "message",
                "role": "assistant",
                "status": _status(early),
                "content": [*content, *([refusal_part(refused)] if refused else [])],
            },
            texts,
        )
    for call in calls:
        add(
            {
                "id": id_of("function_call"),
                "type": "function_call",
                "call_id": call.id or "",
                "name": call.name,
                "arguments": call.arguments,
                "status": _status(early and call is parts[-1]),
            },
            [call],
        )
    return items


def reasoning_text(text: str) -> ReasoningText:
    return {"type": "reasoning_text", "text": text}


def _with_call_ids(message: Message, response_id: str) -> Message:
    """Every call with a handle by which its result can name it."""
    calls = 0
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            part = part if part.id else replace(part, id=call_id(response_id, calls))
            calls += 1
        parts.append(part)
    return replace(message, parts=tuple(parts))


def _status(incomplete: bool) -> ItemStatus:
    return "incomplete" if incomplete else "completed"


@dataclass(frozen=True, slots=True)
class View:
    """How items are shown to a client: with what it asked to be included, and nothing else.

    sealer: seals the reasoning; None: it is not sent sealed.
    tokenizer: spells the tokens of streamed pieces, if log-probabilities were asked for.
    """

    owner: str
    model: str
    shows_reasoning: bool = False
    sealer: Sealer | None = None
    tokenizer: Tokenizer | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing of the reasoning is shown, not even sealed."""
        return not self.shows_reasoning and self.sealer is None

    def item(self, item: StoredItem) -> OutputItem:
        body = cast(OutputItem, dict(item.body))
        if body["type"] != "reasoning" or item.hidden is None:
            return body
        parts = item.hidden["parts"]
        if self.shows_reasoning:
            body["content"] = [reasoning_text("".join(part["text"] for part in parts))]
        if self.sealer is not None:
            carried = [{key: value for key, value in part.items() if key != "ids"} for part in parts]
            body["encrypted_content"] = self.sealer.seal(self.owner, self.model, item.id, carried)
        return body


def write_parts(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """The parts of an assistant's message as JSON: text, hidden reasoning, and the ids they were sampled as."""
    return [_written(part) for part in parts]


def _written(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            written: dict[str, Any] = {"type": "text", "text": part.text, **({"refusal": True} if part.refusal else {})}
        case Reasoning():
            written = {"type": "reasoning", "text": part.text, **({"state": True} if part.state else {})}
        case ToolCall():
            written = {"type": "call", "name": part.name, "arguments": part.arguments, "id": part.id}
        case _:
            raise TypeError(f"not a part of an assistant's message: {type(part).__name__}")
    return written if part.ids is None else {**written, "ids": list(part.ids)}


# The object -----------------------------------------------------------------------------------------------------------


def response_object(asked: ResponseRequest, ask: Ask, served: Served, id: str, created_at: int) -> ResponseObject:
    """All that is known of a response before it is made. Its status is `queued`."""
    default = "medium" if served.tokenizer is not None and ask.thinking is None else None
    conversation = conversation_of(asked)
    return {
        "id": id,
        "object": "response",
        "status": "queued",
        "background": bool(asked.background),
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "conversation": {"id": conversation} if conversation else None,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {
            "effort": effort_of(asked) or default,
            "summary": None,
            "context": "all_turns" if ask.policy is ReasoningPolicy.ALL_TURNS else "current_turn",
            "mode": "pro" if is_pro(asked) else "standard",
        },
        "input_transformations": [],
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": is_stored(asked),
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {"format": _format(asked)},
        "tool_choice": _tool_choice(asked),
        "tools": [tool.model_dump(mode="json", exclude_none=True) for tool in offered(asked.tools)],
        "top_logprobs": ask.top_logprobs,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": asked.truncation or "disabled",
        "usage": None,
        "user": asked.user,
        "metadata": asked.metadata or {},
        "created_at": created_at,
    }


def _format(asked: ResponseRequest) -> dict[str, Any]:
    if asked.text is None or asked.text.format is None:
        return {"type": "text"}
    return asked.text.format.model_dump(mode="json", by_alias=True, exclude_none=True)


def _tool_choice(asked: ResponseRequest) -> str | dict[str, Any]:
    choice = asked.tool_choice
    return choice.model_dump(mode="json") if isinstance(choice, NamedResponseTool) else choice or "auto"


def ending(reason: StopReason) -> tuple[ResponseStatus, IncompleteDetails | None]:
    """The status that a stop makes, and `incomplete_details`."""
    match reason:
        case StopReason.LENGTH | StopReason.REPEATED:
            return ResponseStatus.INCOMPLETE, {"reason": "max_output_tokens"}
        case StopReason.FILTERED:
            return ResponseStatus.INCOMPLETE, {"reason": "content_filter"}
        case StopReason.DEADLINE | StopReason.ABORTED:
            return ResponseStatus.INCOMPLETE, {"reason": "deadline"}
        case _:
            return ResponseStatus.COMPLETED, None


def response_usage(bill: Usage) -> ResponseUsage:
    """The bill. A state that was computed again after a fold stands apart."""
    usage: ResponseUsage = {
        "input_tokens": bill.prompt_tokens,
        "input_tokens_details": {"cached_tokens": bill.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": bill.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
        "total_tokens": bill.prompt_tokens + bill.completion_tokens,
    }
    if bill.refilled_tokens:
        usage["refilled_tokens"] = bill.refilled_tokens
    if bill.parallel_tokens:
        usage["steps"] = bill.steps
    return usage


# Failures, and pages of a list ----------------------------------------------------------------------------------------


def response_error(error: Exception) -> ServeError:
    """A failure under the names of this request. The server's own failures are logged."""
    public = logged(error)
    if public.code == OVERFLOW_CODE:
        return BadRequest(public.message, param="input", code=public.code)
    if public.param in RENAMED:
        public.param = RENAMED[public.param]
    return public


def failure(error: ServeError) -> ResponseError:
    """An error as a response shows it. An overflow has the code by which agents know that they have to compact."""
    if error.code == OVERFLOW_CODE:
        code = OVERFLOW_CODE
    elif isinstance(error, QueueFull | ModelBusy):
        code = "rate_limit_exceeded"
    elif isinstance(error, BadRequest | NotFound | UnknownReference):
        code = "invalid_prompt"
    else:
        code = "server_error"
    return {"code": code, "message": error.message}


def failed(body: Mapping[str, Any], error: ResponseError) -> dict[str, Any]:
    """The response object of a response that failed. What it had said so far is not kept."""
    return {**body, "status": ResponseStatus.FAILED.value, "error": error, "output": []}


def page_of(items: Sequence[Any], after: str | None, most: int, order: SortOrder) -> ItemPage:
    """The `most` items that follow the one called `after`. Raises UnknownReference where there is no such item."""
    ordered = list(items) if order is SortOrder.ASC else list(items)[::-1]
    begin = 0
    if after is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise UnknownReference(f"after: there is no item '{after}' here", param="after")
        begin = ids.index(after) + 1
    return listed(ordered[begin : begin + most], more=len(ordered) > begin + most)


def listed(items: Sequence[Any], *, more: bool) -> ItemPage:
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else "",
        "last_id": items[-1]["id"] if items else "",
        "has_more": more,
    }
