"""An answer that is read piece by piece from synchronous code."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from ponder.sampler.protocol import Delta
from ponder.types import Answer

Work = Callable[[Callable[[Delta], None]], Coroutine[Any, Any, Answer]]


class AnswerStream(Iterator[Delta]):
    """Iterates over `Delta`s; `answer` is there once they are exhausted. Closing it (or leaving `with`) aborts it.

    The work runs in a thread with an event loop of its own, so that the caller may be inside a running loop.
    """

    def __init__(self, work: Work, on_answer: Callable[[Answer], None] | None = None) -> None:
        self._pieces: queue.SimpleQueue[Delta | Answer | BaseException] = queue.SimpleQueue()
        self._work = work
        self._on_answer = on_answer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Answer] | None = None
        self._answer: Answer | None = None
        self._over = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ponder-stream", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._pieces.put(asyncio.run(self._main()))
        except BaseException as error:  # handed over whole to the thread that reads
            self._pieces.put(error)
        finally:
            self._ready.set()

    async def _main(self) -> Answer:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        return await self._work(self._pieces.put)

    def __next__(self) -> Delta:
        if self._over:
            raise StopIteration
        piece = self._pieces.get()
        if isinstance(piece, Delta):
            return piece
        self._over = True
        self._thread.join()
        if isinstance(piece, BaseException):
            raise piece
        self._answer = piece
        if self._on_answer is not None:
            self._on_answer(piece)
        raise StopIteration

    @property
    def answer(self) -> Answer:
        """The whole answer, with its usage. Reads what is left of the stream first."""
        for _ in self:
            pass
        if self._answer is None:
            raise RuntimeError("the stream was closed or failed before its answer was there")
        return self._answer

    def close(self) -> None:
        """Abort what still runs."""
        self._over = True
        self._ready.wait()
        if self._loop is not None and self._task is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it ended by itself in between
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
