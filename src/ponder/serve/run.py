"""Serving an application: uvicorn's loop, its signals, and a shutdown that lets running requests finish."""

from __future__ import annotations

import logging
import socket
import sys

import uvicorn
from fastapi import FastAPI

from ponder.serve.state import State
from ponder.serve.wire import HEAD_BYTES, Protocol


class Server(uvicorn.Server):
    """Takes nothing new from the first signal on, and then waits for what runs; a second signal ends it at once."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state: State = self.config.app.state.ponder  # type: ignore[union-attr]
        state.drain()
        await super().shutdown(sockets)


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
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        http=Protocol,
        ws="none",
        lifespan="on",
    )
    return Server(config)


def log_to_stderr() -> None:
    """The server's own lines: JSON from the access log, one sentence from the rest."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("ponder.serve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
