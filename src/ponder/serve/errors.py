"""Why a request was not answered, as typed errors. Their texts may be sent to any client. Nothing here knows HTTP."""

from __future__ import annotations

import logging
import math
import traceback

from ponder.sampler.replies import OVERFLOW_CODE
from ponder.types import (
    FormatError,
    InvalidRequest,
    MissingExtra,
    Overloaded,
    PonderError,
    RateLimited,
    RefusedByEndpoint,
    SamplerError,
    WindowExceeded,
    WriteError,
)

log = logging.getLogger("ponder.serve")
LONGEST_MESSAGE = 1000  # characters: some messages repeat a name from the request


class ServeError(PonderError):
    """A request that was not answered.

    message: what was wrong and what to do, for the client.
    param: the field that it is about, as the API names it; None: none in particular.
    code: for programs.
    """

    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.message = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
        super().__init__(self.message)
        self.param = param
        self.code = code if code is not None else type(self).code


class BadRequest(ServeError):
    """The request cannot be served as it is."""


class Unsupported(BadRequest):
    """A field, or a value of a field, that this server does not have."""

    code = "unsupported_parameter"

    def __init__(self, param: str, what: str) -> None:
        super().__init__(f"{param}: {what}", param=param)


class UnknownReference(ServeError):
    """A field of the request names an object that does not exist."""

    code = "not_found"


class NotFound(ServeError):
    """The object that is asked for does not exist, or belongs to another owner."""

    code = "not_found"


class Locked(ServeError):
    """The object is in use by another request."""


class Conflict(ServeError):
    """What is asked does not fit the object as it is now."""


class Busy(ServeError):
    """The request cannot begin now.

    retry_after: seconds after which it may begin.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Busy):
    code = "queue_full"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is busy: try again in {retry_after} s", retry_after)


class ModelBusy(Busy):
    """A model on another server takes no more requests for now."""

    code = "rate_limit_exceeded"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server that runs this model is busy: try again in {retry_after} s", retry_after)


class DeadlinePassed(Busy):
    """The deadline was over before the request could begin."""

    code = "deadline_exceeded"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the deadline passed while the request was queued: try again in {retry_after} s", retry_after)


class ShuttingDown(Busy):
    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("the server is shutting down: try again in 5 s", 5)


class ModelFailed(ServeError):
    """A model on another server failed; what it said is not repeated."""

    code = "model_error"


class ServerFailed(ServeError):
    """A fault of this server; its insides are not shown."""

    code = "server_error"


def too_long(what: str, param: str = "messages") -> BadRequest:
    """A prompt that does not fit, in the words by which clients know that they have to shorten a conversation."""
    return BadRequest(f"the model's maximum context length is {what}", param=param, code=OVERFLOW_CODE)


def as_serve_error(error: BaseException) -> ServeError:
    """An error of the package in words for clients. What is not the caller's fault becomes a bare failure."""
    match error:
        case ServeError():
            return error
        case WindowExceeded():
            return too_long(f"{error.window} tokens: {error}")
        case RefusedByEndpoint(code=code) if code == OVERFLOW_CODE:
            return too_long("less than this request takes: shorten the messages or max_tokens")
        case RefusedByEndpoint():
            return BadRequest("the server that runs this model refuses the request", code="refused_by_model")
        case InvalidRequest() | FormatError():
            return BadRequest(str(error), code="invalid_value")
        case RateLimited():
            return ModelBusy(max(1, math.ceil(error.retry_after or 1)))
        case Overloaded():
            return QueueFull(1)
        case MissingExtra():
            return BadRequest(
                "this server lacks an optional dependency that this request needs: ask its operator to install it",
                code="unsupported_parameter",
            )
        case SamplerError():
            return ModelFailed("the server that runs this model failed")
        case WriteError():
            return ServerFailed(
                'the server cannot write to its disk, so nothing was stored; with "store": false it answers'
            )
        case _:
            return ServerFailed("the server failed")


def logged(error: BaseException) -> ServeError:
    """`as_serve_error`, and a fault of the server is logged with its place. The text of an error of unknown kind is
    left out of the log: it may repeat what was asked or thought."""
    public = as_serve_error(error)
    if isinstance(public, ModelFailed | ServerFailed) and public is not error:
        where = "".join(traceback.format_tb(error.__traceback__))
        what = f"{type(error).__name__}: {error}" if isinstance(error, PonderError) else type(error).__name__
        log.error("a request failed: %s\n%s", what, where)
    return public
