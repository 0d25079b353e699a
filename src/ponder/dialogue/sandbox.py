"""Rendering foreign Jinja templates in a child process that is held to time, memory and output."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from ponder.types import FormatError

WORKER = Path(__file__).with_name("sandbox_worker.py")
START_SECONDS = 20.0  # a child's start on a loaded machine; not the template's time


class TemplateFailure(StrEnum):
    """Why a template gave no text."""

    REFUSED = "refused"  # it called raise_exception
    ERROR = "error"  # it is malformed, forbidden, or too large
    DEADLINE = "deadline"


class TemplateError(FormatError):
    """A chat template that cannot be rendered."""

    def __init__(self, message: str, failure: TemplateFailure) -> None:
        super().__init__(message)
        self.failure = failure


class Sandbox:
    """One child process, started when first needed and again after it was killed. Safe to share between threads."""

    def __init__(self, *, seconds: float = 1.0, max_bytes: int = 1 << 29, max_characters: int = 1 << 24) -> None:
        """seconds: a render's deadline. max_bytes: the child's address space. max_characters: of the output."""
        self._seconds = seconds
        self._arguments = [str(max_bytes), str(max_characters), str(seconds)]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., Sandbox] | None = None

    def render(self, template: str, variables: Mapping[str, Any]) -> str:
        """The rendered text. Raises TemplateError; a render that outlasts the deadline is killed."""
        request = json.dumps({"template": template, "variables": dict(variables)}) + "\n"
        with self._lock:
            reply = self._ask(request.encode())
        if reply is None:
            raise TemplateError(
                f"the chat template was stopped: it ran longer than {self._seconds} s or out of memory; use a template "
                "that is linear in the conversation",
                TemplateFailure.DEADLINE,
            )
        if "refused" in reply:
            raise TemplateError(
                f"the chat template refuses this conversation: {reply['refused']}", TemplateFailure.REFUSED
            )
        if "error" in reply:
            raise TemplateError(f"the chat template cannot be rendered: {reply['error']}", TemplateFailure.ERROR)
        return reply["text"]

    def close(self) -> None:
        """End the child. The next render starts another."""
        with self._lock:
            self._stop()

    def _ask(self, request: bytes) -> dict[str, str] | None:
        """The child's reply; None when it died or had to be killed."""
        child = self._child or self._start()
        deadline = time.monotonic() + self._seconds
        reply = self._exchange(child, request, deadline)
        if reply is None:
            self._stop()
            return None
        return json.loads(reply)

    def _exchange(self, child: subprocess.Popen[bytes], request: bytes, deadline: float) -> bytes | None:
        """Write the request and read one line, whichever the child is ready for, until the deadline."""
        assert child.stdin is not None
        assert child.stdout is not None
        pending, reply = memoryview(request), bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdin, selectors.EVENT_WRITE)
            ready.register(child.stdout, selectors.EVENT_READ)
            while not reply.endswith(b"\n"):
                events = ready.select(max(deadline - time.monotonic(), 0))
                if not events:
                    return None
                for key, _ in events:
                    try:
                        if key.fileobj is child.stdin:
                            pending = pending[os.write(child.stdin.fileno(), pending) :]
                            if not pending:
                                ready.unregister(child.stdin)
                        elif piece := os.read(child.stdout.fileno(), 1 << 16):
                            reply += piece
                        else:
                            return None
                    except BrokenPipeError:
                        return None
        return bytes(reply)

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-I", str(WORKER), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
        )
        assert child.stdin is not None
        os.set_blocking(child.stdin.fileno(), False)  # a pipe that is writable may still hold less than a request
        self._child, self._end = child, weakref.finalize(self, _end, child)
        warm = self._exchange(child, b'{"template": "", "variables": {}}\n', time.monotonic() + START_SECONDS)
        if warm is None:
            self._stop()
            raise TemplateError("the process that renders chat templates did not start", TemplateFailure.ERROR)
        return child

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._child = self._end = None


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()
