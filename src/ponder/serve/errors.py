"""One error path for all routes: what went wrong, as the API's error object. The server's insides are not told."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from ponder.serve.store.records import NotFound
from ponder.types import (
    FormatError,
    InvalidRequest,
    MissingExtra,
    Overloaded,
    PonderError,
    SamplerError,
    WindowExceeded,
)


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


def too_busy(retry_after: int) -> ApiError:
    """The queue is full. retry_after: seconds."""
    return ApiError(
        429,
        f"the server is busy: try again in {retry_after} s",
        type=ErrorType.RATE_LIMIT,
        code="queue_full",
        headers={"Retry-After": str(retry_after)},
    )


def shutting_down() -> ApiError:
    return ApiError(
        503, "the server is shutting down", type=ErrorType.SERVER, code="shutting_down", headers={"Retry-After": "5"}
    )
