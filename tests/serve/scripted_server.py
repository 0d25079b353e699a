"""A server that says one thing, started by a fork of a process that has imported all of it: in milliseconds, for tests
that kill it again and again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forks import forked

LIVENESS = 120.0


def serve(port: int, store: str) -> None:
    from ponder.serve import Served, Settings, create_app
    from ponder.serve.http.server import server
    from ponder.testing.scripted import Say, ScriptedSampler

    sampler = ScriptedSampler(lambda conversation, index: Say("Four of them.", reasoning="Two and two.", seconds=0.02))
    server(create_app([Served(name="said", sampler=sampler)], Settings(port=port, store=store))).run()


@contextmanager
def forked_server(port: int, store: Path) -> Iterator[Any]:
    """The process of a server of the model `said`. Ends by `kill -9`, if it is not dead by then."""
    process = forked("scripted_server:serve", port, str(store))
    try:
        began = time.monotonic()
        while not _listens(port):
            assert process.is_alive(), f"the server ended with {process.exitcode}"
            assert time.monotonic() - began < LIVENESS
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
