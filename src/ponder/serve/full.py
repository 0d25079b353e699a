"""A refusal that costs next to nothing: where the queue is full, the body is not even read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ponder.serve.state import owner_of, state_of

PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})  # which do nothing but wait for the one model


class Full:
    """ASGI middleware: 429 before anything is parsed, on a server of one model. With several, the body says which is
    asked, and `Admission` refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in PATHS:
            request = Request(scope)
            admissions = list(state_of(request).models.admissions.values())
            refusal = admissions[0].refusal(owner_of(request)) if len(admissions) == 1 else None
            if refusal is not None:
                answer = JSONResponse(refusal.as_json(), refusal.status, refusal.headers)
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)
