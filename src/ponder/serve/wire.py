"""uvicorn's HTTP protocol with a bound on the time a request's head may take, and its own errors as error objects."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ponder.serve.bounds import HEAD_BYTES
from ponder.serve.errors import ApiError

HEAD_SECONDS = 15.0  # from its first byte, or from the connection, until a request's head is there
UNREAD_SECONDS = 20.0  # in which a client has to read some of what waits for it


class Connection(h11.Connection):
    """h11's, with a short way for the pieces of a stream, which its state does not hang on: in the middle of a chunked
    body each is its length, itself and a line's end."""

    _streams = False

    def send(self, event: Any) -> Any:
        if self._streams and type(event) is h11.Data:
            return b"%x\r\n%b\r\n" % (len(event.data), event.data) if event.data else b""
        sent = super().send(event)
        self._streams = type(event) is h11.Response and b"\r\ntransfer-encoding: chunked\r\n" in sent.lower()
        return sent


class Protocol(H11Protocol):
    """A connection that asks for nothing in time is closed: idle ones would use up the descriptors, key or no key. One
    that does not read its answer is cut."""

    head_seconds = HEAD_SECONDS
    unread_seconds = UNREAD_SECONDS
    _late: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = Connection(h11.SERVER, HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        self._look = self.loop.call_later(self.unread_seconds, self._check_reader, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP. Where an answer has begun already, the connection ends in the middle of it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        error = ApiError(400, f"this is no valid HTTP request, or its head is longer than {HEAD_BYTES} bytes")
        data = json.dumps(error.as_json()).encode()
        headers = {"content-type": "application/json", "content-length": str(len(data)), "connection": "close"}
        head = h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request")
        for event in (head, h11.Data(data=data), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _check_reader(self, before: int) -> None:
        """Cut a client that reads nothing of its answer, which would be kept for it for ever. before: how many bytes
        waited for it at the last look. While an answer goes on, as many may wait although some were read."""
        unread = self.transport.get_write_buffer_size()
        whole = self.cycle is None or self.cycle.response_complete
        if unread and unread >= before > 0 and (whole or self.flow.write_paused):
            self.transport.abort()
        else:
            self._look = self.loop.call_later(self.unread_seconds, self._check_reader, unread)

    def _watch(self) -> None:
        """Only while a head is under way: then no answer is, and the connection does not merely rest between two."""
        if self.cycle is not None and (not self.cycle.response_complete or self.timeout_keep_alive_task is not None):
            self._unwatch()
        elif self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
