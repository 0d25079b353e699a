"""The application: its routes, what every request passes, what starts and stops with it, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ponder.serve import health, memories, pages, rankings, runs, score, tokenize
from ponder.serve.batches import routes as batch_routes
from ponder.serve.batches.service import BatchService
from ponder.serve.chat import routes as chat
from ponder.serve.completions import routes as completions
from ponder.serve.http.auth import OPEN_PATHS, Auth, Keys
from ponder.serve.http.bodies import Body, check_query
from ponder.serve.http.errors import ERRORS, ErrorResponse, Failures, add_error_handlers
from ponder.serve.http.exchange import ServerState, owner_of, state_of
from ponder.serve.http.log import AccessLog
from ponder.serve.http.origins import Origins
from ponder.serve.http.paths import Paths
from ponder.serve.jobs import routes as job_routes
from ponder.serve.jobs.service import JobService
from ponder.serve.messages import routes as messages
from ponder.serve.metrics import ServerMetrics
from ponder.serve.models import Models, Served
from ponder.serve.rankings import RankingFiles
from ponder.serve.responses import conversations
from ponder.serve.responses import routes as responses
from ponder.serve.responses.service import ResponseService
from ponder.serve.run_folders import RunFolders
from ponder.serve.settings import Settings
from ponder.serve.store import Store
from ponder.tasks.verifiers.reward import RewardModel
from ponder.think.memory.memory import Memory

# Requests that do nothing but wait for the one model.
SHED_PATHS = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/completions"})
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def create_app(
    served: Sequence[Served],
    settings: Settings | None = None,
    *,
    keys: Keys | None = None,
    store: Store | None = None,
    rewards: Mapping[str, RewardModel] | None = None,
) -> FastAPI:
    """The server's application over models that are loaded. The samplers are closed with it.

    keys: whose requests are answered. None: those of the file in `settings`; without one, every request from this
        machine, under the owner "local".
    rewards: the reward models of `/v1/score`, by name.
    store: an open one, closed with the application. None: the one that the settings name, or a temporary one.
    """
    settings = settings or Settings()
    if keys is None and settings.keys:
        keys = Keys.load(Path(settings.keys))
    models = Models(served, settings)
    metrics = ServerMetrics(models)
    service = ResponseService(models, settings, metrics)
    jobs = JobService(models, service)
    batches = BatchService(service, jobs)
    state = ServerState(
        settings=settings,
        models=models,
        metrics=metrics,
        responses=service,
        jobs=jobs,
        batches=batches,
        rankings=RankingFiles(Path(settings.rankings) if settings.rankings else None),
        rewards=rewards or {},
    )
    if settings.memory:
        state.memory = Memory(settings.memory)
    if settings.runs:
        state.runs = RunFolders(Path(settings.runs))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running(store, jobs.recover):
            jobs.start()
            yield
            await jobs.close()
        await models.close()
        if state.memory is not None:
            state.memory.close()
        state.rankings.close()

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
    for part in (
        health,
        pages,
        chat,
        messages,
        completions,
        tokenize,
        score,
        memories,
        runs,
        rankings,
        responses,
        conversations,
        job_routes,
        batch_routes,
    ):
        app.include_router(part.router)
    add_error_handlers(app)
    # From the outside in: the log sees every answer, and nothing is read before the owner is known.
    app.add_middleware(Body, limit=settings.body)
    app.add_middleware(LoadShedding)
    app.add_middleware(Auth, keys=keys)
    app.add_middleware(Origins, allowed=settings.origins)
    app.add_middleware(Failures)
    if settings.origins:  # before keys are asked for: a browser's first question carries none
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
            max_age=600,
        )
    app.add_middleware(AccessLog)
    app.add_middleware(Paths, prefix=settings.root_path)
    app.openapi = _document(app, keys=keys is not None)  # type: ignore[method-assign]
    return app


class LoadShedding:
    """ASGI middleware: 429 before anything of the body is read, on a server with one queue. With several, the body says
    which is meant, and `Admission` refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in SHED_PATHS:
            request = Request(scope)
            admissions = list(state_of(request).models.admissions.values())
            refusal = admissions[0].refusal(owner_of(request)) if len(admissions) == 1 else None
            if refusal is not None:
                return await ErrorResponse(refusal)(scope, receive, send)
        return await self._app(scope, receive, send)


def _document(app: FastAPI, *, keys: bool) -> Callable[[], dict[str, Any]]:
    """What `app.openapi` should be: the document, with the paths that need a key. keys: whether requests need one."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None and keys:
            document = plain()
            document["components"]["securitySchemes"] = SCHEMES
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    operation["security"] = [] if path in OPEN_PATHS else [{name: []} for name in SCHEMES]
        return plain()

    return described
