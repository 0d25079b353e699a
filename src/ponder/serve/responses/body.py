"""The response object: what it says of its request, its bill, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ponder.sampler.protocol import Request
from ponder.serve.errors import ApiError, logged
from ponder.serve.responses.events import Wire
from ponder.serve.responses.schema import NamedTool, ResponseRequest
from ponder.serve.store import Status
from ponder.types import StopReason, Usage, WindowExceeded


def fields(asked: ResponseRequest, request: Request, effort: str | None) -> Wire:
    """All that is known of a response before it is made. effort: the one that holds."""
    return {
        "object": "response",
        "status": None,
        "background": bool(asked.background),
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "conversation": {"id": asked.conversation_id} if asked.conversation_id else None,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {
            "effort": effort,
            "summary": None,
            "context": request.policy.value,
            "mode": "pro" if is_pro(asked) else "standard",
        },
        "input_transformations": [],
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": asked.stored,
        "temperature": request.params.temperature,
        "text": {"format": _format(asked)},
        "tool_choice": _tool_choice(asked),
        "tools": [tool.model_dump(mode="json", exclude_none=True) for tool in asked.tools or ()],
        "top_logprobs": request.params.top_logprobs,
        "top_p": request.params.top_p,
        "truncation": request.truncation.value,
        "usage": None,
        "user": asked.user,
        "metadata": asked.metadata or {},
    }


def _format(asked: ResponseRequest) -> Wire:
    if asked.text is None or asked.text.format is None:
        return {"type": "text"}
    return asked.text.format.model_dump(mode="json", by_alias=True, exclude_none=True)


def _tool_choice(asked: ResponseRequest) -> Any:
    choice = asked.tool_choice
    return choice.model_dump(mode="json") if isinstance(choice, NamedTool) else choice or "auto"


def ending(reason: StopReason) -> tuple[Status, Wire | None]:
    """The status that a stop makes, and `incomplete_details`."""
    match reason:
        case StopReason.LENGTH:
            return Status.INCOMPLETE, {"reason": "max_output_tokens"}
        case StopReason.DEADLINE | StopReason.ABORTED:
            return Status.INCOMPLETE, {"reason": "deadline"}
        case _:
            return Status.COMPLETED, None


def usage(bill: Usage) -> Wire:
    """The bill as this API tells it. A state that was computed again behind a fold stands apart."""
    told: Wire = {
        "input_tokens": bill.prompt_tokens,
        "input_tokens_details": {"cached_tokens": bill.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": bill.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
        "total_tokens": bill.prompt_tokens + bill.completion_tokens,
    }
    return told | ({"refilled_tokens": bill.refilled_tokens} if bill.refilled_tokens else {})


def failed(body: Mapping[str, Any], error: Wire) -> Wire:
    """The response object of a response that failed. What it had said so far is not kept."""
    return {**body, "status": Status.FAILED.value, "error": error, "output": []}


def in_words(error: Exception) -> ApiError:
    """What failed, in the API's words and under the names of this request. The server's own failures are logged."""
    told = logged(error)
    if isinstance(error, WindowExceeded):
        return ApiError(told.status, told.body.message, param="input", code=told.body.code)
    return told


def failure(error: ApiError) -> Wire:
    """An error as a response tells it."""
    codes = {429: "rate_limit_exceeded", 400: "invalid_prompt", 404: "invalid_prompt"}
    return {"code": codes.get(error.status, "server_error"), "message": error.body.message}


def is_pro(asked: ResponseRequest) -> bool:
    return asked.reasoning is not None and asked.reasoning.mode == "pro"
