"""Request bodies: whole, in time, within bounds, and JSON in the strict sense, before any route sees them."""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import Sequence
from email.message import Message as Mime
from typing import Any, NoReturn

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.serve.common.wire import MOST_NAMES, MOST_VALUES, check_text
from ponder.serve.errors import BadRequest, ServeError
from ponder.serve.http.errors import ErrorResponse, HttpError

HEAD_BYTES = 32 * 1024  # path, query and headers of a request
DEEPEST = 64  # lists and objects in each other, of a whole body
MOST_TEXTS = 50_000  # of a whole body, names included; and as many objects
LONGEST_INTEGER = 100  # digits
LONGEST_QUERY = 4096  # characters
SECONDS = 60.0  # for a body to arrive
INLINE = 64 * 1024  # bytes; a longer body is read in a separate thread, so that others are answered meanwhile
TOO_MANY = f"holds more than {MOST_VALUES} values or {MOST_TEXTS} objects"
UPLOADS = "/v1/files"
GZIP = 16 + zlib.MAX_WBITS  # what zlib calls the format
HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


class Body:
    """ASGI middleware that reads the whole body and checks it.

    431: the head is longer than `HEAD_BYTES`. 413: the body is, says that it is, or unpacks to more than `limit` bytes.
    408: it takes longer than `seconds` to arrive. 415: its type is not JSON, or its coding not gzip; at `UPLOADS` any
    type is let through.
    400: it is not strict JSON, or broken gzip.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float = SECONDS) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            _check_head(scope)
            body = await self._read(Headers(scope=scope), receive)
            if body and not _is_upload(scope):
                _check_kind(Headers(scope=scope))
                if _is_compressed(Headers(scope=scope)):
                    body = await asyncio.to_thread(self._unpacked, body)
                await (asyncio.to_thread(check_json, body) if len(body) > INLINE else _now(body))
        except ServeError as error:
            return await ErrorResponse(error)(scope, receive, send)
        if body is None:
            return None
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return first.pop() if first else await receive()

        return await self._app(scope, replayed, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None: the client left before it was complete."""
        said = headers.get("content-length", "0")
        if not (said.isascii() and said.isdigit() and len(said) < 20) or int(said) > self._limit:
            raise self._too_large()
        pieces: list[bytes] = []
        length = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    piece = message.get("body", b"")
                    length += len(piece)
                    if length > self._limit:
                        raise self._too_large()
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            raise HttpError(408, f"the body did not arrive within {self._seconds:g} s", code="body_too_slow") from None

    def _unpacked(self, body: bytes) -> bytes:
        """A body that came as gzip (RFC 1952), of one member. No more than the limit is ever unpacked."""
        unpacker = zlib.decompressobj(GZIP)
        try:
            plain = unpacker.decompress(body, self._limit + 1)
        except zlib.error:
            raise _invalid("is not gzip, although its content-encoding says so") from None
        if len(plain) > self._limit:
            raise self._too_large()
        if not unpacker.eof or unpacker.unused_data:
            raise _invalid("is broken gzip: it must be one whole member")
        return plain

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is too large: send at most {self._limit} bytes", code="body_too_large")


def _check_head(scope: Scope) -> None:
    """The connection bounds a head that comes in pieces; this bounds one that came at once."""
    length = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    if length + sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES:
        raise HttpError(431, f"the request's head is longer than {HEAD_BYTES} bytes", code="head_too_large")


def _is_upload(scope: Scope) -> bool:
    """Whether a form is taken: for the lines of a batch. A page of another site could send one, and `Origins` refuses
    that."""
    return bool(scope["method"] == "POST" and scope["path"] == UPLOADS)


async def _now(body: bytes) -> None:
    check_json(body)


def _check_kind(headers: Headers) -> None:
    """JSON alone: before a page of another site can send it, a browser asks this server. For plain text it does not."""
    kind = Mime()
    kind["content-type"] = headers.get("content-type", "")
    charset = str(kind.get_param("charset") or "utf-8").lower()
    if kind.get_content_type() != "application/json" or charset not in ("utf-8", "utf8"):
        raise HttpError(
            415, "the body must be JSON in UTF-8: set Content-Type to application/json", code="unsupported_media_type"
        )


def _is_compressed(headers: Headers) -> bool:
    """Whether the body is gzip. Raises HttpError where it came in another coding."""
    coding = ", ".join(headers.getlist("content-encoding")).strip().lower() or "identity"
    if coding not in ("identity", "gzip", "x-gzip"):
        raise HttpError(
            415,
            "the body's content-encoding is not served: send it as gzip, or as it is",
            code="unsupported_media_type",
            headers={"Accept-Encoding": "gzip, identity"},
        )
    return coding != "identity"


def check_json(body: bytes) -> None:
    """Raises BadRequest for a body that is not JSON in UTF-8, or names a key twice, or holds NaN, an infinity or half
    of a surrogate pair. It may not be nested too deep or hold too many values either."""
    _check_size(body)
    try:
        tree = json.loads(body.decode(), object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise _invalid(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _invalid(f"is not JSON at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise _invalid(f"is nested more than {DEEPEST} deep") from None
    _check_values(tree, texts=HALF_A_PAIR.search(body) is not None)


def _check_size(body: bytes) -> None:
    """Raises BadRequest where commas and quotes show that there are too many values. Parsing them would take seconds in
    which no other request is answered."""
    counts = body.count(b'"') // 2, body.count(b"{"), body.count(b",")
    if max(counts[:2]) <= MOST_TEXTS and counts[2] <= MOST_VALUES:
        return
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 2 * MOST_TEXTS:
        raise _invalid(f"holds more than {MOST_TEXTS} strings")
    outside = b"".join(plain.split(b'"')[::2])
    if outside.count(b"{") > MOST_TEXTS or outside.count(b",") > MOST_VALUES:
        raise _invalid(TOO_MANY)


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise _invalid(f"holds an integer of more than {LONGEST_INTEGER} digits")
    return int(digits)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_NAMES:
        raise _invalid(f"holds an object of more than {MOST_NAMES} keys")
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _invalid(f"holds the key {twice[:100]!r} twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise _invalid(f"holds {name}, which is not JSON")


def _check_values(tree: Any, *, texts: bool) -> None:
    """texts: whether to look for halves of surrogate pairs."""
    level, depth, count = [tree], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > DEEPEST:
            raise _invalid(f"is nested more than {DEEPEST} deep")
        if count > MOST_VALUES:
            raise _invalid(TOO_MANY)
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
                if texts:
                    below += value.keys()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, float) and not math.isfinite(value):
                raise _invalid("holds a number that is too large for a float")
            elif texts and isinstance(value, str):
                _check_text(value)
        level = below


def _check_text(text: str) -> None:
    try:
        check_text(text)
    except ValueError:
        raise _invalid("holds half of a surrogate pair, which is not a character") from None


def _invalid(what: str) -> BadRequest:
    return BadRequest(f"the body {what}", code="invalid_json")


# The query ------------------------------------------------------------------------------------------------------------


def check_query(request: Request) -> None:
    """A dependency of every route. Parameters that the route does not have say nothing: gateways and clients add some
    (api-version). Raises BadRequest for a query that is too long."""
    if len(request.scope.get("query_string", b"")) > LONGEST_QUERY:
        raise BadRequest(f"the query is too long: send at most {LONGEST_QUERY} characters", code="query_too_long")
