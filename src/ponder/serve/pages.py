"""The application: its built files, the same for everyone. They hold no data; what they show needs a key.

`web/` in the repository has the sources, and `make web` builds them into `serve/web/`.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ponder.serve.errors import NotFound
from ponder.serve.http.auth import FILES

FOLDER = Path(__file__).parent / "web"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
# Text of a model can be anything, so the page may run nothing but its own files and reach nothing but this server. No
# policy of trusted types is allowed: no text becomes markup or script anywhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # names are fixed, so a browser asks each time; the ETag makes that cheap
    "Vary": "Accept-Encoding",
}
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A file as it is sent.

    packed: the same, as gzip.
    """

    body: bytes
    packed: bytes
    kind: str
    tag: str


@cache
def built_files() -> dict[str, BuiltFile]:
    """The built files, by name."""
    found = {}
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in KINDS:
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[file.name] = BuiltFile(body, gzip.compress(body, mtime=0), KINDS[file.suffix], tag)
    return found


@router.get("/")
async def index(request: Request) -> Response:
    """The application's one page."""
    return _sent(request, "index.html")


@router.get(FILES + "{name}")
async def built_file(name: str, request: Request) -> Response:
    """A file that the page loads."""
    return _sent(request, name)


def _sent(request: Request, name: str) -> Response:
    file = built_files().get(name)
    if file is None:
        raise NotFound(f"there is no file {name[:100]!r} of the application", code="not_found")
    headers = {**HEADERS, "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, media_type=file.kind, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.body, media_type=file.kind, headers=headers)
