"""Requests as browsers, gateways and health checks send them: HEAD, slashes at the end, a prefix of the path."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class Paths:
    """ASGI middleware, the outermost. A HEAD is answered as the GET would be (the connection leaves the body out). A
    slash at the end of a path makes no difference. `prefix` may stand before the path: some proxies strip it."""

    def __init__(self, app: ASGIApp, prefix: str = "") -> None:
        self._app = app
        self._prefix = "/" + prefix.strip("/") if prefix.strip("/") else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if self._prefix and (path == self._prefix or path.startswith(self._prefix + "/")):
                path = path[len(self._prefix) :]
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "path": path.rstrip("/") or "/", "method": method}
        return await self._app(scope, receive, send)
