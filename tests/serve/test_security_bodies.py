"""Requests that are too large, too deep, too slow or not JSON: a clear 4xx, and no other request waits."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import time
import tracemalloc
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.serve import Served, Settings
from ponder.serve.errors import BadRequest
from ponder.serve.http.bodies import DEEPEST, HEAD_BYTES, MOST_TEXTS, Body, check_json
from ponder.serve.http.errors import HttpError
from ponder.serve.http.server import Protocol
from ponder.testing.scripted import ScriptedSampler

PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
LIMIT = 256 * 1024
ASKED = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(
        [Served(name="m", sampler=ScriptedSampler(lambda _, index: "Four."))], Settings(body=LIMIT)
    ) as running:
        yield running


@pytest.fixture(scope="module")
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.root, headers=JSON) as client:
        yield client


def _with(**more: object) -> bytes:
    return json.dumps({"model": "m", "messages": ASKED, **more}).encode()


def _spelled(name: str, value: str) -> bytes:
    return _with()[:-1] + f', "{name}": {value}}}'.encode()


NO_JSON = {
    "nothing": b"",
    "a part": b'{"model": "m"',
    "two": b"{}{}",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "a text": b'"x"',
    "NaN": _spelled("temperature", "NaN"),
    "Infinity": _spelled("temperature", "-Infinity"),
    "a number without end": _spelled("temperature", "1e999"),
    "a long integer": _spelled("seed", "9" * 5000),
    "the longest integer": _spelled("seed", "9" * 100),
    "one more than 64 bits": _spelled("seed", str(2**63)),
    "a long fraction": _spelled("temperature", "3." + "1" * 5000),
    "a key twice": b'{"model": "m", "model": "n"}',
    "a key twice, deep": _spelled("metadata", '[{"a": {"b": 1, "b": 1}}]'),
    "half a pair": _with(user="\ud800"),
    "the other half": _with(user="a\udfffb"),
    "half a pair in a key": _with(**{"\ud800": 1}),
    "half a pair in a role": _with(messages=[{"role": "\udcff", "content": ""}]),
    "a bias of half a pair": _with(logit_bias={"\ud800": 1}),
    "no UTF-8": _with(user="xx").replace(b"xx", b"\xff\xfe"),
    "an overlong sequence": _with(user="xx").replace(b"xx", b"\xc0\x80"),
    "UTF-16": _with().decode().encode("utf-16"),
    "UTF-32": _with().decode().encode("utf-32-le"),
    "a byte order mark": b"\xef\xbb\xbf" + _with(),
    "a raw line break in a text": _with(user="xx").replace(b"xx", b"\n"),
    "a raw zero": _with(user="xx").replace(b"xx", b"\x00"),
    "a comment": _with() + b"// x",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 40_000,
    "deep and whole": b"[" * 1000 + b"]" * 1000,
    "a deep schema": _spelled("tools", '{"a":' * DEEPEST + "1" + "}" * DEEPEST),
    "many texts": b"[" + b'"",' * (MOST_TEXTS + 1) + b'""]',
    "many numbers": b"[" + b"0," * 100_000 + b"0]",
    "many objects": b"[" + b"{}," * 80_000 + b"{}]",
    "many messages": _spelled("x", '[{"role":"user"}' + ',{"role":0}' * 20_000 + "]"),
    "many ids": _spelled("stop_token_ids", "[" + "0," * 100_000 + "0]"),
    "many keys": b"{" + b",".join(b'"%x":0' % n for n in range(20_000)) + b"}",
}


@pytest.mark.parametrize("what", NO_JSON)
def test_what_is_no_request_is_400(http: httpx.Client, what: str) -> None:
    answer = http.post(PATH, content=NO_JSON[what])
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert len(answer.content) < 2000


def test_what_looks_odd_and_is_fine_is_answered(http: httpx.Client) -> None:
    for body in (
        _with(user="\U0001f600 \x00 \x7f \u2028"),
        json.dumps({"model": "m", "messages": ASKED, "user": "😀"}, ensure_ascii=False).encode(),
        b" \r\n\t" + _with() + b"\n",
        _with(messages=[{"role": "user", "content": '\\" , , , [{ \\'}] * 200),
        _with(messages=[{"role": "user", "content": "," * 200_000}]),
    ):
        answer = http.post(PATH, content=body)
        assert answer.status_code in (200, 400), answer.text
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "headers",
    [{"content-type": each} for each in ("", "text/plain", "application/xml", "application/json; charset=latin-1")]
    + [{"content-type": "application/jsonx"}, {"content-type": "application/x-www-form-urlencoded"}],
)
def test_another_kind_of_body_is_415(http: httpx.Client, headers: dict[str, str]) -> None:
    assert http.post(PATH, content=_with(), headers=headers).status_code == 415


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
def test_a_body_in_gzip_is_read(http: httpx.Client, coding: str) -> None:
    packed, headers = gzip.compress(_with()), {"content-encoding": coding}
    assert http.post(PATH, content=packed, headers=headers).status_code == 200
    assert http.post(PATH, content=iter([packed[:9], packed[9:]]), headers=headers).status_code == 200
    refused = http.post(PATH, content=gzip.compress(NO_JSON["NaN"]), headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "what",
    [_with(), b"", gzip.compress(_with())[:-9], gzip.compress(_with()) * 2, b"\x1f\x8b"],
    ids=["plain", "empty", "cut", "two members", "head"],  # the bytes hold the time, in which processes differ
)
def test_broken_gzip_is_400(http: httpx.Client, what: bytes) -> None:
    assert http.post(PATH, content=what, headers={"content-encoding": "gzip"}).status_code == 400


def test_a_bomb_is_413_and_is_never_unpacked_whole(http: httpx.Client) -> None:
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (50_000_000, 413)):
        packed = gzip.compress(_with().ljust(size))
        answer = http.post(PATH, content=packed, headers={"content-encoding": "gzip"})
        assert answer.status_code == status
        assert status == 200 or answer.json()["error"]["code"] == "body_too_large"
    body, packed = Body(lambda *_: None, LIMIT), gzip.compress(b" " * 50_000_000)  # type: ignore[arg-type, return-value]
    tracemalloc.start()
    with pytest.raises(HttpError):
        body._unpacked(packed)
    assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    tracemalloc.stop()


def test_another_coding_of_a_body_is_415_and_is_not_unpacked(http: httpx.Client) -> None:
    packed = gzip.compress(_with())
    for coding in ("deflate", "br", "zstd", "identity, gzip", "gzip, gzip", "x"):
        answer = http.post(PATH, content=packed, headers={"content-encoding": coding})
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, identity")
    assert http.post(PATH, content=_with(), headers={"content-encoding": "identity"}).status_code == 200


def test_a_body_of_any_length_is_bounded(http: httpx.Client) -> None:
    text = _with(messages=[{"role": "user", "content": "x" * LIMIT}])
    assert http.post(PATH, content=text).status_code == 413

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(text), 10_000):
            yield text[at : at + 10_000]

    answer = http.post(PATH, content=pieces())  # chunked: its length is not told before
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_a_chunked_body_within_bounds_is_read(http: httpx.Client) -> None:
    assert http.post(PATH, content=iter([_with()[:9], _with()[9:]])).status_code == 200


@pytest.mark.parametrize("query", ["api-version=2024-10-21", "x", "a=1&a=2", "model=m", "%00=1", "%ff"])
def test_a_query_that_no_route_has_says_nothing(http: httpx.Client, query: str) -> None:
    for answer in (http.post(f"{PATH}?{query}", content=_with()), http.get(f"/v1/models?{query}")):
        assert answer.status_code == 200


def test_a_query_and_a_head_are_bounded(http: httpx.Client, live: Live) -> None:
    assert http.get("/v1/models?" + "x" * 5000).json()["error"]["code"] == "query_too_long"
    many = "".join(f"x-{n}: y\r\n" for n in range(HEAD_BYTES // 8))
    for line in (f"GET /{'x' * HEAD_BYTES} HTTP/1.1", f"GET /ready HTTP/1.1\r\nx: {'y' * HEAD_BYTES}"):
        for more in ("", many):
            said = _said(live, f"{line}\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n".encode())
            assert re.match(rb"HTTP/1.1 (400|431) ", said)


NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,  # TLS
    b"GET\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",  # no host
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
    b"GET /h\xffealth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
]


@pytest.mark.parametrize("data", NO_HTTP[:-1])
def test_what_is_no_http_gets_an_error_object(live: Live, data: bytes) -> None:
    said = _said(live, data)
    assert re.match(rb"HTTP/1.1 (400|501) ", said)
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def test_two_requests_in_one_are_not_smuggled(live: Live) -> None:
    """Length and chunks together: one of the two is believed, and never both."""
    inner = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    assert _said(live, b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\n" + both + inner).count(b"HTTP/1.1 200") <= 1


def _said(live: Live, data: bytes, seconds: float = 10) -> bytes:
    """Everything that comes back until the connection ends, or nothing more comes."""
    with socket.create_connection(("127.0.0.1", live.port), seconds) as wire:
        wire.sendall(data)
        wire.settimeout(2)
        out = b""
        try:
            while piece := wire.recv(65536):
                out += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return out


# Slow ones ------------------------------------------------------------------------------------------------------------


def test_a_head_that_never_ends_is_cut_off(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Protocol, "head_seconds", 0.5)
    for begin in (
        b"",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
    ):
        with socket.create_connection(("127.0.0.1", live.port), 30) as wire:
            wire.sendall(begin)
            wire.settimeout(30)
            try:
                while begin.endswith(b"\r\n"):  # a little more, again and again
                    wire.sendall(b"x: y\r\n")
                    time.sleep(0.05)
                while wire.recv(65536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass


def test_an_answer_that_takes_long_is_not_a_slow_head(monkeypatch: pytest.MonkeyPatch) -> None:
    from ponder.testing.scripted import Say

    monkeypatch.setattr(Protocol, "head_seconds", 0.2)
    slow = ScriptedSampler(lambda _, index: Say("Four and some more.", seconds=1.0))
    with serving([Served(name="m", sampler=slow)]) as live, httpx.Client(base_url=live.root, headers=JSON) as http:
        for _ in range(2):
            assert http.post(PATH, content=_with()).status_code == 200
            time.sleep(0.5)  # between two requests the connection may rest for longer than a head may take
        assert http.get("/health").status_code == 200


def test_a_body_that_never_ends_is_408() -> None:
    async def never(scope: object, receive: object, send: object) -> None:
        raise AssertionError("the route was reached")

    async def receive() -> dict[str, object]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(Body(never, 1000, seconds=0.1)({"type": "http", "path": PATH, "headers": []}, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


def test_many_slow_heads_keep_nobody_waiting(live: Live, http: httpx.Client) -> None:
    idle = [socket.create_connection(("127.0.0.1", live.port), 10) for _ in range(100)]
    try:
        for wire in idle:
            wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n")
        assert http.post(PATH, content=_with()).status_code == 200
    finally:
        for wire in idle:
            wire.close()


def test_a_large_body_is_refused_by_its_shape_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take seconds to parse is never parsed."""
    megabyte = 1024 * 1024
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    for shape in (b"0,", b'"",', b"{},", b"[],", b'"\\"",', b"null,"):
        with pytest.raises(BadRequest, match="more than"):
            check_json(b"[" + shape * (4 * megabyte // len(shape)) + b"0]")
