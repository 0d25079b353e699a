"""A bound on request bodies, kept before anything is parsed."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.serve.errors import ApiError


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 for a body that is, or says it is, longer than `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        said = Headers(scope=scope).get("content-length", "0")
        if not said.isdigit() or int(said) > self._limit:
            return await self._refuse(scope, receive, send)
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise _TooLarge
            return message

        try:
            return await self._app(scope, bounded, send)
        except _TooLarge:
            return await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = ApiError(413, f"the body is too large: allowed are {self._limit} bytes", code="body_too_large")
        await JSONResponse(error.as_json(), error.status)(scope, receive, send)
