"""Pieces of a stream that are gathered: joined, in order, the first and every end at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from ponder.dialogue import Message
from ponder.sampler.delivery import gathered, joined
from ponder.sampler.protocol import CallDelta, Completion, Delta, Done, SampledToken, Streamed
from ponder.types import Phase, StopReason, Usage

END = Completion(message=Message.assistant("ab"), stop_reason=StopReason.END, usage=Usage())


def test_neighbours_of_one_phase_or_one_call_are_joined() -> None:
    first, second = SampledToken(1, -0.5), SampledToken(2, -0.25)
    batch = [
        Delta(0, Phase.THINK, "t"),
        Delta(0, Phase.ANSWER, "a", (first,)),
        Delta(0, Phase.ANSWER, "b", (second,)),
        Delta(1, Phase.ANSWER, "c"),
        CallDelta(0, 0, "f", "{", "call_1"),
        CallDelta(0, 0, None, "}"),
        CallDelta(0, 1, "f", ""),
        Done(0, END),
    ]
    assert joined(batch) == [
        batch[0],
        Delta(0, Phase.ANSWER, "ab", (first, second)),
        batch[3],
        CallDelta(0, 0, "f", "{}", "call_1"),
        *batch[6:],
    ]


async def stream(*items: Streamed | float | Exception) -> AsyncGenerator[Streamed, None]:
    """The items as they come; a number waits, an error is raised."""
    for item in items:
        if isinstance(item, Exception):
            raise item
        if isinstance(item, float):
            await asyncio.sleep(item)
        else:
            yield item


def texts(*items: Streamed | float | Exception, seconds: float) -> list[str]:
    async def run() -> list[str]:
        pieces = [piece async for piece in gathered(stream(*items), seconds)]
        return [piece.text if isinstance(piece, Delta) else "end" for piece in pieces]

    return asyncio.run(run())


def test_the_first_piece_comes_at_once_and_later_ones_together() -> None:
    a, b, c = (Delta(0, Phase.ANSWER, text) for text in "abc")
    assert texts(a, 0.01, b, c, Done(0, END), seconds=60.0) == ["a", "bc", "end"]
    assert texts(a, 0.01, b, 0.2, c, 0.2, seconds=0.01) == ["a", "b", "c"]
    assert texts(a, b, c, seconds=0.0) == ["a", "b", "c"]


def test_an_error_follows_what_came_before_it() -> None:
    async def run() -> None:
        pieces = gathered(stream(Delta(0, Phase.ANSWER, "a"), ValueError("broken")), 60.0)
        assert await anext(pieces) == Delta(0, Phase.ANSWER, "a")
        with pytest.raises(ValueError, match="broken"):
            await anext(pieces)

    asyncio.run(run())


def test_closing_it_closes_the_stream() -> None:
    async def run() -> None:
        source = stream(Delta(0, Phase.ANSWER, "a"), 60.0)
        pieces = gathered(source, 60.0)
        assert await anext(pieces) == Delta(0, Phase.ANSWER, "a")
        await pieces.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(source)

    asyncio.run(run())
