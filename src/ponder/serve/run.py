"""Serving an application: uvicorn's loop, its signals, and a shutdown that lets running requests finish."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ponder.serve.bounds import HEAD_BYTES
from ponder.serve.settings import Settings
from ponder.serve.state import State
from ponder.serve.wire import Protocol
from ponder.types import InvalidRequest

log = logging.getLogger("ponder.serve")
TICK = 0.05  # seconds between two looks at whether all is done


class Server(uvicorn.Server):
    """From the first signal on, whoever asks is told 503, and what runs goes on; when nothing runs any more, or the
    drain's time is over, the server ends. A second signal ends it at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Instead of uvicorn's, which raises the signal once more in the end: a server that drained ends with 0."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._state.drain()

    @property
    def _state(self) -> State:
        return self.config.app.state.ponder  # type: ignore[union-attr]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            names = ", ".join(each.name for each in self._state.models)
            log.info(f"serving {names} on http://{f'[{host}]' if ':' in host else host}:{port}/v1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self._state
        state.drain()
        while not (state.idle or self.force_exit) and time.monotonic() < state.ends:
            await asyncio.sleep(TICK)  # still listening: `/ready`, and whoever comes, is told that it ends
        self.config.timeout_graceful_shutdown = max(0, state.ends - time.monotonic())  # type: ignore[assignment]
        closing = asyncio.ensure_future(super().shutdown(sockets))
        while not (closing.done() or self.force_exit):
            await asyncio.wait([closing], timeout=TICK)
        if self.force_exit:
            closing.cancel()
        await asyncio.gather(closing, return_exceptions=self.force_exit)


def server(app: FastAPI) -> Server:
    """A server that is not started yet, at the address of the application's settings."""
    settings = app.state.ponder.settings
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        http=Protocol,
        ws="none",
        lifespan="on",
    )
    return Server(config)


def bind(settings: Settings) -> socket.socket:
    """The address to listen on, not listening yet. Raises InvalidRequest where it cannot be had."""
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
        raise InvalidRequest(f"{settings.host}, port {settings.port}: {why}: choose --host or --port") from None
    return bound


def log_to_stderr() -> None:
    """The server's own lines: JSON from the access log, one sentence from the rest."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("ponder.serve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
