"""The fork server behind `isolate.py`: a process of its own that never imports torch and forks children for the calls.

Run as `python -m ponder.tasks.nursery FD`. Frames (four bytes of length, big-endian, then JSON) come in over the socket
FD and go out over it. A call is `{"id", "function", "payload", "warm", "share", "timeout", "memory"}`; its reply is
`{"id", "outcome", "value" | "why"}`. A child has its own process group, limits on time, memory and files, and no
standard streams. With `share` null it lives for one call, so nothing that an answer does reaches the next one; calls of
one `share` name follow each other in one child, which is many times faster.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ponder.tasks.loading import resolve

HEADER = struct.Struct(">I")
MAX_REPLY = 1 << 24  # bytes that one child may answer
CALLS_PER_CHILD = 256  # after so many a shared child is replaced
WARM_SECONDS = 120  # trusted preparation that takes longer has hung
PRELOADED = ("ponder", "reasoning_gym", "sympy", "json")  # packages that the server itself may import


def pack(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return HEADER.pack(len(body)) + body


def unpack(buffer: bytearray) -> list[dict[str, Any]]:
    """The whole frames at the front of `buffer`, which keeps the rest."""
    messages = []
    while len(buffer) >= HEADER.size:
        (length,) = HEADER.unpack_from(buffer)
        if len(buffer) < HEADER.size + length:
            break
        messages.append(json.loads(bytes(buffer[HEADER.size : HEADER.size + length])))
        del buffer[: HEADER.size + length]
    return messages


@dataclass
class Child:
    """A forked process: the call it works on (None: idle) and until when."""

    pid: int
    link: socket.socket
    share: str | None
    call: dict[str, Any] | None = None
    deadline: float = 0.0
    calls: int = 0
    inbox: bytearray = field(default_factory=bytearray)


class Nursery:
    """Reads calls, hands them to children, passes replies on, kills what runs late."""

    def __init__(self, connection: socket.socket, width: int) -> None:
        self.connection = connection
        self.width = width
        self.inbox = bytearray()
        self.waiting: deque[dict[str, Any]] = deque()
        self.children: dict[int, Child] = {}  # by file descriptor
        self.selector = selectors.DefaultSelector()
        self.selector.register(connection, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until the other side hangs up."""
        while True:
            while self.waiting and len(self.busy()) < self.width:
                self.start(self.waiting.popleft())
            for key, _ in self.selector.select(self.patience()):
                if key.fileobj is self.connection:
                    if not self.receive():
                        return self.kill_all()
                else:
                    self.collect(self.children[key.fd])
            now = time.monotonic()
            for child in [child for child in self.busy() if child.deadline <= now]:
                assert child.call is not None
                self.end(child, {"outcome": "timeout", "why": f"took longer than {child.call['timeout']:g} s"})

    def busy(self) -> list[Child]:
        return [child for child in self.children.values() if child.call is not None]

    def patience(self) -> float | None:
        deadlines = [child.deadline for child in self.busy()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def receive(self) -> bool:
        chunk = self.connection.recv(1 << 16)
        self.inbox += chunk
        self.waiting.extend(unpack(self.inbox))
        return bool(chunk)

    def start(self, call: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # what fails here fails again in the child, which reports it
            prepare(call)
        child = self.idle_child(call["share"]) or self.fork(call["share"])
        child.call, child.calls = call, child.calls + 1
        child.deadline = time.monotonic() + call["timeout"]
        child.link.sendall(pack(call))

    def idle_child(self, share: str | None) -> Child | None:
        """A child that does this kind of call. Where there is none and the house is full, another kind's goes."""
        idle = [child for child in self.children.values() if child.call is None]
        for child in idle:
            if child.share == share:
                return child
        if len(self.children) >= 2 * self.width and idle:
            self.bury(idle[0])
        return None

    def fork(self, share: str | None) -> Child:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            run_child(theirs)
        theirs.close()
        child = Child(pid, ours, share)
        self.children[ours.fileno()] = child
        self.selector.register(ours, selectors.EVENT_READ)
        return child

    def collect(self, child: Child) -> None:
        """Something came from a child: part of a reply, a whole one, or its end."""
        try:
            chunk = child.link.recv(1 << 16)
        except ConnectionResetError:
            chunk = b""
        child.inbox += chunk
        replies = unpack(child.inbox)
        if child.call is None:
            self.bury(child)  # idle children have nothing to say
        elif replies:
            call, child.call = child.call, None
            if child.share is None or child.calls >= CALLS_PER_CHILD:
                self.bury(child)
            self.send(call, replies[0])
        elif len(child.inbox) > MAX_REPLY:
            self.end(child, {"outcome": "died", "why": f"answered more than {MAX_REPLY} bytes"})
        elif not chunk:
            self.end(child, None)

    def end(self, child: Child, verdict: dict[str, Any] | None) -> None:
        """The child goes in the middle of its call, which is answered with `verdict`, or with how the child died."""
        call = child.call
        assert call is not None
        status = self.bury(child, grace=0.1 if verdict is None else 0.0)
        if verdict is None:
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
            verdict = {"outcome": "died", "why": f"ended without an answer ({how})"}
        self.send(call, verdict)

    def bury(self, child: Child, grace: float = 0.0) -> int:
        self.selector.unregister(child.link)
        del self.children[child.link.fileno()]
        child.link.close()
        return reap(child.pid, grace)

    def send(self, call: dict[str, Any], verdict: dict[str, Any]) -> None:
        self.connection.sendall(pack({**verdict, "id": call["id"]}))

    def kill_all(self) -> None:
        for child in list(self.children.values()):
            self.bury(child)


def reap(pid: int, grace: float = 0.0) -> int:
    """The wait status of `pid`, its process group ended; what ends by itself within `grace` keeps its own."""
    patience = time.monotonic() + grace
    done, status = os.waitpid(pid, os.WNOHANG)
    while not done and time.monotonic() < patience:
        time.sleep(0.001)
        done, status = os.waitpid(pid, os.WNOHANG)
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if kill is os.killpg or not done:
                kill(pid, signal.SIGKILL)
    return status if done else os.waitpid(pid, 0)[1]


def prepare(call: dict[str, Any]) -> None:
    """Do once in the server what every child would else do again: import the function's package, build its data.

    Only trusted things run here: known packages, and the `warm` call that the caller vouches for.
    """
    before = len(sys.modules)
    signal.alarm(WARM_SECONDS)
    try:
        if call["function"].split(":")[0].split(".")[0] in PRELOADED:
            importlib.import_module(call["function"].split(":")[0])
        if call["warm"] is not None:
            function, payload = call["warm"]
            resolved = resolve(function)
            assert callable(resolved)
            resolved(payload)
    finally:
        signal.alarm(0)
    if len(sys.modules) != before:
        gc.collect()
        gc.freeze()  # children share these pages; the collector must not touch them


def run_child(link: socket.socket) -> None:
    """In the child: call after call under fresh limits, until the link closes."""
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.dup2(link.fileno(), 3)
    os.closerange(4, 1024)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    inbox = bytearray()
    while chunk := os.read(3, 1 << 16):
        inbox += chunk
        for call in unpack(inbox):
            reply = pack(answer(call))
            while reply:
                reply = reply[os.write(3, reply) :]
    os._exit(0)


def answer(call: dict[str, Any]) -> dict[str, Any]:
    """Do one call. The memory limit counts beyond what is held already; the kernel ends what outlives the server."""
    signal.setitimer(signal.ITIMER_REAL, call["timeout"] + 5)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held() + call["memory"], hard))
    try:
        function = resolve(call["function"])
        assert callable(function)
        value = function(call["payload"])
        json.dumps(value)
        return {"outcome": "done", "value": value}
    except MemoryError:
        return {"outcome": "memory", "why": f"needed more than {call['memory'] >> 20} MiB"}
    except BaseException as error:  # an answer may raise anything; the caller learns what
        return {"outcome": "raised", "why": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def held() -> int:
    """Bytes of address space in use (0 where the system does not tell: the limit is then on the whole)."""
    try:
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN if name == signal.SIGINT else signal.SIG_DFL)
    buffer = bytearray()
    greeting: list[dict[str, Any]] = []
    while not greeting:  # the first frame carries the import path of the other side
        chunk = connection.recv(1 << 16)
        if not chunk:
            return
        buffer += chunk
        greeting = unpack(buffer)
    sys.path[:] = greeting[0]["path"]
    nursery = Nursery(connection, greeting[0]["width"])
    nursery.waiting.extend(greeting[1:])
    nursery.inbox = buffer
    nursery.serve()


if __name__ == "__main__":
    main()
