"""`ponder serve` in a separate process, for what only happens to processes: signals, `kill -9`, a start after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ponder
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

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(LIVENESS)


@contextmanager
def serving_child(model: Path, *flags: object) -> Iterator[Child]:
    """A server of `tiny`. Killed in the end, where it still runs."""
    port = free_port()
    source = Path(ponder.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "ponder.cli", "serve", f"tiny={model}", "--port", str(port), *map(str, flags)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while not _is_up(port):
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() - began < LIVENESS
            time.sleep(0.02)
        yield Child(process, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


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
