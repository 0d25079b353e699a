"""One error path for all routes: what went wrong, as the API's error object. The server's insides are not told."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.serve.store.records import NotFound
from ponder.types import (
    FormatError,
    InvalidRequest,
    MissingExtra,
    Overloaded,
    PonderError,
    RefusedByEndpoint,
    SamplerError,
    WindowExceeded,
)

log = logging.getLogger("ponder.serve")
LONGEST_MESSAGE = 1000  # characters: some repeat a name of the request


class ErrorType(StrEnum):
    """The API's words for whose fault it is."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    NOT_FOUND = "not_found_error"
    RATE_LIMIT = "rate_limit_error"
    SERVER = "server_error"


class ErrorBody(BaseModel):
    message: str
    type: ErrorType
    param: str | None = None
    code: str | None = None


class ErrorObject(BaseModel):
    """What every response of status 400 and above holds."""

    error: ErrorBody


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorObject, "description": "The request cannot be answered as it is"},
    "5XX": {"model": ErrorObject, "description": "The server or the model failed, or is shutting down"},
}


class ApiError(Exception):
    """An answer of status 400 or above. `param` names the field, `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: ErrorType = ErrorType.INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(message=message, type=type, param=param, code=code)
        self.headers = dict(headers or {})

    def as_json(self) -> dict[str, Any]:
        return {"error": self.body.model_dump(mode="json")}


def unsupported(param: str, what: str) -> ApiError:
    """A field, or a value of one, that this server does not have."""
    return ApiError(400, f"{param}: {what}", param=param, code="unsupported_parameter")


def not_found(what: str) -> ApiError:
    return ApiError(404, what, type=ErrorType.NOT_FOUND, code="not_found")


def as_api_error(error: BaseException) -> ApiError:
    """An error of the package in the API's words; anything that is not the caller's fault is a bare server error."""
    match error:
        case ApiError():
            return error
        case NotFound():
            return not_found(str(error))
        case WindowExceeded():
            return ApiError(400, str(error), param="messages", code="context_length_exceeded")
        case RefusedByEndpoint():
            return ApiError(400, "the model behind this server refuses the request", code="refused_by_model")
        case InvalidRequest() | FormatError():
            return ApiError(400, str(error), code="invalid_value")
        case Overloaded():
            return too_busy(1)
        case MissingExtra():
            return ApiError(400, "this server was set up without what this request needs", code="unsupported_parameter")
        case SamplerError():
            return ApiError(502, "the model behind this server failed", type=ErrorType.SERVER, code="model_error")
        case PonderError() | _:
            return ApiError(500, "the server failed", type=ErrorType.SERVER, code="server_error")


def logged(error: BaseException) -> ApiError:
    """`as_api_error`; what is the server's fault is logged, with its place. What an error of unknown kind says is left
    out: it may repeat what was asked or thought."""
    told = as_api_error(error)
    if told.status >= 500 and not isinstance(error, ApiError):
        where = "".join(traceback.format_tb(error.__traceback__))
        what = f"{type(error).__name__}: {error}" if isinstance(error, PonderError) else type(error).__name__
        log.error("a request failed: %s\n%s", what, where)
    return told


class Failures:
    """ASGI middleware: whatever fails becomes an error object, or, once the response has begun, cuts the connection."""

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
            told = logged(error)
            if scope["type"] != "http":
                raise
            if not began:
                await JSONResponse(told.as_json(), told.status, told.headers)(scope, receive, send)


def too_busy(retry_after: int) -> ApiError:
    """The queue is full. retry_after: seconds."""
    return ApiError(
        429,
        f"the server is busy: try again in {retry_after} s",
        type=ErrorType.RATE_LIMIT,
        code="queue_full",
        headers={"Retry-After": str(retry_after)},
    )


def too_late(retry_after: int) -> ApiError:
    """The deadline was over before the request could begin. retry_after: seconds."""
    return ApiError(
        503,
        f"the deadline was over while the request waited for its turn: try again in {retry_after} s",
        type=ErrorType.SERVER,
        code="deadline_exceeded",
        headers={"Retry-After": str(retry_after)},
    )


def shutting_down() -> ApiError:
    return ApiError(
        503, "the server is shutting down", type=ErrorType.SERVER, code="shutting_down", headers={"Retry-After": "5"}
    )
