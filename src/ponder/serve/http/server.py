"""uvicorn under this server: bounds in time on connections, signals, and a shutdown that lets requests finish."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
import webbrowser
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ponder.serve.errors import log
from ponder.serve.http.bodies import HEAD_BYTES
from ponder.serve.http.errors import HttpError, error_object
from ponder.serve.http.exchange import ServerState
from ponder.serve.settings import Settings, is_loopback
from ponder.types import InvalidRequest

TICK = 0.05  # seconds between two looks at whether all is done
HEAD_SECONDS = 15.0  # from its first byte, or from the connection, until a request's head is there
UNREAD_SECONDS = 20.0  # in which a client has to read some of what waits for it


class Connection(h11.Connection):
    """h11's, with a short way for the pieces of a stream. They do not change its state: in the middle of a chunked body
    each piece is its length, itself and the end of a line."""

    _streams = False

    def send(self, event: Any) -> Any:
        if self._streams and type(event) is h11.Data:
            return b"%x\r\n%b\r\n" % (len(event.data), event.data) if event.data else b""
        sent = super().send(event)
        self._streams = type(event) is h11.Response and b"\r\ntransfer-encoding: chunked\r\n" in sent.lower()
        return sent


class Protocol(H11Protocol):
    """uvicorn's protocol with two more bounds. A connection whose request does not arrive in time is closed: idle ones
    would use up the descriptors, with a key or without. A connection that does not read its answer is cut."""

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
        """Answer what is not HTTP. Where an answer has begun already, the connection ends in the middle of it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        error = HttpError(400, f"this is not a valid HTTP request, or its head is longer than {HEAD_BYTES} bytes")
        data = json.dumps(error_object(error, "")).encode()
        headers = {"content-type": "application/json", "content-length": str(len(data)), "connection": "close"}
        head = h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request")
        for event in (head, h11.Data(data=data), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _check_reader(self, before: int) -> None:
        """Cut a client that reads nothing of its answer, which would be kept in memory for ever. before: the bytes that
        waited at the last look. While an answer goes on, as many may wait although some were read."""
        unread = self.transport.get_write_buffer_size()
        whole = self.cycle is None or self.cycle.response_complete
        if unread and unread >= before > 0 and (whole or self.flow.write_paused):
            self.transport.abort()
        else:
            self._look = self.loop.call_later(self.unread_seconds, self._check_reader, unread)

    def _watch(self) -> None:
        """Time the head while one is under way: then no answer is, and the connection does not rest between two."""
        rests = self.timeout_keep_alive_task is not None and not self.conn.trailing_data[0]  # no next head has begun
        if self.cycle is not None and (not self.cycle.response_complete or rests):
            self._unwatch()
        elif self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Server(uvicorn.Server):
    """After the first signal new requests are answered with 503, and what runs goes on. When nothing runs any more, or
    the drain's time is over, the server ends. A second signal ends it at once.

    opens: whether a browser is opened at the application's page once the server listens.
    """

    opens = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Instead of uvicorn's, which raises the signal once more in the end: a server that drained ends with 0."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._state.drain()

    @property
    def _state(self) -> ServerState:
        return self.config.app.state.ponder  # type: ignore[union-attr]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            names = ", ".join(each.name for each in self._state.models)
            place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            page = f"http://localhost:{port}/" if is_loopback(host) or host in ("0.0.0.0", "::") else f"{place}/"
            log.info(f"serving {names} on {place}/v1")
            log.info(f"the board is at {page}")
            if self.opens and not await asyncio.to_thread(webbrowser.open, page):
                log.info("no browser could be opened: visit that address")
            for each in self._state.models:
                if each.capabilities.computes:
                    log.info(f"{each.name}: {each.capabilities.computes}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self._state
        state.drain()
        while not (state.idle or self.force_exit) and time.monotonic() < state.ends:
            await asyncio.sleep(TICK)  # still listening: `/ready` and new requests are answered with 503
        self.config.timeout_graceful_shutdown = max(0, state.ends - time.monotonic())  # type: ignore[assignment]
        closing = asyncio.ensure_future(super().shutdown(sockets))
        while not (closing.done() or self.force_exit):
            await asyncio.wait([closing], timeout=TICK)
        if self.force_exit:
            closing.cancel()
        await asyncio.gather(closing, return_exceptions=self.force_exit)


def server(app: FastAPI) -> Server:
    """A server at the address of the application's settings, not started yet."""
    settings = app.state.ponder.settings
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_keep_alive=settings.keep_alive,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        http=Protocol,
        ws="none",
        lifespan="on",
    )
    return Server(config)


def bind(settings: Settings) -> socket.socket:
    """A socket bound to the address, not listening yet. Raises InvalidRequest if the address cannot be had."""
    try:
        kind, *_, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(kind, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        why = error.strerror or error
        raise InvalidRequest(
            f"cannot listen on {settings.host}, port {settings.port} ({why}): choose another --host or --port"
        ) from None
    return bound


def log_to_stderr() -> None:
    """The server's own lines: JSON from the access log, one sentence from the rest."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("ponder.serve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
