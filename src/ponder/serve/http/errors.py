"""One error path for all routes: every failure becomes the error object of the API that the path belongs to, with the
status of its kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NotRequired

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import TypedDict

from ponder.sampler.replies import OVERFLOW_CODE
from ponder.serve.errors import (
    BadRequest,
    Busy,
    Conflict,
    Locked,
    ModelBusy,
    ModelFailed,
    NotFound,
    QueueFull,
    ServeError,
    ServerFailed,
    UnknownReference,
    logged,
)
from ponder.types import PonderError

MAX_ERRORS = 100  # of one request that are looked at
UNKNOWN = ("extra_forbidden", "none_required")  # the validator's kinds of error for a field that is not served
SAID = {  # what must hold, for other kinds
    "missing": "is missing",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "value_error": "{error}",
}
MESSAGES = "/v1/messages"  # the paths of Anthropic's API begin so


class ErrorType(StrEnum):
    """The API's words for whose fault it is."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    NOT_FOUND = "not_found_error"
    RATE_LIMIT = "rate_limit_error"
    SERVER = "server_error"
    API = "api_error"  # Anthropic's word for the same


class ErrorBody(TypedDict):
    message: str
    type: ErrorType
    param: str | None
    code: str | None


class ErrorObject(TypedDict):
    """What every response of status 400 and above holds. type: "error", in Anthropic's API."""

    error: ErrorBody
    type: NotRequired[Literal["error"]]


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorObject, "description": "The request cannot be answered as it is"},
    "5XX": {"model": ErrorObject, "description": "The server or the model failed, or is shutting down"},
}


class HttpError(ServeError):
    """A refusal that exists in HTTP alone, with its own status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: ErrorType = ErrorType.INVALID_REQUEST,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.type = type
        self.headers = headers


KINDS: dict[type[ServeError], tuple[int, ErrorType]] = {
    BadRequest: (400, ErrorType.INVALID_REQUEST),
    UnknownReference: (404, ErrorType.INVALID_REQUEST),
    NotFound: (404, ErrorType.NOT_FOUND),
    Locked: (409, ErrorType.INVALID_REQUEST),
    Conflict: (409, ErrorType.INVALID_REQUEST),
    QueueFull: (429, ErrorType.RATE_LIMIT),
    ModelBusy: (429, ErrorType.RATE_LIMIT),
    Busy: (503, ErrorType.SERVER),
    ModelFailed: (502, ErrorType.SERVER),
    ServerFailed: (500, ErrorType.SERVER),
}


def _kind(error: ServeError) -> tuple[int, ErrorType]:
    if isinstance(error, HttpError):
        return error.status, error.type
    return next(KINDS[kind] for kind in type(error).__mro__ if kind in KINDS)


def error_object(error: ServeError, path: str) -> ErrorObject:
    """path: of the request."""
    body: ErrorBody = {
        "message": error.message,
        "type": _kind(error)[1],
        "param": error.param,
        "code": error.code,
    }
    if not path.startswith(MESSAGES):
        return {"error": body}
    if error.code == OVERFLOW_CODE:  # the words by which clients of this API know that they have to compact
        body["message"] = f"prompt is too long: {error.message}"
    if body["type"] is ErrorType.SERVER:
        body["type"] = ErrorType.API
    return {"type": "error", "error": body}


class ErrorResponse(Response):
    """An error, written for the API that it is sent to."""

    media_type = "application/json"

    def __init__(self, error: ServeError) -> None:
        headers = error.headers if isinstance(error, HttpError) else None
        if isinstance(error, Busy):
            headers = {"Retry-After": str(error.retry_after)}
        super().__init__(status_code=_kind(error)[0], headers=headers)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = json.dumps(error_object(self._error, scope["path"]), separators=(",", ":")).encode()
        self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


class Failures:
    """ASGI middleware. A failure becomes an error object, or cuts the connection once the response has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def noting(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            public = logged(error)
            if scope["type"] != "http":
                raise
            if not began:
                await ErrorResponse(public)(scope, receive, send)


# Handlers of the application ------------------------------------------------------------------------------------------


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(PonderError, _failed)


async def _failed(request: Request, error: Exception) -> ErrorResponse:
    return ErrorResponse(logged(error))


async def _invalid(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, RequestValidationError)
    return ErrorResponse(invalid(error.errors(), error.body if isinstance(error.body, dict) else {}))


def invalid(errors: Sequence[Mapping[str, Any]], body: Mapping[str, Any], what: str = "the body") -> BadRequest:
    """The first of the errors deepest in the request, named by its place: a value that could be of several kinds is
    wrong as each of them, and one of the right kind says more. What was sent is not repeated.

    errors: as pydantic lists them, their places beginning with "body".
    what: the name of the body as a whole.
    """
    places = [_place(each["loc"], body, each["type"] == "missing") for each in errors[:MAX_ERRORS]]
    kinds = [each["type"].endswith("_type") for each in errors]
    deepest = max(range(len(places)), key=lambda at: (len(places[at]), not kinds[at]))
    first: dict[str, Any] = dict(errors[deepest])
    place = _spelled(places[deepest])
    code = "unsupported_parameter" if first["type"] in UNKNOWN else "invalid_value"
    return BadRequest(f"{place or what}{_said(first)}", param=place or None, code=code)


def _said(error: Mapping[str, Any]) -> str:
    """What follows the name of the field."""
    if error["type"] in UNKNOWN:
        return ": unknown or unsupported parameter"
    said = SAID.get(error["type"])
    return f": {error['msg']}" if said is None else f" {said.format(**error.get('ctx', {}))}"


def _place(location: Sequence[str | int], body: Any, missing: bool) -> list[str | int]:
    """Where in the request an error is. The location also names the kinds that a value might be of: they are left out.
    missing: the last step of the location is not in the body."""
    if location[0] != "body":
        return list(location[1:])
    place: list[str | int] = []
    for step in location[1:]:
        if (isinstance(body, dict) and step in body) or (isinstance(body, list) and isinstance(step, int)):
            body = body[step]  # type: ignore[index]
            place.append(step)
    return [*place, location[-1]] if missing and len(location) > 1 else place


def _spelled(place: Sequence[str | int]) -> str:
    """messages[0].content, as the API names fields."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text[:200]


async def _http(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, HTTPException)
    kind = ErrorType.NOT_FOUND if error.status_code == 404 else ErrorType.INVALID_REQUEST
    what = {404: "there is no such path", 405: "this path does not accept this method"}.get(error.status_code)
    headers = {"Allow": ", ".join(_methods(request))} if error.status_code == 405 else error.headers
    return ErrorResponse(HttpError(error.status_code, what or str(error.detail), type=kind, headers=headers))


def _methods(request: Request) -> list[str]:
    """The methods that the path takes, over all routes that have it: the router names those of the first alone."""
    scope = dict(request.scope)
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
        for asked in [{**scope, "method": "GET" if method == "HEAD" else method}]
        if any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)
    ]
