"""Clients of the server that leave at any moment, on every route: all that was theirs is back at once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter

import pytest
from live import Live, serving

from ponder.serve import Served, Settings
from ponder.testing.tiny import tiny_sampler

pytestmark = pytest.mark.fault

LIVENESS = 60.0  # seconds, on any machine
BACK_SECONDS = 1.0  # of the processor


def chat(rng: random.Random, stream: bool) -> tuple[str, dict]:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "why? " * rng.randrange(1, 30)}],
        "max_completion_tokens": 100,
        "thinking_token_budget": rng.randrange(1, 40),
        "reasoning_format": "reasoning",
        "temperature": 1.0,
        "n": rng.choice([1, 1, 2]),
        "stream": stream,
    }
    if rng.random() < 0.2:
        body |= {"strategy": "consensus(samples=3)", "n": 1}
    return "/v1/chat/completions", body


def response(rng: random.Random, stream: bool) -> tuple[str, dict]:
    body = {"model": "tiny", "input": "why? " * rng.randrange(1, 30), "max_output_tokens": 100, "stream": stream}
    return "/v1/responses", body | {"store": rng.random() < 0.5}


def completion(rng: random.Random, stream: bool) -> tuple[str, dict]:
    body = {"model": "tiny", "prompt": ["why? " * rng.randrange(1, 30)] * rng.choice([1, 2]), "max_tokens": 100}
    return "/v1/completions", body | {"stream": stream}


async def client(live: Live, rng: random.Random, seen: Counter[str]) -> None:
    """Asks, and leaves after a time, or once it has read of the thinking, or of the answer."""
    stream = rng.random() < 0.6
    path, body = rng.choice([chat, chat, response, completion])(rng, stream)
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    cut = rng.randrange(len(request)) if rng.random() < 0.1 else len(request)
    writer.write(request[:cut])
    mark = rng.choice([b'"reasoning":', b'"content":"', None, None])
    try:
        async with asyncio.timeout(rng.choice([0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.5)])):
            read = b""
            while piece := await reader.read(4096):
                read += piece
                if mark is not None and mark in read:
                    break
                if (stream and b"[DONE]" in read) or (not stream and read.endswith(b"}")):
                    break
        seen["read"] += 1
    except TimeoutError:
        seen["left in time"] += 1
    if rng.random() < 0.5:
        writer.transport.abort()
    writer.close()


def watched(live: Live) -> Counter[str]:
    """How often a request was given up in which state, as the engine and the queue see it."""
    states: Counter[str] = Counter()
    local = live.state.models.get("tiny").sampler
    engine, abort = local.engine, local.engine.abort
    admission = live.state.models.admissions["tiny"]
    drop = admission._drop

    def engine_abort(number: int) -> object:
        sequence = engine._sequences.get(number)
        if sequence is not None:
            states[sequence.phase.value if sequence.num_generated else "prompt"] += 1
        return abort(number)

    def admission_drop(waiter: object) -> None:
        states["queue"] += waiter.ready.cancelled()  # type: ignore[attr-defined]
        drop(waiter)  # type: ignore[arg-type]

    engine.abort = engine_abort  # type: ignore[method-assign]
    admission._drop = admission_drop  # type: ignore[method-assign]
    return states


async def tasks_of(live: Live) -> int:
    """Of the server's loop."""
    loop = live.server.servers[0].get_loop()

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(count(), loop))


async def held(live: Live) -> dict[str, int]:
    """What requests hold."""
    admission = live.state.models.admissions["tiny"]
    local = live.state.models.get("tiny").sampler
    stats = await local.stats()
    return {
        "pages": stats.pages_used,
        "sequences": stats.running + stats.waiting,
        "next_turns": stats.next_turns,
        "generations": local.num_generations,
        "commands": local._driver.num_commands,
        "running": admission.num_running,
        "waiting": admission.num_waiting,
        "waiting tokens": admission.waiting_tokens,
        "places": admission._running - admission._free,
        "connections": len(live.server.server_state.connections),
        "tasks": await tasks_of(live),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


async def storm(live: Live, clients: int, rounds: int, seconds: float) -> tuple[Counter[str], float]:
    """Returns what was given up where, and the longest time until all was back: of the processor, whose other users say
    nothing about the server."""
    rng = random.Random(7)
    states, seen = watched(live), Counter[str]()
    await client(live, random.Random(1), seen)
    await asyncio.sleep(0.5)
    before, longest = await held(live), 0.0
    assert before["pages"] == before["generations"] == before["places"] == 0
    for _ in range(rounds):
        await asyncio.gather(*(client(live, rng, seen) for _ in range(clients)))
        began, spent = time.monotonic(), time.process_time()
        while (now := await held(live)) != before:
            assert time.monotonic() - began < seconds, {name: now[name] for name in now if now[name] != before[name]}
            await asyncio.sleep(0.01)
        longest = max(longest, time.process_time() - spent)
    return states, longest


def run_storm(clients: int, rounds: int, seconds: float) -> tuple[Counter[str], float]:
    sampler = tiny_sampler(max_positions=512, max_batch=clients // 3, step_tokens=64)
    settings = Settings(queued_requests=clients // 2, queued_tokens=100_000)
    with serving([Served(name="tiny", sampler=sampler)], settings) as live:
        result = asyncio.run(storm(live, clients, rounds, seconds))
        with live.client() as api:
            answer = api.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "2+2?"}], max_completion_tokens=5
            )
            assert answer.usage is not None
            assert 1 <= answer.usage.completion_tokens <= 5, "and it still answers"
    return result


def test_clients_that_leave_at_random_moments_leave_nothing_behind() -> None:
    states, _ = run_storm(clients=16, rounds=4, seconds=LIVENESS)
    assert states["queue"], states
    assert states["think"] + states["answer"] + states["prompt"], states


@pytest.mark.slow
def test_a_storm_of_64_clients_by_20_rounds_is_over_within_a_second() -> None:
    states, longest = run_storm(clients=64, rounds=20, seconds=LIVENESS)
    print(f"\ngiven up: {dict(states)}; all was back within {longest:.2f} s")
    assert {"queue", "prompt", "think", "answer"} <= set(states), states
    assert longest < BACK_SECONDS
