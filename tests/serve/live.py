"""A real server on a port of this machine, in a thread, for tests that talk to it as programs do."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import openai
from fastapi import FastAPI

from ponder.serve import Served, Settings, create_app
from ponder.serve.http.auth import Keys
from ponder.serve.http.exchange import ServerState
from ponder.serve.http.server import Server, server
from ponder.tasks.verifiers.reward import RewardModel


@dataclass
class Live:
    """A running server. `url` ends in /v1; `root` does not."""

    app: FastAPI
    server: Server
    port: int

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def state(self) -> ServerState:
        return self.app.state.ponder

    def client(self, key: str = "none", **options: object) -> openai.OpenAI:
        """The official client, without retries, so that every answer is seen."""
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, **{"timeout": 60.0, **options})


@contextmanager
def serving(
    served: Sequence[Served],
    settings: Settings | None = None,
    keys: Keys | None = None,
    rewards: Mapping[str, RewardModel] | None = None,
) -> Iterator[Live]:
    """The models, served on a free port. Ends as on a signal: running requests may finish."""
    settings = replace(settings or Settings(), port=0)
    app = create_app(served, settings, keys=keys, rewards=rewards)
    running = server(app)
    thread = threading.Thread(target=running.run, name="live-server")
    thread.start()
    try:
        while not running.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            thread.join(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        yield Live(app, running, port)
    finally:
        running.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server did not stop"
