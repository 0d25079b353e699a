"""The application: routes, the one error path, and what starts and stops with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ponder.serve import health, tokenize
from ponder.serve.auth import Auth, Keys
from ponder.serve.body import BodyLimit
from ponder.serve.chat import routes as chat
from ponder.serve.completions import routes as completions
from ponder.serve.errors import ApiError, ErrorObject, ErrorType, as_api_error
from ponder.serve.logs import AccessLog
from ponder.serve.metrics import Metrics
from ponder.serve.models import Models, Served
from ponder.serve.settings import Settings
from ponder.serve.state import State
from ponder.types import PonderError

log = logging.getLogger("ponder.serve")
STATUSES = (400, 401, 404, 405, 413, 429, 500, 502, 503)


def create_app(served: Sequence[Served], settings: Settings | None = None, *, keys: Keys | None = None) -> FastAPI:
    """The server's application over models that are loaded. The samplers are closed with it.

    keys: whose requests are answered; None: everybody's, under the owner "local".
    """
    settings = settings or Settings()
    models = Models(list(served), settings)
    state = State(settings=settings, models=models, metrics=Metrics(models))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await models.close()

    app = FastAPI(
        title="Ponder",
        description="Language models that think before they answer, behind the API that programs already speak.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={status: {"model": ErrorObject} for status in STATUSES},
        redirect_slashes=False,
    )
    app.state.ponder = state
    for router in (health.router, chat.router, completions.router, tokenize.router):
        app.include_router(router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in (ApiError, PonderError):
        app.add_exception_handler(kind, _failed)
    # From the outside in: the log sees every answer, and nothing is read before it is known who asks.
    app.add_middleware(BodyLimit, limit=settings.body)
    app.add_middleware(Auth, keys=keys)
    app.add_middleware(AccessLog)
    return app


async def _failed(request: Request, error: Exception) -> JSONResponse:
    told = as_api_error(error)
    if told.status >= 500:
        log.error("request failed", exc_info=error)
    return JSONResponse(told.as_json(), told.status, told.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first thing that is wrong with a body, named by its place. What was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = dict(error.errors()[0])
    place = _place(first["loc"][1:])
    message = first["msg"] if first["type"] != "extra_forbidden" else "unknown or unsupported parameter"
    code = "unsupported_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
    told = ApiError(400, f"{place}: {message}" if place else message, param=place or None, code=code)
    return JSONResponse(told.as_json(), told.status)


def _place(location: Sequence[str | int]) -> str:
    """messages[0].content, as the API names fields."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text[:200]


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = ErrorType.NOT_FOUND if error.status_code == 404 else ErrorType.INVALID_REQUEST
    what = {404: "there is no such path", 405: "this path does not take this method"}.get(error.status_code)
    told = ApiError(error.status_code, what or str(error.detail), type=kind, headers=error.headers)
    return JSONResponse(told.as_json(), told.status, told.headers)
