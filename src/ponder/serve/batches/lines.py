"""A line of a batch file as the request of a job, and a job as a line of the output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ponder.serve.common.wire import LongText, Metadata, Name, Strict, Unserved
from ponder.serve.errors import BadRequest, ServeError
from ponder.serve.http.bodies import check_json
from ponder.serve.http.errors import invalid
from ponder.serve.jobs.wire import Tokens
from ponder.serve.responses.wire import ResponseRequest
from ponder.serve.store import StoredResponse
from ponder.serve.store.job_records import StoredJob

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ENDPOINTS = (CHAT, RESPONSES)
MOST_LINES = 50_000


class BatchLine(Strict):
    """A line of the file."""

    custom_id: Name
    method: Literal["POST"]
    url: Name
    body: dict[str, Any]


class ChatPart(Strict):
    type: Literal["text"]
    text: LongText


class ChatTurn(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: LongText | Annotated[list[ChatPart], Field(min_length=1, max_length=256)]
    name: Unserved = None


class ChatLine(Strict):
    """What a line for chat completions may say: what a job has. Other fields are refused by name."""

    model: Name
    messages: Annotated[list[ChatTurn], Field(min_length=1, max_length=4096)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    reasoning_effort: Name | None = None
    strategy: Name | None = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    n: Literal[1] | None = None
    stream: Literal[False] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    user: Name | None = None


def read_batch_line(text: bytes, endpoint: str) -> BatchLine:
    """Raises BadRequest for what is not a request to the endpoint of the batch."""
    try:
        check_json(text)
        line = BatchLine.model_validate_json(text)
    except ValidationError as error:
        raise invalid(_placed(error), _loaded(text), "the line") from None
    if line.url != endpoint:
        raise BadRequest(f"url must be the batch's endpoint, {endpoint} (got {line.url[:100]!r})", param="url")
    return line


def request_of(line: BatchLine) -> dict[str, Any]:
    """The request of the job. Raises BadRequest naming the field that cannot be served."""
    body = line.body
    try:
        if line.url == RESPONSES:
            asked = ResponseRequest.model_validate(body)
            for name in ("stream", "conversation", "previous_response_id"):
                if getattr(asked, name):
                    raise BadRequest(f"body.{name}: a line of a batch stands by itself: leave it out", param=name)
            request = asked.model_dump(mode="json", by_alias=True, exclude_unset=True)
        else:
            request = _from_chat(ChatLine.model_validate(body))
    except ValidationError as error:
        raise invalid(_placed(error), body, "the body") from None
    return {**request, "background": True, "store": True}


def _from_chat(asked: ChatLine) -> dict[str, Any]:
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise BadRequest("max_tokens and max_completion_tokens say the same: give one of them", param="max_tokens")
    limit = asked.max_completion_tokens or asked.max_tokens
    said = asked.model_dump(exclude_unset=True, exclude_none=True)
    kept = ("model", "temperature", "top_p", "seed", "strategy", "thinking_token_budget", "metadata", "user")
    request = {name: said[name] for name in kept if name in said}
    if limit is not None:
        request["max_output_tokens"] = limit
    if asked.reasoning_effort is not None:
        request["reasoning"] = {"effort": asked.reasoning_effort}
    request["input"] = [{"role": turn.role, "content": _text(turn.content)} for turn in asked.messages]
    return request


def _text(content: str | Sequence[ChatPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _placed(error: ValidationError) -> list[dict[str, Any]]:
    return [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]


def _loaded(text: bytes) -> dict[str, Any]:
    loaded = json.loads(text)
    return loaded if isinstance(loaded, dict) else {}


# The output -----------------------------------------------------------------------------------------------------------


def output_line(job: StoredJob, response: StoredResponse | None, endpoint: str) -> bytes:
    """response: None: there is none, and the line says why."""
    line: dict[str, Any] = {"id": f"batch_req_{job.id.partition('_')[2]}", "custom_id": job.custom_id}
    if response is None:
        error = job.error or {"code": f"batch_{job.state.value}", "message": f"the job is {job.state.value}"}
        line |= {"response": None, "error": dict(error)}
    else:
        body = dict(response.body) if endpoint == RESPONSES else _chat_body(job, response)
        line |= {"response": {"status_code": 200, "request_id": response.id, "body": body}, "error": None}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _chat_body(job: StoredJob, response: StoredResponse) -> Mapping[str, Any]:
    """A response as the chat completion that the line asked for."""
    body = response.body
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    refused = "".join(part["refusal"] for part in parts if part["type"] == "refusal") or None
    message = {"role": "assistant", "content": job.answer or "", "refusal": refused}
    usage = body["usage"]
    return {
        "id": f"chatcmpl-{response.id.partition('_')[2]}",
        "object": "chat.completion",
        "created": response.created_at,
        "model": response.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "stop" if body["status"] == "completed" else "length",
            }
        ],
        "usage": usage
        and {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": usage["input_tokens_details"]["cached_tokens"]},
            "completion_tokens_details": {"reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"]},
        },
    }


def line_error(number: int, error: ServeError) -> dict[str, Any]:
    """An error of the file. number: of the line, from 1."""
    return {"code": error.code or "invalid_value", "line": number, "message": error.message, "param": error.param}
