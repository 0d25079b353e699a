"""The application: routes, the one error path, and what starts and stops with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match

from ponder.serve import conversations, health, tokenize
from ponder.serve.auth import Auth, Keys
from ponder.serve.body import Body
from ponder.serve.chat import routes as chat
from ponder.serve.completions import routes as completions
from ponder.serve.document import document
from ponder.serve.errors import ERRORS, ApiError, ErrorType, Failures, logged
from ponder.serve.full import Full
from ponder.serve.logs import AccessLog
from ponder.serve.metrics import Metrics
from ponder.serve.models import Models, Served
from ponder.serve.query import check_query
from ponder.serve.responses import routes as responses
from ponder.serve.responses.keeping import keeping
from ponder.serve.settings import Settings
from ponder.serve.state import State
from ponder.serve.store import Store
from ponder.types import PonderError

MOST_ERRORS = 100  # that are looked at in one request


def create_app(
    served: Sequence[Served], settings: Settings | None = None, *, keys: Keys | None = None, store: Store | None = None
) -> FastAPI:
    """The server's application over models that are loaded. The samplers are closed with it.

    keys: whose requests are answered; None: those of the file in `settings`, and where there is none everybody's on
    this machine, under the owner "local". store: an open one, closed with it; None: the one that the settings name, or
    one that is gone with the server.
    """
    settings = settings or Settings()
    if keys is None and settings.keys:
        keys = Keys.load(Path(settings.keys))
    models = Models(served, settings)
    state = State(settings=settings, models=models, metrics=Metrics(models))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with keeping(state, store):
            yield
        await models.close()

    app = FastAPI(
        title="Ponder",
        description="Language models that think before they answer, behind the API that programs already speak.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
        dependencies=[Depends(check_query)],
        redirect_slashes=False,
    )
    app.state.ponder = state
    for part in (health, chat, completions, tokenize, responses, conversations):
        app.include_router(part.router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in (ApiError, PonderError):
        app.add_exception_handler(kind, _failed)
    # From the outside in: the log sees every answer, and nothing is read before it is known who asks.
    app.add_middleware(Body, limit=settings.body)
    app.add_middleware(Full)
    app.add_middleware(Auth, keys=keys)
    app.add_middleware(Failures)
    app.add_middleware(AccessLog)
    app.openapi = document(app, keys=keys is not None)  # type: ignore[method-assign]
    return app


async def _failed(request: Request, error: Exception) -> JSONResponse:
    told = logged(error)
    return JSONResponse(told.as_json(), told.status, told.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first of the things that are wrong deepest in the request, named by its place: a value that could be of
    several kinds is wrong as each of them. What was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    body = error.body if isinstance(error.body, dict) else {}
    places = [_place(each["loc"], body, each["type"] == "missing") for each in error.errors()[:MOST_ERRORS]]
    deepest = max(range(len(places)), key=lambda at: len(places[at]))
    first: dict[str, Any] = dict(error.errors()[deepest])
    place = _spelled(places[deepest])
    message = first["msg"] if first["type"] != "extra_forbidden" else "unknown or unsupported parameter"
    code = "unsupported_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
    told = ApiError(400, f"{place or 'the body'}: {message}", param=place or None, code=code)
    return JSONResponse(told.as_json(), told.status)


def _place(location: Sequence[str | int], body: Any, missing: bool) -> list[str | int]:
    """Where in the request an error is. The location also names the kinds that a value might be of: these are left out.
    missing: its last step is no part of the body."""
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


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = ErrorType.NOT_FOUND if error.status_code == 404 else ErrorType.INVALID_REQUEST
    what = {404: "there is no such path", 405: "this path does not take this method"}.get(error.status_code)
    headers = {"Allow": ", ".join(_methods(request))} if error.status_code == 405 else error.headers
    told = ApiError(error.status_code, what or str(error.detail), type=kind, headers=headers)
    return JSONResponse(told.as_json(), told.status, told.headers)


def _methods(request: Request) -> list[str]:
    """What the path takes, over all routes that have it: the router names those of the first alone."""
    scope = dict(request.scope)
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
