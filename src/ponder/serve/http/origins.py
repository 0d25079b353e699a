"""Changes that another site's page asks a browser for are refused, with a key or without."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ponder.serve.http.errors import ErrorResponse, ErrorType, HttpError

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Origins:
    """ASGI middleware: 403 for a change that a browser says comes from a page of another origin.

    Programs send neither header. A browser sends both, and a page cannot change them.

    allowed: origins of other pages that may use this server; "*": all.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE and not self._is_ours(Headers(scope=scope)):
            refusal = HttpError(
                403,
                "this request comes from a web page of another origin: name that origin in --cors to allow it",
                type=ErrorType.PERMISSION,
                code="cross_site",
            )
            return await ErrorResponse(refusal)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _is_ours(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None and ("*" in self._allowed or origin in self._allowed):
            return True
        if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
            return False
        return origin is None or urlsplit(origin).netloc == headers.get("host")
