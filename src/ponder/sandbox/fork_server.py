"""A fork server: a process that never imports torch and forks limited children for the calls of `isolate.py`.

Frames come in over a socket and go out over it: two lengths (four bytes each, big-endian), a JSON header, and a body
that the server passes on unread. A call's header is `{"id", "function", "warm", "share", "timeout", "memory",
"sealed"}`; its body is the payload as JSON. A reply's header is `{"id", "outcome", "why"}`; its body is the function's
value as JSON.

A child has its own process group, limits on time, memory and files, and no standard streams. With `share` null it lives
for one call, so nothing that the call does reaches the next one. Calls of one `share` name follow each other in one
child, which is many times faster.
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
from functools import lru_cache
from typing import Any, NamedTuple

from ponder.sandbox.objects import described, load_object
from ponder.sandbox.seal import SealError, seal_process

LENGTHS = struct.Struct(">II")  # of header and body
MAX_REPLY = 1 << 24  # bytes of one child's reply
CALLS_PER_CHILD = 256  # after that many calls a shared child is replaced
WARM_SECONDS = 120  # trusted preparation that takes longer hangs
PRELOADED = ("ponder", "reasoning_gym", "sympy", "json")  # packages that the server itself may import


class Frame(NamedTuple):
    """A call or a reply."""

    header: dict[str, Any]
    body: bytes = b""

    def packed(self) -> bytes:
        header = json.dumps(self.header).encode()
        return LENGTHS.pack(len(header), len(self.body)) + header + self.body


def unpack_frames(buffer: bytearray) -> list[Frame]:
    """Take the whole frames from the front of `buffer`."""
    frames = []
    while len(buffer) >= LENGTHS.size:
        header, body = LENGTHS.unpack_from(buffer)
        begin, end = LENGTHS.size + header, LENGTHS.size + header + body
        if len(buffer) < end:
            break
        frames.append(Frame(json.loads(bytes(buffer[LENGTHS.size : begin])), bytes(buffer[begin:end])))
        del buffer[:end]
    return frames


@dataclass
class ForkedChild:
    """A forked process.

    call: what it works on, until `deadline`; None: it is idle.
    """

    pid: int
    link: socket.socket
    share: str | None
    call: Frame | None = None
    deadline: float = 0.0
    calls: int = 0
    received: bytearray = field(default_factory=bytearray)


class ForkServer:
    """Reads calls, hands them to children, passes replies on, and kills what runs too long."""

    def __init__(self, connection: socket.socket, width: int) -> None:
        """width: calls that run at once."""
        self.connection = connection
        self.width = width
        self.received = bytearray()
        self.waiting: deque[Frame] = deque()
        self.children: dict[int, ForkedChild] = {}  # by file descriptor
        self.selector = selectors.DefaultSelector()
        self.selector.register(connection, selectors.EVENT_READ)

    def serve(self) -> None:
        """Run until the other side closes the connection."""
        while True:
            while self.waiting and len(self.busy()) < self.width:
                self.start(self.waiting.popleft())
            for key, _ in self.selector.select(self.seconds_left()):
                if key.fileobj is self.connection:
                    if not self.receive():
                        return self.kill_all()
                else:
                    self.collect(self.children[key.fd])
            now = time.monotonic()
            for child in [child for child in self.busy() if child.deadline <= now]:
                assert child.call is not None
                self.end(child, {"outcome": "timeout", "why": f"took longer than {child.call.header['timeout']:g} s"})

    def busy(self) -> list[ForkedChild]:
        return [child for child in self.children.values() if child.call is not None]

    def seconds_left(self) -> float | None:
        """Until the next deadline; None: no call runs."""
        deadlines = [child.deadline for child in self.busy()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def receive(self) -> bool:
        chunk = self.connection.recv(1 << 16)
        self.received += chunk
        self.waiting.extend(unpack_frames(self.received))
        return bool(chunk)

    def start(self, call: Frame) -> None:
        share = call.header["share"]
        with contextlib.suppress(Exception):  # what fails here fails again in the child, which reports it
            prepare(call.header["function"], json.dumps(call.header["warm"]))
        child = self.idle_child(share) or self.fork(share)
        child.call, child.calls = call, child.calls + 1
        child.deadline = time.monotonic() + call.header["timeout"]
        child.link.sendall(call.packed())

    def idle_child(self, share: str | None) -> ForkedChild | None:
        """An idle child of this share name. Where there is none, and there are many others, one of those is ended."""
        idle = [child for child in self.children.values() if child.call is None]
        for child in idle:
            if child.share == share:
                return child
        if len(self.children) >= 2 * self.width and idle:
            self.bury(idle[0])
        return None

    def fork(self, share: str | None) -> ForkedChild:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            run_child(theirs)
        theirs.close()
        child = ForkedChild(pid, ours, share)
        self.children[ours.fileno()] = child
        self.selector.register(ours, selectors.EVENT_READ)
        return child

    def collect(self, child: ForkedChild) -> None:
        """Read what a child sent: part of a reply, a whole one, or its end."""
        try:
            chunk = child.link.recv(1 << 16)
        except ConnectionResetError:
            chunk = b""
        child.received += chunk
        try:
            replies = unpack_frames(child.received)
        except (ValueError, RecursionError):  # foreign code wrote into the link
            replies = [Frame({"outcome": "died", "why": "wrote something else than an answer"})]
            child.calls = CALLS_PER_CHILD
        if child.call is None:
            self.bury(child)  # an idle child must not send anything
        elif replies:
            call, child.call = child.call, None
            if child.share is None or child.calls >= CALLS_PER_CHILD:
                self.bury(child)
            header, value = replies[0]
            verdict = {key: str(header.get(key, "")) for key in ("outcome", "why")} if isinstance(header, dict) else {}
            self.send(call, verdict, value)
        elif len(child.received) > MAX_REPLY:
            self.end(child, {"outcome": "died", "why": f"answered more than {MAX_REPLY} bytes"})
        elif not chunk:
            self.end(child, None)

    def end(self, child: ForkedChild, verdict: dict[str, Any] | None) -> None:
        """End a child during its call, and answer that with `verdict`. None: with how the child died."""
        call = child.call
        assert call is not None
        status = self.bury(child, grace=0.1 if verdict is None else 0.0)
        if verdict is None:
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
            verdict = {"outcome": "died", "why": f"ended without an answer ({how})"}
        self.send(call, verdict)

    def bury(self, child: ForkedChild, grace: float = 0.0) -> int:
        self.selector.unregister(child.link)
        del self.children[child.link.fileno()]
        child.link.close()
        return reap(child.pid, grace)

    def send(self, call: Frame, verdict: dict[str, Any], value: bytes = b"") -> None:
        self.connection.sendall(Frame({**verdict, "id": call.header["id"]}, value).packed())

    def kill_all(self) -> None:
        for child in list(self.children.values()):
            self.bury(child)


def reap(pid: int, grace: float = 0.0) -> int:
    """End the process group of `pid` and return its wait status. It has `grace` seconds to end by itself."""
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


@lru_cache(maxsize=4096)
def prepare(function: str, warm: str) -> None:
    """Do once in the server what every child would do again: import the function's package, build its data.

    Only trusted code runs here: known packages, and the call `warm` (JSON) that the caller vouches for.
    """
    before = len(sys.modules)
    signal.alarm(WARM_SECONDS)
    try:
        module = function.split(":")[0]
        if module.split(".")[0] in PRELOADED:
            importlib.import_module(module)
        if trusted := json.loads(warm):
            build = load_object(trusted[0])
            assert callable(build)
            build(trusted[1])
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
    received = bytearray()
    while chunk := os.read(3, 1 << 16):
        received += chunk
        for call in unpack_frames(received):
            reply = (answer_sealed if call.header["sealed"] else answer_call)(*call).packed()
            while reply:
                reply = reply[os.write(3, reply) :]
    os._exit(0)


def answer_call(call: dict[str, Any], payload: bytes) -> Frame:
    """Do one call. The memory limit is beyond what is held already; an alarm ends a child that outlives the server."""
    signal.setitimer(signal.ITIMER_REAL, call["timeout"] + 5)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held_bytes() + call["memory"], hard))
    try:
        return called(call, payload)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def answer_sealed(call: dict[str, Any], payload: bytes) -> Frame:
    """Seal this child for good, then do the call, which is its only one."""
    try:
        seal_process(call["timeout"], held_bytes() + call["memory"])
    except (SealError, OSError, ValueError) as error:
        return Frame({"outcome": "unsealed", "why": str(error)})
    return called(call, payload)


def called(call: dict[str, Any], payload: bytes) -> Frame:
    """What the function of a call returns, or how it failed."""
    try:
        function = load_object(call["function"])
        assert callable(function)
        return Frame({"outcome": "done", "why": ""}, json.dumps(function(json.loads(payload))).encode())
    except MemoryError:
        return Frame({"outcome": "memory", "why": f"needed more than {call['memory'] >> 20} MiB"})
    except BaseException as error:  # foreign code may raise anything; the caller learns what
        return Frame({"outcome": "raised", "why": described(error)[:2000]})


def held_bytes() -> int:
    """Bytes of address space in use. 0 where the system does not say: the limit is then on the whole."""
    try:
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def serve_socket(descriptor: int, width: int) -> None:
    """The whole life of the process that `isolate.py` starts.

    descriptor: of the socket to its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ForkServer(socket.socket(fileno=descriptor), width).serve()
