"""Calls of functions in child processes: nothing that they do can hang, crash or change this process.

One fork server per process (`fork_server.py`, started at the first call) forks a child per call. So a call costs some
milliseconds, a hang costs one timeout, and what a call does to its interpreter ends with it. Functions that never run
foreign text as code may `share` a child, which costs a fraction of a millisecond. The result is the same from the main
thread, from other threads, from asyncio and from worker processes.

This guards against runaway and careless code, not against an attacker: a child may still read files. A `sealed` call
can do nothing but compute (`seal.py`); its children come from a fork server that such calls alone use, so that no
earlier call's data is in their memory.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any, TypedDict, Unpack

from ponder.sandbox.fork_server import Frame, unpack_frames

TIMEOUT_SECONDS = 5.0
MEMORY_BYTES = 1 << 30
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from ponder.sandbox.fork_server import serve_socket; serve_socket(int(sys.argv[1]), int(sys.argv[3]))"
)


class CallOutcome(StrEnum):
    """How a call in a child ended."""

    DONE = "done"
    RAISED = "raised"  # the function raised
    TIMEOUT = "timeout"
    MEMORY = "memory"
    DIED = "died"  # killed, crashed or exited
    UNSEALED = "unsealed"  # the child could not be sealed, so nothing was called


@dataclass(frozen=True, slots=True)
class CallResult:
    """`value` is the function's result (JSON) when DONE; `why` says what went wrong otherwise."""

    outcome: CallOutcome
    value: Any = None
    why: str = ""


class Variables(StrEnum):
    """The environment variables that a child sees. NONE: foreign code must not read keys and tokens."""

    INHERITED = "inherited"
    NONE = "none"


class CallSettings(TypedDict, total=False):
    """How a call in a child is limited, and what it may share.

    timeout: seconds of wall time from the moment the call starts, 5 by default.
    memory: bytes beyond what the server holds, 1 GiB by default.
    warm: a trusted (function, payload) that the server calls first, so that later children find what it builds.
    share: calls of one name may follow each other in one child; None (the default): a child for this call alone.
    variables: INHERITED by default.
    sealed: the child can only compute, and sees no variables. Not beside `share`.
    """

    timeout: float
    memory: int
    warm: tuple[str, object] | None
    share: str | None
    variables: Variables
    sealed: bool


def submit_isolated(function: str, payload: object, **settings: Unpack[CallSettings]) -> Future[CallResult]:
    """Call `function` ("module:qualname", taking one JSON value and returning one) on `payload` in a child process."""
    sealed = settings.get("sealed", False)
    assert not (sealed and settings.get("share")), "a sealed child lives for one call"
    variables = Variables.NONE if sealed else settings.get("variables", Variables.INHERITED)
    call = {
        "function": function,
        "timeout": settings.get("timeout", TIMEOUT_SECONDS),
        "memory": settings.get("memory", MEMORY_BYTES),
        "warm": settings.get("warm"),
        "share": settings.get("share"),
        "sealed": sealed,
    }
    return _server(variables, sealed).submit(call, json.dumps(payload).encode())


def run_isolated(function: str, payload: object, **settings: Unpack[CallSettings]) -> CallResult:
    """`submit_isolated`, waited for."""
    return submit_isolated(function, payload, **settings).result()


class _ServerProcess:
    """A fork server and the connection to it: calls go out with a number, a thread brings the replies back."""

    def __init__(self, variables: Variables) -> None:
        self._lock = (
            threading.Lock()
        )  # guards what is pending; never held while a call is sent, which replies may block
        self._sending = threading.Lock()
        self._numbers = count()
        self._pending: dict[int, Future[CallResult]] = {}
        self._connection, theirs = socket.socketpair()
        path = [os.path.abspath(each) for each in sys.path]
        environment = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if variables is Variables.INHERITED:
            environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(path)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), json.dumps(path), str(os.cpu_count() or 1)],
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd=None if variables is Variables.INHERITED else "/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.alive = True
        self._reader = threading.Thread(target=self._read, name="ponder-sandbox", daemon=True)
        self._reader.start()

    def submit(self, call: dict[str, Any], payload: bytes) -> Future[CallResult]:
        future: Future[CallResult] = Future()
        future.set_running_or_notify_cancel()
        number = next(self._numbers)
        frame = Frame({"id": number, **call}, payload).packed()
        with self._lock:
            self._pending[number] = future
        try:
            with self._sending:
                self._connection.sendall(frame)
        except OSError:
            with self._lock:
                self.alive = False
                lost = self._pending.pop(number, None)
            if lost is not None:
                lost.set_result(CallResult(CallOutcome.DIED, why="the fork server is gone"))
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
            for header, body in unpack_frames(buffer):
                with self._lock:
                    future = self._pending.pop(header["id"])
                future.set_result(_result(header, body))
        with self._lock:
            self.alive = False
            orphans, self._pending = list(self._pending.values()), {}
        for future in orphans:
            future.set_result(CallResult(CallOutcome.DIED, why="the fork server ended"))

    def close(self) -> None:
        """Close the connection: the server ends its children and itself."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(timeout=5)
        self._connection.close()
        self._process.wait(timeout=5)

    def forget(self) -> None:
        """After a fork: the server belongs to the parent process, only our copy of the socket is closed."""
        self._connection.close()
        self._process.returncode = 0  # not ours to wait for


def _result(header: dict[str, Any], body: bytes) -> CallResult:
    """What a child answered. Foreign code in it may have written anything in place of that."""
    try:
        return CallResult(CallOutcome(header["outcome"]), json.loads(body) if body else None, header["why"])
    except (ValueError, KeyError, RecursionError):
        return CallResult(CallOutcome.DIED, why="wrote something else than an answer")


_guard = threading.Lock()
_running: dict[tuple[Variables, bool], _ServerProcess] = {}  # by variables, and whether its children are sealed


def _server(variables: Variables, sealed: bool = False) -> _ServerProcess:
    with _guard:
        server = _running.get(kind := (variables, sealed))
        if server is not None and not server.alive:
            server.close()
            server = None
        if server is None:
            server = _running[kind] = _ServerProcess(variables)
        return server


def shut_down() -> None:
    """End this process's fork servers, if they run. The next call starts another."""
    with _guard:
        while _running:
            _running.popitem()[1].close()


def _after_fork() -> None:
    global _guard
    _guard = threading.Lock()
    while _running:
        _running.popitem()[1].forget()


atexit.register(shut_down)
os.register_at_fork(after_in_child=_after_fork)
