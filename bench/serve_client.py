"""The clients of `serve_overhead.py`, in a separate process: many connections on one selector, with next to no work
for each byte. Reads one order a line (JSON) and answers each with one line.

An order: port, requests (bodies; one connection each), gap (seconds between two of them; 0: all at once). The answer,
for each request: status, seconds until the head and until the first and the last event, bytes, events, tokens by the
bill; and the processor time of this process.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from typing import Any

TOKENS = re.compile(rb'"completion_tokens":(\d+)')
TAIL = 4096  # bytes that are kept of a stream


class Asking:
    """One request on its way."""

    def __init__(self, port: int, body: str) -> None:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        data = f"{head}Connection: close\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.began = time.perf_counter()
        self.socket.sendall(data)
        self.socket.setblocking(False)
        self.tail = b""
        self.size = self.events = 0
        self.head: float | None = None
        self.first: float | None = None
        self.status = 0

    def read(self) -> bool:
        """True once it is over."""
        piece = self.socket.recv(1 << 16)
        now = time.perf_counter() - self.began
        if self.head is None and piece:
            self.head, self.status = now, int(piece[9:12])
        if self.first is None and b"data: " in piece:
            self.first = now
        self.size += len(piece)
        self.events += piece.count(b"data: ")
        self.tail = (self.tail + piece)[-TAIL:]
        self.last = now
        return not piece

    def told(self) -> dict[str, Any]:
        found = TOKENS.findall(self.tail)
        return {
            "status": self.status,
            "head": self.head,
            "first": self.first,
            "last": self.last,
            "bytes": self.size,
            "events": self.events,
            "tokens": int(found[-1]) if found else 0,
            "error": "" if self.status == 200 else self.tail.decode(),
        }


def ask_all(port: int, bodies: list[str], gap: float) -> dict[str, Any]:
    cpu, began = time.process_time(), time.perf_counter()
    over: list[Asking] = []
    left = [(began + gap * number, body) for number, body in enumerate(bodies)]
    left.reverse()
    with selectors.DefaultSelector() as ready:
        while len(over) < len(bodies):
            while left and left[-1][0] <= time.perf_counter():
                asking = Asking(port, left.pop()[1])
                ready.register(asking.socket, selectors.EVENT_READ, asking)
            wait = None if not left else max(0.0, left[-1][0] - time.perf_counter())
            for key, _ in ready.select(wait):
                if key.data.read():
                    ready.unregister(key.data.socket)
                    key.data.socket.close()
                    over.append(key.data)
    over.sort(key=lambda asking: asking.began)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "answers": [asking.told() for asking in over],
    }


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(ask_all(order["port"], order["requests"], order["gap"])), flush=True)


if __name__ == "__main__":
    main()
