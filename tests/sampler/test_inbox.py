"""Items for a coroutine, gathered over a short time."""

import asyncio

import pytest

from ponder.sampler.inbox import Inbox


def test_the_first_item_comes_at_once_and_later_ones_together():
    async def run():
        inbox = Inbox(seconds=0.01)
        inbox.put("a")
        assert await inbox.take() == ["a"]
        inbox.put("b")
        inbox.put("c")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(taking := asyncio.ensure_future(inbox.take())), 0)
        inbox.put("d")
        return await taking

    assert asyncio.run(run()) == ["b", "c", "d"]


def test_an_end_brings_at_once_what_waits_before_it():
    async def run():
        inbox = Inbox(seconds=3600.0)
        inbox.put("a")
        inbox.put("b")
        inbox.end("C")
        assert await inbox.take() == ["a", "b", "C"]
        assert inbox.ends == 1
        inbox.put("d")
        inbox.end("E")
        return await inbox.take()

    assert asyncio.run(run()) == ["d", "E"]


def test_without_a_time_nothing_is_held_back():
    async def run():
        inbox = Inbox()
        for item in "ab":
            inbox.put(item)
            assert await inbox.take() == [item]
        taking = asyncio.ensure_future(inbox.take())
        await asyncio.sleep(0)
        inbox.put("c")
        return await taking

    assert asyncio.run(run()) == ["c"]


def test_who_stops_waiting_takes_nothing_away():
    async def run():
        inbox = Inbox()
        taking = asyncio.ensure_future(inbox.take())
        await asyncio.sleep(0)
        taking.cancel()
        inbox.put("a")
        await asyncio.sleep(0)
        inbox.put("b")
        return await inbox.take()

    assert asyncio.run(run()) == ["a", "b"]
