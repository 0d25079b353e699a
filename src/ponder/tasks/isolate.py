"""The only place that lets model output be evaluated: in a child process, with limits on time and memory.

One fork server per process (`nursery.py`, started at the first call, never holding torch) forks a child per call, so
a call costs some milliseconds, a hang costs one timeout, and what an answer does to its interpreter ends with it.
Functions that never run the answer as code may `share` a child, which costs a fraction of a millisecond.
The result is the same from the main thread, from other threads, from asyncio and from worker processes.

This guards against runaway and careless code, not against an attacker: a child may still read files.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any

from ponder.tasks.nursery import pack, unpack
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.types import GraderError

TIMEOUT_SECONDS = 5.0
MEMORY_BYTES = 1 << 30


class Outcome(StrEnum):
    """How a call in a child ended."""

    DONE = "done"
    RAISED = "raised"  # the function raised
    TIMEOUT = "timeout"
    MEMORY = "memory"
    DIED = "died"  # killed, crashed or exited


@dataclass(frozen=True, slots=True)
class Isolated:
    """`value` is the function's result (JSON) when DONE; `why` says what went wrong otherwise."""

    outcome: Outcome
    value: Any = None
    why: str = ""


def submit_isolated(
    function: str,
    payload: object,
    *,
    timeout: float = TIMEOUT_SECONDS,
    memory: int = MEMORY_BYTES,
    warm: tuple[str, object] | None = None,
    share: str | None = None,
) -> Future[Isolated]:
    """Call `function` ("module:qualname", taking one JSON value and returning one) on `payload` in a child process.

    timeout: seconds of wall time from the moment the child starts. memory: bytes beyond what the server holds.
    warm: a trusted (function, payload) that the server itself calls first, to keep what it builds for later children.
    share: calls of one name may follow each other in one child; None: a child of its own.
    """
    call = {"function": function, "payload": payload, "timeout": timeout, "memory": memory}
    return _server().submit({**call, "warm": warm, "share": share})


def run_isolated(
    function: str,
    payload: object,
    timeout: float = TIMEOUT_SECONDS,
    memory: int = MEMORY_BYTES,
    warm: tuple[str, object] | None = None,
    share: str | None = None,
) -> Isolated:
    """`submit_isolated`, waited for."""
    return submit_isolated(function, payload, timeout=timeout, memory=memory, warm=warm, share=share).result()


async def run_isolated_async(
    function: str,
    payload: object,
    timeout: float = TIMEOUT_SECONDS,
    memory: int = MEMORY_BYTES,
    warm: tuple[str, object] | None = None,
    share: str | None = None,
) -> Isolated:
    """`submit_isolated`, awaited."""
    return await asyncio.wrap_future(
        submit_isolated(function, payload, timeout=timeout, memory=memory, warm=warm, share=share)
    )


def as_grade(result: Isolated) -> Grade:
    """The grade of a function that returned `{"score", "status"?, "why"?}`; what did not return scores 0."""
    if result.outcome is Outcome.DONE:
        if not isinstance(result.value, dict) or "score" not in result.value:
            raise GraderError(f"a grading function returned {result.value!r}, not {{'score': …}}")
        score, why = float(result.value["score"]), str(result.value.get("why", ""))
        if not 0 <= score <= 1:
            why = f"the grader gave {score:g}, outside [0, 1]"
            score = 1.0 if score > 1 else 0.0  # NaN is no success
        return Grade(score=score, status=GradeStatus(result.value.get("status", "graded")), why=why)
    slow = result.outcome is Outcome.TIMEOUT
    return Grade(score=0.0, status=GradeStatus.TIMEOUT if slow else GradeStatus.FAILED, why=result.why)


class _Server:
    """This process's connection to its fork server: calls go out with a number, a thread brings the replies back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self._pending: dict[int, Future[Isolated]] = {}
        self._connection, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ponder.tasks.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection.sendall(pack({"path": sys.path, "width": os.cpu_count() or 1}))
        self.alive = True
        self._reader = threading.Thread(target=self._read, name="ponder-grading", daemon=True)
        self._reader.start()

    def submit(self, call: dict[str, Any]) -> Future[Isolated]:
        future: Future[Isolated] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            number = next(self._numbers)
            frame = pack({"id": number, **call})
            self._pending[number] = future
            try:
                self._connection.sendall(frame)
            except OSError:
                self._pending.pop(number, None)
                self.alive = False
                future.set_result(Isolated(Outcome.DIED, why="the grading server is gone"))
        return future

    def _read(self) -> None:
        buffer = bytearray()
        while True:
            try:
                chunk = self._connection.recv(1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                break
            buffer += chunk
            for reply in unpack(buffer):
                with self._lock:
                    future = self._pending.pop(reply["id"])
                future.set_result(Isolated(Outcome(reply["outcome"]), reply.get("value"), reply.get("why", "")))
        with self._lock:
            self.alive = False
            orphans, self._pending = list(self._pending.values()), {}
        for future in orphans:
            future.set_result(Isolated(Outcome.DIED, why="the grading server ended"))

    def close(self) -> None:
        """Hang up: the server ends its children and itself."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(timeout=5)
        self._connection.close()
        self._process.wait(timeout=5)

    def forget(self) -> None:
        """After a fork: the server belongs to the parent process, only our copy of the socket goes."""
        self._connection.close()
        self._process.returncode = 0  # not ours to wait for


_guard = threading.Lock()
_current: _Server | None = None


def _server() -> _Server:
    global _current
    with _guard:
        if _current is not None and not _current.alive:
            _current.close()
            _current = None
        if _current is None:
            _current = _Server()
        return _current


def shut_down() -> None:
    """End this process's fork server, if it runs. The next call starts another."""
    global _current
    with _guard:
        if _current is not None:
            _current.close()
            _current = None


def _after_fork() -> None:
    global _current, _guard
    _guard = threading.Lock()
    if _current is not None:
        _current.forget()
        _current = None


atexit.register(shut_down)
os.register_at_fork(after_in_child=_after_fork)
