"""Pieces of a stream, gathered over a short time and joined: each that reaches the caller wakes it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from ponder.sampler.protocol import CallDelta, Delta, Done, Streamed
from ponder.sampler.threads import Mailbox


def joined(batch: Sequence[Streamed]) -> list[Streamed]:
    """Neighbouring texts of one phase, and arguments of one call, of one completion as one piece. A state stays one."""
    items: list[Streamed] = []
    for item in batch:
        last = items[-1] if items else None
        if type(item) is Delta and type(last) is Delta and _of_one_text(last, item):
            text, tokens = last.text + item.text, (*last.tokens, *item.tokens)
            pieces = last.pieces + item.pieces
            items[-1] = replace(last, text=text, tokens=tokens, pieces=pieces)
        elif type(item) is CallDelta and type(last) is CallDelta and (last.index, last.call) == (item.index, item.call):
            items[-1] = CallDelta(item.index, item.call, last.name, last.arguments + item.arguments, last.id)
        else:
            items.append(item)
    return items


def _of_one_text(last: Delta, next: Delta) -> bool:
    if last.state or next.state or last.voice != next.voice:
        return False
    return last.index == next.index and last.phase is next.phase and last.refusal is next.refusal


async def gathered(stream: AsyncGenerator[Streamed, None], seconds: float) -> AsyncGenerator[Streamed, None]:
    """A stream whose pieces come joined: the first at once, each later one at most `seconds` after it came, a Done at
    once. An error of the stream follows what came before it. 0 seconds: the stream as it is."""
    if not seconds:
        async with aclosing(stream) as items:
            async for item in items:
                yield item
        return
    mailbox: Mailbox[Streamed | None] = Mailbox(seconds)

    async def gather() -> None:
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    (mailbox.end if isinstance(item, Done) else mailbox.put)(item)
        finally:
            mailbox.end(None)

    gathering = asyncio.ensure_future(gather())
    try:
        over = False
        while not over:
            batch = await mailbox.take()
            over = batch[-1] is None
            for piece in joined([item for item in batch if item is not None]):
                yield piece
        await gathering  # raises what it raised
    finally:
        gathering.cancel()
        await asyncio.wait([gathering])
        if not gathering.cancelled():
            gathering.exception()  # retrieved, so that asyncio does not report it
