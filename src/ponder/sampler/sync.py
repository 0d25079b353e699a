"""Running asynchronous work from synchronous code, also inside a running event loop (notebooks, servers)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result. Inside a running loop it runs in a separate thread, while
    the caller's loop waits. An interrupt cancels it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return _run_in_thread(work)


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def main() -> T:
        task = asyncio.ensure_future(work)
        running.set_result((asyncio.get_running_loop(), task))
        return await task

    result: Future[T] = Future()
    context = contextvars.copy_context()

    def target() -> None:
        try:
            result.set_result(context.run(asyncio.run, main()))
        except BaseException as error:  # handed over whole to the thread that waits
            result.set_exception(error)

    thread = threading.Thread(target=target, name="ponder-run-sync")
    thread.start()
    try:
        return result.result()
    except KeyboardInterrupt:
        loop, task = running.result()
        if not result.done():
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()
