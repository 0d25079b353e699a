"""Streams of background responses that are cut anywhere go on where they were cut, to the byte."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from live import Live, serving
from talk import request

from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler

pytestmark = pytest.mark.fault

RESPONSES, CUTS = 20, 5
WORDS = " ".join(f"word{number}" for number in range(40))


async def frames(port: int, path: str, body: dict | None, most: int | None) -> list[bytes]:
    """The events of a stream: all of them, or `most`, and then the connection is cut, in the middle of the next."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path, body).replace(b" HTTP/1.1", b" HTTP/1.0"))  # whose bodies have no chunks
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    read = b""
    while most is None or read.count(b"\n\n") < most:
        piece = await reader.read(rng.choice([1, 7, 100, 4096]))
        if not piece:
            break
        read += piece
    if most is None:
        assert not read.rpartition(b"\n\n")[2]  # none is torn; none is left where the cut before fell after the last
    writer.transport.abort()
    whole = read.split(b"\n\n")[:-1]
    return [frame for frame in whole if not frame.startswith(b":")]


def number(frame: bytes) -> int:
    return json.loads(frame.split(b"data: ", 1)[1])["sequence_number"]


rng = random.Random(9)


async def follow(live: Live) -> None:
    """One response, cut `CUTS` times."""
    body = {"model": "said", "input": "count", "background": True, "stream": True}
    seen = await frames(live.port, "/v1/responses", body, rng.randrange(1, 6))
    id = json.loads(seen[0].split(b"data: ", 1)[1])["response"]["id"]
    for cut in range(CUTS):
        most = None if cut == CUTS - 1 else rng.randrange(1, 12)
        path = f"/v1/responses/{id}?stream=true&starting_after={number(seen[-1])}"
        seen += await frames(live.port, path, None, most)
    assert [number(frame) for frame in seen] == list(range(len(seen)))
    assert b"response.completed" in seen[-1]
    assert seen == await frames(live.port, f"/v1/responses/{id}?stream=true", None, None)


def test_a_hundred_cut_streams_go_on_byte_by_byte() -> None:
    sampler = ScriptedSampler(lambda conversation, index: Say(WORDS, reasoning="So many.", seconds=0.5))

    async def run(live: Live) -> None:
        await asyncio.gather(*(follow(live) for _ in range(RESPONSES)))

    with serving([Served(name="said", sampler=sampler)], Settings(coalesce=1.0)) as live:
        asyncio.run(run(live))
        assert RESPONSES * CUTS == 100
