"""HTTP by hand: for clients that misbehave, and for what the official one hides."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

CHAT = "/v1/chat/completions"


@dataclass
class Answer:
    """headers: names in lower case. body: as it came, chunks joined."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict]:
        """The data of the events, [DONE] left out."""
        lines = (line for line in self.body.splitlines() if line.startswith(b"data: {"))
        return [json.loads(line[6:]) for line in lines]


def request(path: str, body: dict | None = None, key: str = "") -> bytes:
    """A whole request, in bytes."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if key:
        head += f"Authorization: Bearer {key}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}\r\n".encode() + data


async def ask(port: int, path: str, body: dict | None = None, key: str = "") -> Answer:
    """One request on its own connection, read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(path, body, key))
        return parsed(await reader.read())
    finally:
        writer.close()


def parsed(read: bytes) -> Answer:
    head, _, rest = read.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        rest = b"".join(_chunks(rest))
    return Answer(int(first.split()[1]), headers, rest)


def _chunks(rest: bytes) -> list[bytes]:
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    return chunks
