"""A long prompt is rendered, and counted for the queue, beside the event loop: no other request waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from live import Live, serving
from talk import CHAT, ask

from ponder.sampler.local import LocalSampler, is_long
from ponder.sampler.protocol import Request
from ponder.serve import Served, Settings
from ponder.testing.tiny import tiny_sampler


def body(text: str) -> dict:
    limits = {"max_completion_tokens": 2, "thinking_token_budget": 0}
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **limits}


LONG = body("why? " * 1000)


def test_others_are_answered_while_a_long_prompt_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, render = threading.Event(), LocalSampler._render

    def slow(self: LocalSampler, request: Request) -> object:
        assert not is_long(request.prompt) or gate.wait(60)
        return render(self, request)

    async def run(live: Live) -> None:
        long = asyncio.create_task(ask(live.port, CHAT, LONG))
        assert (await ask(live.port, CHAT, body("why?"))).status == 200
        assert not long.done()
        gate.set()
        assert (await long).json["usage"]["prompt_tokens"] > 5000

    monkeypatch.setattr(LocalSampler, "_render", slow)
    with serving([Served(name="tiny", sampler=tiny_sampler(max_positions=8192))]) as live:
        asyncio.run(run(live))


def test_others_are_refused_while_a_long_prompt_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    sampler = tiny_sampler(max_positions=8192, max_batch=1)
    count = sampler.tokenizer.encode_batch

    def slow(texts: Sequence[str]) -> list[list[int]]:
        assert gate.wait(60)
        return count(texts)

    async def run(live: Live) -> None:
        admission = live.state.models.admissions["tiny"]
        place = await admission.enter("somebody", no_tokens)
        long = asyncio.create_task(ask(live.port, CHAT, LONG))
        began = time.monotonic()
        while not admission.num_waiting:
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.005)
        assert (await ask(live.port, CHAT, body("why?"))).status == 429
        gate.set()
        while not admission.waiting_tokens:
            await asyncio.sleep(0.005)
        live.server.servers[0].get_loop().call_soon_threadsafe(place.leave)
        assert (await long).status == 200

    async def no_tokens() -> int:
        return 0

    monkeypatch.setattr(sampler.tokenizer, "encode_batch", slow)
    with serving([Served(name="tiny", sampler=sampler)], Settings(queued_requests=1)) as live:
        asyncio.run(run(live))
