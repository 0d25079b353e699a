"""The owner of each request, by its API key.

Every path but `/health` and the application's files needs a key. Keys are stored hashed and compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ponder.model.storage import writing
from ponder.serve.errors import log
from ponder.serve.http.errors import ErrorResponse, ErrorType, HttpError
from ponder.serve.settings import is_loopback
from ponder.types import InvalidRequest

OPEN_PATHS = frozenset({"/health"})
FILES = "/web/"  # the paths of the application's files begin so; its page is at /
LOCAL = "local"  # the owner of every request where there are no keys
LONGEST_KEY = 256
LOOK = 1.0  # seconds between two looks at the file of keys
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Keys:
    """Names and the SHA-256 of their keys. A key of 256 random bits needs no slow hash.

    Keys of a file follow it: a line that is added or taken out holds from the next second on. A file that cannot be
    read any more holds no key.
    """

    def __init__(self, digests: Mapping[str, bytes], file: Path | None = None) -> None:
        self._digests = dict(digests)
        self._file = file
        self._stamp = _stamp(file)
        self._looked = time.monotonic()

    def __bool__(self) -> bool:
        return bool(self._digests)

    @classmethod
    def load(cls, file: Path) -> Keys:
        """Read lines of `name:hex digest`. Raises InvalidRequest naming the line, and where there is no key at all."""
        digests: dict[str, bytes] = {}
        check_private(file)
        try:
            lines = file.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the key file {file} cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            name, _, digest = line.partition(":")
            if not NAME.fullmatch(name) or not re.fullmatch("[0-9a-f]{64}", digest) or name in digests:
                raise InvalidRequest(
                    f"{file}, line {number}: must be NAME:SHA-256, each name once; `ponder serve --new-key` writes it"
                )
            digests[name] = bytes.fromhex(digest)
        if not digests:
            raise InvalidRequest(f"{file} holds no key: make one with `ponder serve --new-key NAME --keys {file}`")
        return cls(digests, file)

    def _follow(self) -> None:
        """Read the file again, where it is another than it was."""
        if self._file is None or time.monotonic() - self._looked < LOOK:
            return
        self._looked, stamp = time.monotonic(), _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = Keys.load(self._file)._digests
        except InvalidRequest as error:
            self._digests = {}
            log.error("no key is valid until this is mended: %s", error)

    def owner(self, key: str) -> str | None:
        """The owner of a key; None: it is not known. Takes the same time for every key."""
        self._follow()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """Changes when the file does. None: there is none."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def new_key(name: str, file: Path) -> str:
    """Add a key to the file, which only its owner may read, and return the key. Only its hash is kept."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(f"the key's name must be 1 to 64 letters, digits, '.', '_' and '-' (got {name!r})")
    there = file.exists() and file.stat().st_size > 0
    if there and name in Keys.load(file)._digests:
        raise InvalidRequest(f"{file} already has a key named {name!r}: choose another name, or remove that line")
    key = "sk-ponder-" + secrets.token_urlsafe(32)
    line_break = "" if not there or file.read_bytes().endswith(b"\n") else "\n"
    with (
        writing(file, "No key was made"),
        open(file, "a", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as lines,
    ):
        lines.write(f"{line_break}{name}:{hashlib.sha256(key.encode()).hexdigest()}\n")
    return key


def check_private(file: Path) -> None:
    """Raises InvalidRequest for a file that other users may read or write: one line added to it grants access."""
    if os.name == "posix" and file.exists() and file.stat().st_mode & 0o077:
        raise InvalidRequest(f"{file} can be read or written by other users of this machine: run `chmod 600 {file}`")


class Auth:
    """ASGI middleware. Sets `scope["state"]["owner"]`, and refuses a request without a valid key with 401.
    `scope["state"]["still_known"]` raises HttpError when the key is valid no more: what lasts calls it now and then.

    keys: None: there are no keys. Then the server answers this machine only, and only under a loopback name: otherwise
        a web page could reach it from a browser here under a name that its own host points at this machine (DNS
        rebinding).
    """

    def __init__(self, app: ASGIApp, keys: Keys | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        try:
            if self._keys is None or not is_page(scope):
                state = scope.setdefault("state", {})
                state["owner"] = self._owner(scope)
                state["still_known"] = lambda: self._owner(scope)
        except HttpError as error:
            return await ErrorResponse(error)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _owner(self, scope: Scope) -> str:
        if self._keys is None:
            if not is_local(scope):
                raise HttpError(
                    403,
                    "this server has no API keys, so it only answers requests from this machine to "
                    "localhost or a loopback address",
                    type=ErrorType.PERMISSION,
                    code="not_local",
                )
            return LOCAL
        owner = self._keys.owner(presented(Headers(scope=scope)))
        if owner is None:
            raise HttpError(
                401,
                "no valid API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'",
                type=ErrorType.AUTHENTICATION,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return owner


def is_page(scope: Scope) -> bool:
    """Whether a request is for the application's files, which a browser loads before it has a key."""
    path = scope["path"]
    return scope["method"] == "GET" and (path == "/" or (path.startswith(FILES) and "/" not in path[len(FILES) :]))


def is_local(scope: Scope) -> bool:
    """Whether a request comes from this machine (a socket file has no address), to a name that means this machine."""
    client, names = scope.get("client"), Headers(scope=scope).getlist("host")
    return (not client or not client[0] or is_loopback(client[0])) and all(is_loopback(_host(name)) for name in names)


def _host(name: str) -> str:
    """A Host header without its port."""
    return re.sub(r":[0-9]{0,5}$", "", name).lower()


def presented(headers: Headers) -> str:
    """The key that came, or "" where none did, two different ones did, or it is too long to be one."""
    keys = set(headers.getlist("x-api-key"))
    for value in headers.getlist("authorization"):
        scheme, _, bearer = value.partition(" ")
        keys.add(bearer.strip() if scheme.lower() == "bearer" else "")
    keys.discard("")
    key = keys.pop() if len(keys) == 1 else ""
    return key if len(key) <= LONGEST_KEY else ""
