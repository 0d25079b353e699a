"""Items for a coroutine, gathered over a short time."""

import asyncio

import pytest

from ponder.sampler.threads import Mailbox


def test_the_first_item_comes_at_once_and_later_ones_together():
    async def run():
        mailbox = Mailbox(seconds=0.01)
        mailbox.put("a")
        assert await mailbox.take() == ["a"]
        mailbox.put("b")
        mailbox.put("c")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(taking := asyncio.ensure_future(mailbox.take())), 0)
        mailbox.put("d")
        return await taking

    assert asyncio.run(run()) == ["b", "c", "d"]


def test_an_end_brings_at_once_what_waits_before_it():
    async def run():
        mailbox = Mailbox(seconds=3600.0)
        mailbox.put("a")
        mailbox.put("b")
        mailbox.end("C")
        assert await mailbox.take() == ["a", "b", "C"]
        assert mailbox.ends == 1
        mailbox.put("d")
        mailbox.end("E")
        return await mailbox.take()

    assert asyncio.run(run()) == ["d", "E"]


def test_without_a_time_nothing_is_held_back():
    async def run():
        mailbox = Mailbox()
        for item in "ab":
            mailbox.put(item)
            assert await mailbox.take() == [item]
        taking = asyncio.ensure_future(mailbox.take())
        await asyncio.sleep(0)
        mailbox.put("c")
        return await taking

    assert asyncio.run(run()) == ["c"]


def test_who_stops_waiting_takes_nothing_away():
    async def run():
        mailbox = Mailbox()
        taking = asyncio.ensure_future(mailbox.take())
        await asyncio.sleep(0)
        taking.cancel()
        mailbox.put("a")
        await asyncio.sleep(0)
        mailbox.put("b")
        return await mailbox.take()

    assert asyncio.run(run()) == ["a", "b"]
