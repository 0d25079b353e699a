"""More than the server can do: who is let in, who is refused, whose turn it is, and when waiting ends."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

import pytest
from live import Live, serving
from talk import CHAT, Answer, ask, request

from ponder.sampler.protocol import AT_ONCE, Delivery, Request, Streamed
from ponder.serve import Served, Settings
from ponder.serve.admission import Admission
from ponder.serve.answering import answer_pieces, served_ask
from ponder.serve.chat.convert import read_chat
from ponder.serve.chat.wire import ChatRequest
from ponder.serve.http.auth import Keys
from ponder.serve.http.server import Protocol
from ponder.testing.scripted import Say, Script, ScriptedSampler
from ponder.testing.tiny import tiny_sampler

pytestmark = pytest.mark.fault

LIVENESS = 60.0


class Gated(ScriptedSampler):
    """Answers no request before `open` is set."""

    def __init__(self, script: Script, **options: object) -> None:
        super().__init__(script, **options)  # type: ignore[arg-type]
        self.open = threading.Event()

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        while not self.open.is_set():
            await asyncio.sleep(0.005)
        async with aclosing(super().stream(request, delivery)) as stream:
            async for item in stream:
                yield item


@contextmanager
def gated(script: Script, *, running: int, queue: int, keys: Keys | None = None) -> Iterator[tuple[Live, Gated]]:
    sampler = Gated(script)
    with serving([Served(name="said", sampler=sampler)], Settings(queued_requests=queue), keys) as live:
        live.state.models.admissions["said"] = Admission(running=running, queued_requests=queue, queued_tokens=10**6)
        try:
            yield live, sampler
        finally:
            sampler.open.set()


def body(text: str = "2+2?", **more: object) -> dict:
    return {"model": "said", "messages": [{"role": "user", "content": text}], **more}


async def until(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < LIVENESS
        await asyncio.sleep(0.005)


def said(_: object, index: int) -> Say:
    return Say("Four.", reasoning="Two and two.")


@pytest.mark.parametrize("stream", [False, True])
def test_at_ten_times_the_queue_exactly_what_fits_is_let_in(stream: bool) -> None:
    running, queue = 3, 5

    async def run(live: Live, sampler: Gated) -> list[Answer]:
        asked = [asyncio.create_task(ask(live.port, CHAT, body(stream=stream))) for _ in range(running + 10 * queue)]
        await until(lambda: sum(task.done() for task in asked) == 9 * queue)
        admission = live.state.models.admissions["said"]
        assert (admission.num_running, admission.num_waiting) == (running, queue)
        refused = [task.result() for task in asked if task.done()]
        sampler.open.set()
        answers = await asyncio.gather(*asked)
        assert admission.idle
        metrics = (await ask(live.port, "/metrics")).body.decode()
        name = 'ponder:admission_rejections_total{model_name="said",reason="queued_requests"}'
        assert f"{name} {9.0 * queue}" in metrics
        assert 'ponder:num_requests_waiting{model_name="said"} 0.0' in metrics
        return [*refused, *(answer for answer in answers if answer not in refused)]

    with gated(said, running=running, queue=queue) as (live, sampler):
        answers = asyncio.run(run(live, sampler))
    assert [answer.status for answer in answers] == [429] * 9 * queue + [200] * (running + queue)
    for refused in answers[: 9 * queue]:
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json["error"]["code"] == "queue_full"


def test_refusals_leave_no_memory_behind() -> None:
    async def refuse(live: Live, count: int) -> None:
        for _ in range(count // 20):
            answers = await asyncio.gather(*(ask(live.port, CHAT, body("x" * 5000)) for _ in range(20)))
            assert {answer.status for answer in answers} == {429}

    async def run(live: Live, sampler: Gated) -> int:
        held = [asyncio.create_task(ask(live.port, CHAT, body())) for _ in range(2)]
        await until(lambda: live.state.models.admissions["said"].num_waiting == 1)
        await refuse(live, 100)
        gc.collect()
        tracemalloc.start()
        await refuse(live, 40)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await refuse(live, 200)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        sampler.open.set()
        await asyncio.gather(*held)
        return grown

    with gated(said, running=1, queue=1) as (live, sampler):
        assert asyncio.run(run(live, sampler)) < 200 * 500  # bytes: far less than one body for each


def test_a_key_that_floods_the_server_does_not_keep_another_from_its_turn() -> None:
    keys = Keys({name: hashlib.sha256(name.encode()).digest() for name in "ab"})

    async def run(live: Live, sampler: Gated) -> None:
        flood = [asyncio.create_task(ask(live.port, CHAT, body(f"a{number}"), "a")) for number in range(30)]
        await until(lambda: sum(task.done() for task in flood) == 25)
        other = asyncio.create_task(ask(live.port, CHAT, body("b"), "b"))
        await until(lambda: sum(task.done() for task in flood) == 26)
        sampler.open.set()
        assert (await other).status == 200
        answers = await asyncio.gather(*flood)
        assert [answer.status for answer in answers].count(200) == 4
        asked = [request.prompt[0].text for request in sampler.requests]  # type: ignore[union-attr]
        assert asked.index("b") <= 2, asked

    with gated(said, running=1, queue=4, keys=keys) as (live, sampler):
        asyncio.run(run(live, sampler))


def test_a_deadline_ends_the_waiting_and_the_waiting_counts() -> None:
    script = [Say("one", seconds=0.3), Say("two three four five six seven eight nine ten", seconds=600.0)]

    async def run(live: Live, sampler: Gated) -> None:
        first = asyncio.create_task(ask(live.port, CHAT, body()))
        await until(lambda: live.state.models.admissions["said"].num_running == 1)
        late = await ask(live.port, CHAT, body(deadline=0.05, stream=True))
        assert (late.status, late.json["error"]["code"]) == (503, "deadline_exceeded")
        assert "retry-after" in late.headers
        waits = asyncio.create_task(ask(live.port, CHAT, body(deadline=2.0)))
        await until(lambda: live.state.models.admissions["said"].num_waiting == 1)
        sampler.open.set()
        assert (await first).status == 200
        cut = await waits
        assert cut.json["choices"][0]["finish_reason"] == "length"
        assert 0 < sampler.requests[-1].seconds < 1.8  # type: ignore[operator]
        assert live.state.models.admissions["said"].idle

    with gated(script, running=1, queue=5) as (live, sampler):
        asyncio.run(run(live, sampler))


def test_the_servers_own_deadline_holds_where_a_request_names_none() -> None:
    sampler = ScriptedSampler([Say("one two three four", seconds=600.0)])
    with serving([Served(name="said", sampler=sampler)], Settings(deadline=0.2)) as live:
        answer = asyncio.run(ask(live.port, CHAT, body()))
    assert answer.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_reads_nothing_holds_neither_a_place_nor_its_connection(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "unread_seconds", 0.2)
    script = [Say(" ".join(["x" * 500_000] * 40))]

    async def run(live: Live) -> None:
        before = len(live.server.server_state.connections)
        with socket.create_connection(("127.0.0.1", live.port)) as lazy:
            lazy.sendall(request(CHAT, body(stream=stream)))
            await until(lambda: len(live.server.server_state.connections) == before + 1)
            await until(lambda: len(live.server.server_state.connections) == before)
        await until(lambda: live.state.models.admissions["said"].idle)

    with serving([Served(name="said", sampler=ScriptedSampler(script))]) as live:
        asyncio.run(run(live))


def test_a_slow_reader_gives_up_its_place_when_the_model_is_done() -> None:
    sampler = tiny_sampler(max_positions=4096, max_batch=1)
    ask_for = body(stream=True, max_completion_tokens=50, n=2) | {"model": "tiny"}

    async def run(live: Live) -> None:
        taken = 0

        async def slow(pieces: object) -> None:
            nonlocal taken
            async for _ in pieces:  # type: ignore[attr-defined]
                taken += 1
                await asyncio.sleep(3600)

        models, settings = live.state.models, live.state.settings
        served = models.get("tiny")
        task = served_ask(read_chat(ChatRequest(**ask_for), served, settings, "local"), served, "local", settings)
        reading = asyncio.create_task(slow(answer_pieces(models, task)))
        await until(lambda: taken == 1 and models.admissions["tiny"].idle)
        reading.cancel()
        await asyncio.wait([reading])

    with serving([Served(name="tiny", sampler=sampler)]) as live:
        asyncio.run(run(live))


def test_what_breaks_the_engine_ends_what_it_was_working_on_and_tells_nothing() -> None:
    sampler = tiny_sampler(max_positions=4096, max_batch=4)
    engine, step, steps = sampler.engine, sampler.engine.step, 0

    def broken() -> object:
        nonlocal steps
        steps += 1
        if steps == 30:
            raise RuntimeError("the insides of the server")
        return step()

    away = {str(id): -100 for id in sampler.tokenizer.control.values()}
    long = body(max_completion_tokens=4000, thinking_token_budget=0, logit_bias=away) | {"model": "tiny"}

    async def run(live: Live) -> None:
        asked = [ask(live.port, CHAT, long | {"stream": stream}) for stream in (True, False)]
        streamed, whole = await asyncio.gather(*asked)
        assert (streamed.status, whole.status) == (200, 500)
        assert streamed.events[-1]["error"]["code"] == whole.json["error"]["code"] == "server_error"
        assert b"insides" not in streamed.body + whole.body
        assert (await sampler.stats()).pages_used == 0
        after = await ask(live.port, CHAT, long | {"max_completion_tokens": 5})
        assert after.json["usage"]["completion_tokens"] == 5
        assert live.state.models.admissions["tiny"].idle

    with serving([Served(name="tiny", sampler=sampler)]) as live:
        engine.step = broken  # type: ignore[assignment, method-assign]
        asyncio.run(run(live))
