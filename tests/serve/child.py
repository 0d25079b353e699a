"""`ponder serve` in a separate process, for what only happens to processes: signals, `kill -9`, a start after it."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from forks import forked

from ponder.model.checkpoint import atomic_folder, write_model
from ponder.testing.tiny import ByteTokenizer, tiny_model

LIVENESS = 120.0


def save_tiny(path: Path, max_positions: int = 4096) -> Path:
    """A folder with a tiny model, which babbles."""
    tokenizer = ByteTokenizer()
    with atomic_folder(path) as temporary:
        write_model(tiny_model(0, vocab_size=tokenizer.vocab_size, max_positions=max_positions), temporary)
        tokenizer.save(temporary)
    return path


class Child:
    """A running server, and its port."""

    def __init__(self, process: ForkServerProcess, port: int) -> None:
        self.process = process
        self.port = port

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self) -> int | None:
        """Its exit code."""
        self.process.join(LIVENESS)
        return self.process.exitcode


@contextmanager
def serving_child(model: Path, *flags: object) -> Iterator[Child]:
    """A server of `tiny`. Killed in the end, where it still runs."""
    port = free_port()
    process = forked("forks:ponder", ["serve", f"tiny={model}", "--port", str(port), *map(str, flags)])
    try:
        began = time.monotonic()
        while not _is_up(port):
            assert process.is_alive(), f"the server ended with {process.exitcode}"
            assert time.monotonic() - began < LIVENESS
            time.sleep(0.02)
        yield Child(process, port)
    finally:
        process.kill()
        process.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
