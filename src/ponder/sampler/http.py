"""A minimal HTTP/1.1 client on asyncio streams: one request per connection, which cancelling the task closes at once.

No redirects, no proxies, no compression.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ponder.types import InvalidRequest

READ_SIZE = 1 << 16


class BrokenResponse(ConnectionError):
    """The server answered something that is not a complete HTTP response."""


@dataclass(frozen=True, slots=True)
class Url:
    """An address taken apart."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises InvalidRequest on anything but http(s)://host[:port][/path] without user, query or fragment."""
        complaint = "is not an endpoint address: write it as http://localhost:8000/v1, without user, query or fragment"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise InvalidRequest(f"the URL {complaint}") from None
        odd = parts.query or parts.fragment or parts.username or parts.password
        if parts.scheme not in ("http", "https") or not parts.hostname or odd or not text.isprintable() or " " in text:
            raise InvalidRequest(f"the URL {complaint}")
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname, port or (443 if secure else 80), parts.path.rstrip("/"))


class HttpResponse:
    """Status and headers (names in lower case); `chunks` gives the body as it comes."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader, timeout: float) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader
        self._timeout = timeout

    async def body(self, limit: int = 1 << 26) -> bytes:
        """The whole body. Raises BrokenResponse when it is cut off or longer than `limit` bytes."""
        whole = bytearray()
        async for chunk in self.chunks():
            whole += chunk
            if len(whole) > limit:
                raise BrokenResponse(f"a response of more than {limit} bytes")
        return bytes(whole)

    async def lines(self) -> AsyncIterator[str]:
        """The body line by line, as a server-sent event stream is read."""
        buffer = b""
        async for chunk in self.chunks():
            *whole, buffer = (buffer + chunk).split(b"\n")
            for line in whole:
                yield line.rstrip(b"\r").decode(errors="replace")
        if buffer:
            yield buffer.decode(errors="replace")

    async def chunks(self) -> AsyncIterator[bytes]:
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            while size := await self._chunk_size():
                yield await self._exactly(size)
                await self._line()
        elif "content-length" in self.headers:
            left = _number(self.headers["content-length"], 10)
            while left:
                piece = await self._some(min(left, READ_SIZE))
                if not piece:
                    raise BrokenResponse("the response was cut off")
                left -= len(piece)
                yield piece
        else:
            while piece := await self._some(READ_SIZE):
                yield piece

    async def _chunk_size(self) -> int:
        return _number((await self._line()).split(b";")[0].decode(errors="replace").strip(), 16)

    async def _line(self) -> bytes:
        async with asyncio.timeout(self._timeout):
            return await read_line(self._reader)

    async def _some(self, size: int) -> bytes:
        async with asyncio.timeout(self._timeout):
            return await self._reader.read(size)

    async def _exactly(self, size: int) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._reader.readexactly(size)
        except asyncio.IncompleteReadError:
            raise BrokenResponse("the response was cut off") from None


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise BrokenResponse(f"a body length that is not a number: {text[:40]!r}")
    return number


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """One line without its end. Raises BrokenResponse at the end of the stream or past the reader's limit."""
    try:
        return (await reader.readuntil(b"\n")).rstrip(b"\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise BrokenResponse("the response was cut off") from None


@contextlib.asynccontextmanager
async def request(
    url: Url, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float
) -> AsyncIterator[HttpResponse]:
    """Send one request and hand out the response while the connection is open.

    timeout: seconds for connecting, and then for every wait for more bytes. Raises TimeoutError, OSError and its
    subclass BrokenResponse.
    """
    context = ssl.create_default_context() if url.secure else None
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    try:
        head = {"Host": f"{url.host}:{url.port}", "Connection": "close", "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {url.path}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        async with asyncio.timeout(timeout):
            await writer.drain()
            status, received = await _read_head(reader)
        yield HttpResponse(status, received, reader, timeout)
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.wait_for(writer.wait_closed(), 1)


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    parts = (await read_line(reader)).decode("latin-1").split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
        raise BrokenResponse("the server does not speak HTTP")
    headers = {}
    while line := (await read_line(reader)).decode("latin-1"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(parts[1]), headers
