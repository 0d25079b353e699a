"""A server that is told to end: what runs goes on, nothing new begins, and it ends when it said it would."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from child import Child, save_tiny, serving_child
from talk import CHAT, Answer, ask, parsed, request

from ponder.testing.tiny import ByteTokenizer

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def body(tokens: int, **more: object) -> dict:
    """An answer of exactly this number of tokens."""
    away = {str(id): -100 for id in ByteTokenizer().control.values()}
    limits = {"max_completion_tokens": tokens, "thinking_token_budget": 0, "logit_bias": away}
    return {"model": "tiny", "messages": [{"role": "user", "content": "2+2?"}], **limits, **more}


async def running(child: Child, requests: int) -> None:
    """Returns when the server says that this number of requests is running."""
    said = f'ponder:num_requests_running{{model_name="tiny"}} {requests:.1f}'.encode()
    while said not in (await ask(child.port, "/metrics")).body:
        await asyncio.sleep(0.01)


class Stream:
    """An answer of `tokens` tokens that has begun."""

    async def begin(self, child: Child, tokens: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", child.port)
        self._writer.write(request(CHAT, body(tokens, stream=True)))
        self._read = await self._reader.readuntil(b"data: ")

    async def rest(self) -> bytes:
        """All of it, to where it ends or is cut."""
        try:
            while piece := await self._reader.read(1 << 16):
                self._read += piece
        except ConnectionError:
            pass
        self._writer.close()
        return self._read


async def began(child: Child, tokens: int) -> Stream:
    stream = Stream()
    await stream.begin(child, tokens)
    return stream


async def refused(child: Child) -> Answer:
    """The first answer that is no longer 200: the signal takes a moment."""
    while True:
        answer = await ask(child.port, "/ready")
        if answer.status != 200:
            return answer


def test_running_streams_end_and_nothing_new_begins(model: Path) -> None:
    async def run(child: Child) -> None:
        whole = asyncio.create_task(ask(child.port, CHAT, body(400)))
        await running(child, 1)
        streams = [await began(child, 400) for _ in range(3)]
        child.signal(signal.SIGTERM)
        ready = await refused(child)
        late = await ask(child.port, CHAT, body(5))
        for answer in (ready, late):
            assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")
            assert int(answer.headers["retry-after"]) > 0
        for stream in streams:
            read = await stream.rest()
            assert b"data: [DONE]" in read
            assert parsed(read).events[-1]["choices"][0]["finish_reason"] == "length"
        answer = await whole
        assert answer.json["usage"]["completion_tokens"] == 400

    with serving_child(model, "--drain", 100) as child:
        asyncio.run(run(child))
        assert child.wait() == 0


def test_a_second_signal_ends_it_at_once(model: Path) -> None:
    async def run(child: Child) -> None:
        stream = await began(child, 4000)
        child.signal(signal.SIGTERM)
        await refused(child)
        child.signal(signal.SIGTERM)
        assert b"[DONE]" not in await stream.rest()

    with serving_child(model, "--drain", 3600) as child:
        asyncio.run(run(child))
        assert child.wait() == 1


def test_what_still_runs_when_the_drain_is_over_is_told_so(model: Path) -> None:
    async def run(child: Child) -> None:
        stream = await began(child, 4000)
        whole = asyncio.create_task(ask(child.port, CHAT, body(4000)))
        await running(child, 2)
        child.signal(signal.SIGINT)
        read = await stream.rest()
        assert b"[DONE]" not in read
        assert parsed(read).events[-1]["error"]["code"] == "shutting_down"
        answer = await whole
        assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")

    with serving_child(model, "--drain", 0.3) as child:
        asyncio.run(run(child))
        assert child.wait() == 0


def test_an_idle_server_ends_although_a_client_keeps_its_connection(model: Path) -> None:
    async def run(child: Child) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", child.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}")
        child.signal(signal.SIGTERM)
        await reader.read()
        writer.close()

    with serving_child(model) as child:
        asyncio.run(run(child))
        assert child.wait() == 0
