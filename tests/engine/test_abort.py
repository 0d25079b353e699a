"""Clients that leave at any moment: every page, job, task and queue is back within a second."""

import asyncio
import random
import time
from collections import Counter
from contextlib import aclosing

import pytest

from ponder.dialogue import Message
from ponder.sampler.protocol import Delta, NextTurn, Request
from ponder.types import Phase, SamplingParams, ThinkingLimits

pytestmark = pytest.mark.fault

CLIENTS, ROUNDS = 64, 8
BACK_SECONDS = 1.0


def request(rng, client):
    """A prompt of several prefill steps, a short thought, an answer long enough for a next-turn prefix."""
    prompt = (Message.user(f"{client} " * 40 + "?" * rng.randrange(40)),)
    params = SamplingParams(
        temperature=1.0, seed=rng.randrange(2**32), max_tokens=90, thinking=ThinkingLimits(cap=rng.randrange(1, 30))
    )
    next_turn = rng.choice([NextTurn.NONE, NextTurn.VERBATIM, NextTurn.TEXT])
    n = rng.choice([1, 1, 1, 2])
    return Request(prompt=prompt, params=params, next_turn=next_turn, n=n, stop=rng.choice([(), ("zz",)]))


async def client(sampler, rng, number):
    """Streams, and leaves after a time, or at a piece of text."""
    leave_after = rng.choice([0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.5), 60.0])
    leave_at = rng.choice([(Phase.THINK, 1), (Phase.THINK, 5), (Phase.ANSWER, 1), (Phase.ANSWER, 20)])
    seen = Counter()

    async def read():
        async with aclosing(sampler.stream(request(rng, number))) as stream:
            async for item in stream:
                if isinstance(item, Delta):
                    seen[item.phase] += 1
                    if leave_after == 60.0 and seen[leave_at[0]] >= leave_at[1]:
                        return

    task = asyncio.create_task(read())
    await asyncio.wait([task], timeout=leave_after)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def leftovers(sampler):
    """What is not back yet."""
    stats = await sampler.stats()
    counts = {
        "pages": stats.pages_used,
        "running": stats.running,
        "waiting": stats.waiting,
        "next_turns": stats.next_turns,
        "generations": sampler.num_generations,
        "commands": sampler._driver.num_commands,
        "tasks": len(asyncio.all_tasks()) - 1,
    }
    return {name: count for name, count in counts.items() if count}


def watch_aborts(engine):
    """How often a request was aborted in which state, as the engine itself sees it."""
    states, abort = Counter(), engine.abort

    def watched(number):
        sequence = engine._sequences.get(number)
        if sequence is not None:
            running = sequence in engine._scheduler.running
            fresh = "prefilling" if running else "queued"
            states[sequence.phase.value if running and sequence.num_generated else fresh] += 1
        return abort(number)

    engine.abort = watched
    return states


def test_clients_that_leave_at_random_moments_leave_nothing_behind(kernel):
    rng = random.Random(5)
    sampler = kernel.sampler(max_positions=512, max_batch=24, step_tokens=64)
    states = watch_aborts(sampler.engine)
    total = sampler.engine.stats.pages_free

    async def rounds():
        for _ in range(ROUNDS):
            await asyncio.gather(*(client(sampler, rng, number) for number in range(CLIENTS)))
            began = time.monotonic()
            while await leftovers(sampler) and time.monotonic() - began < BACK_SECONDS:
                await asyncio.sleep(0.002)
            assert await leftovers(sampler) == {}
            stats = await sampler.stats()
            assert stats.pages_cached + stats.pages_free == total
        return await sampler.sample(request(random.Random(1), 1))

    completions = asyncio.run(rounds())
    assert {"queued", "prefilling", "think", "answer"} <= set(states), states
    alone = asyncio.run(kernel.sampler(max_positions=512).sample(request(random.Random(1), 1)))
    assert [c.segment.ids for c in completions] == [c.segment.ids for c in alone], "and it still answers right"
