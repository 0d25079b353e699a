"""One line of JSON for every request: owner, route, how it ended and how long it took. Never what was said."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

access = logging.getLogger("ponder.serve.access")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class AccessLog:
    """ASGI middleware. Every response carries `x-request-id`: the caller's own, where it sent a sensible one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        said = Headers(scope=scope).get("x-request-id", "")
        number = said if REQUEST_ID.fullmatch(said) else f"req_{secrets.token_hex(12)}"
        began, status = time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        state = scope.setdefault("state", {})
        state["log"] = {}
        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", None)
            line = {
                "time": round(time.time(), 3),
                "request": number,
                "owner": state.get("owner"),
                "method": scope["method"] if route else None,
                "route": route,
                "status": status or 499,
                "seconds": round(time.monotonic() - began, 4),
                **state["log"],
            }
            access.info(json.dumps(line))
