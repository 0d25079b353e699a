"""A request for a response as an ask, and the response object: what it says of its request, its bill, how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ponder.dialogue.messages import Message, ReasoningPolicy
from ponder.sampler.protocol import Completion, Grammar, JsonSchema, NextTurn, Truncation
from ponder.serve.answering import ServedAsk
from ponder.serve.common.convert import (
    ANY_OBJECT,
    answer_logprobs,
    read_answer_room,
    read_deadline,
    read_parallel_calls,
    read_seed,
    read_temperature,
    read_thinking,
    read_tool_choice,
    read_tools,
    tenant,
)
from ponder.serve.common.wire import TokenLogprob
from ponder.serve.errors import BadRequest, NotFound, QueueFull, ServeError, UnknownReference, Unsupported, logged
from ponder.serve.models import Served
from ponder.serve.responses.events import EventWriter
from ponder.serve.responses.items import View, output_items
from ponder.serve.responses.seal import Sealer
from ponder.serve.responses.wire import (
    ConversationName,
    IncompleteDetails,
    ItemPage,
    NamedResponseTool,
    OutputItem,
    RemovedReasoning,
    ResponseError,
    ResponseObject,
    ResponseRequest,
    ResponseSchemaFormat,
    ResponseUsage,
)
from ponder.serve.settings import Settings
from ponder.serve.store import ResponseStatus, RunMode, SortOrder, StoredEvent, StoredItem, StoredResponse
from ponder.think.ask import Ask
from ponder.types import StopReason, Usage, WindowExceeded

LOGPROBS = "message.output_text.logprobs"
PRO_SAMPLES = 8


# In -------------------------------------------------------------------------------------------------------------------


def conversation_of(asked: ResponseRequest) -> str | None:
    named = asked.conversation
    return named.id if isinstance(named, ConversationName) else named


def is_stored(asked: ResponseRequest) -> bool:
    return asked.store is not False


def effort_of(asked: ResponseRequest) -> str | None:
    return asked.reasoning.effort if asked.reasoning else None


def is_pro(asked: ResponseRequest) -> bool:
    return asked.reasoning is not None and asked.reasoning.mode == "pro"


def check_response(asked: ResponseRequest, sealer: Sealer | None) -> None:
    """Raises BadRequest naming the field that does not go with the others."""
    if asked.previous_response_id is not None and conversation_of(asked) is not None:
        raise BadRequest(
            "previous_response_id and conversation both say what came before: give one", param="previous_response_id"
        )
    if asked.background and not is_stored(asked):
        raise BadRequest("background: a response that is not stored cannot be come back for", param="background")
    if conversation_of(asked) is not None and not is_stored(asked):
        raise BadRequest("conversation: what is not stored cannot be added to one", param="store")
    if asked.stream_options is not None and not asked.stream:
        raise BadRequest("stream_options needs stream: true", param="stream_options")
    include = asked.include or ()
    if asked.top_logprobs is not None and LOGPROBS not in include:
        raise BadRequest(f"top_logprobs needs include: ['{LOGPROBS}']", param="top_logprobs")
    if "reasoning.encrypted_content" in include and sealer is None:
        raise Unsupported("include", "this server does not seal reasoning: `cryptography` is not installed with it")


def read_policy(asked: ResponseRequest) -> ReasoningPolicy:
    wanted = asked.reasoning.context if asked.reasoning else None
    return ReasoningPolicy.ALL_TURNS if wanted == "all_turns" else ReasoningPolicy.CURRENT_TURN


def read_strategy(asked: ResponseRequest, served: Served, settings: Settings) -> str | None:
    """The strategy that the request names: mode "pro" is one. Raises BadRequest."""
    if asked.strategy is None and is_pro(asked):
        if served.strategy is not None:
            raise Unsupported("reasoning.mode", f"the model {served.name!r} has a strategy of its own: leave it out")
        return f"consensus(samples={min(PRO_SAMPLES, settings.samples)})"
    return asked.strategy


def read_response(
    asked: ResponseRequest, messages: tuple[Message, ...], served: Served, settings: Settings, owner: str
) -> Ask:
    """messages: what came before, and the request's own. Raises BadRequest naming the field that cannot be served."""
    effort, thinking = read_thinking(effort_of(asked), asked.thinking_token_budget, named="reasoning.effort")
    tools = read_tools({"type": "function", "function": _function(tool)} for tool in _dumped(asked.tools))
    if not tools and asked.tool_choice not in (None, "auto", "none"):
        raise BadRequest("tool_choice needs tools", param="tool_choice")
    choice = asked.tool_choice if tools else None
    named = choice.name if isinstance(choice, NamedResponseTool) else None
    logprobs = LOGPROBS in (asked.include or ())
    if served.tokenizer is None:
        for name, value in (("include", logprobs), ("answer_room", asked.answer_room)):
            if value:
                raise Unsupported(name, f"the model {served.name!r} is behind another server")
    return Ask(
        prompt=messages,
        effort=effort,
        thinking=thinking,
        answer_room=read_answer_room(asked.answer_room, asked.max_output_tokens),
        max_tokens=asked.max_output_tokens,
        temperature=read_temperature(asked.temperature, served),
        top_p=asked.top_p,
        seed=read_seed(asked.seed),
        top_logprobs=asked.top_logprobs or 0,
        logprobs=logprobs,
        grammar=_grammar(asked),
        tools=tools,
        tool_choice=read_tool_choice(choice if isinstance(choice, str) else None, named, tools),
        parallel_calls=read_parallel_calls(asked.parallel_tool_calls if tools else None),
        policy=read_policy(asked),
        truncation=Truncation(asked.truncation or "disabled"),
        deadline=read_deadline(asked.deadline, settings),
        next_turn=NextTurn.VERBATIM if is_stored(asked) else NextTurn.TEXT,
        tenant=tenant(owner, asked.prompt_cache_key, served),
    )


def _dumped(tools: Sequence[Any] | None) -> list[dict[str, Any]]:
    return [tool.model_dump(mode="json") for tool in tools or ()]


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tool.items() if name != "type"}


def _grammar(asked: ResponseRequest) -> Grammar | None:
    wanted = asked.text.format if asked.text else None
    if wanted is None or wanted.type == "text":
        return None
    return JsonSchema(json.dumps(wanted.schema_) if isinstance(wanted, ResponseSchemaFormat) else ANY_OBJECT)


def read_view(asked: ResponseRequest, owner: str, served: Served, sealer: Sealer | None) -> View:
    """Reasoning is sealed if that is asked for, and always if nothing is stored."""
    include = asked.include or ()
    sealed = "reasoning.encrypted_content" in include or not is_stored(asked)
    return View(
        owner,
        served.name,
        shows_reasoning="reasoning.content" in include,
        sealer=sealer if sealed else None,
        tokenizer=served.tokenizer if LOGPROBS in include else None,
    )


# Out ------------------------------------------------------------------------------------------------------------------


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
        "tools": [tool.model_dump(mode="json", exclude_none=True) for tool in asked.tools or ()],
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
        case StopReason.LENGTH:
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
    return usage


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTurn:
    """A response as it ended.

    stored: the object without any reasoning. shown: as its client is answered.
    output: what is kept and never sent. items: what it adds to its conversation. events: the last ones.
    """

    status: ResponseStatus
    stored: ResponseObject
    shown: ResponseObject
    output: list[dict[str, object]]
    items: list[StoredItem]
    events: list[StoredEvent]


@dataclass(slots=True, kw_only=True)
class ResponseTurn:
    """asked: the request. given: its items. view: how items are shown. removed: reasoning that the model was not
    given."""

    id: str
    owner: str
    served: Served
    created_at: int
    asked: ResponseRequest
    task: ServedAsk
    given: list[StoredItem]
    view: View
    removed: Sequence[RemovedReasoning] = ()

    def body(self, status: ResponseStatus, output: Sequence[OutputItem] = ()) -> ResponseObject:
        """The response object."""
        body = response_object(self.asked, self.task.ask, self.served, self.id, self.created_at)
        body["status"] = status.value
        body["output"] = list(output)
        body["input_transformations"] = list(self.removed)
        return body

    def record(self, status: ResponseStatus, ended: EndedTurn | None = None) -> StoredResponse:
        """As it is kept."""
        asked = self.asked
        return StoredResponse(
            id=self.id,
            owner=self.owner,
            model=self.served.name,
            status=status,
            running=RunMode.BACKGROUND if asked.background else RunMode.FOREGROUND,
            created_at=self.created_at,
            previous_response_id=asked.previous_response_id,
            conversation_id=conversation_of(asked),
            request=asked.model_dump(
                mode="json", exclude_unset=True, by_alias=True, include=None if asked.background else {"include"}
            ),
            input=[item.body for item in self.given],
            body=self.body(status) if ended is None else ended.stored,
            output=() if ended is None else ended.output,
        )

    def end(self, completion: Completion, writer: EventWriter) -> EndedTurn:
        """The response that its completion makes."""
        items = writer.placed(output_items(completion, self.id, self.served, self._logprobs(completion)))
        shown = [self.view.item(item) for item in items]
        status, why = ending(completion.stop_reason)
        body = self.body(status, shown)
        body["usage"] = response_usage(completion.usage)
        body["incomplete_details"] = why
        if status is ResponseStatus.COMPLETED:
            body["completed_at"] = int(time.time())
        if completion.dropped_turns:
            body["dropped_turns"] = completion.dropped_turns
        return EndedTurn(
            status=status,
            stored={**body, "output": cast(list[OutputItem], [item.body for item in items])},
            shown=body,
            output=[{"id": item.id, "hidden": item.hidden} for item in items],
            items=[*self.given, *items] if conversation_of(self.asked) else [],
            events=[*writer.items(shown), writer.state(status.value, body)],
        )

    def _logprobs(self, completion: Completion) -> list[TokenLogprob]:
        tokenizer, segment = self.view.tokenizer, completion.segment
        if tokenizer is None or segment is None:
            return []
        return answer_logprobs(segment, completion.text, tokenizer)


RENAMED = {"logprobs": "include"}  # fields of an ask that this API calls otherwise


def response_error(error: Exception) -> ServeError:
    """A failure under the names of this request. The server's own failures are logged."""
    public = logged(error)
    if isinstance(error, WindowExceeded):
        return BadRequest(public.message, param="input", code=public.code)
    if public.param in RENAMED:
        public.param = RENAMED[public.param]
    return public


def failure(error: ServeError) -> ResponseError:
    """An error as a response shows it."""
    if isinstance(error, QueueFull):
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
