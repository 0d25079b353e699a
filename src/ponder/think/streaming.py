"""A run of a strategy, read event by event or piece by piece from synchronous code."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from ponder.sampler.protocol import Delta
from ponder.think.events import Answer, Answered, Event, Started, as_pieces

Run = Callable[[], AsyncGenerator[Event, None]]


class EventStream(Iterator[Event]):
    """Iterates over the events of a run; `answer` is there once they are exhausted. Closing it (or leaving `with`)
    aborts the run.

    The work runs in a thread with its own event loop, so that the caller may be inside a running loop.
    """

    def __init__(self, run: Run, on_answer: Callable[[Answer], None] | None = None) -> None:
        self._events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        self._run = run
        self._on_answer = on_answer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._answer: Answer | None = None
        self._over = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ponder-stream", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            asyncio.run(self._main())
            self._events.put(None)
        except BaseException as error:  # handed over whole to the thread that reads
            self._events.put(error)
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        async with aclosing(self._run()) as events:
            async for event in events:
                self._events.put(event)

    def __next__(self) -> Event:
        if self._over:
            raise StopIteration
        event = self._events.get()
        if event is None or isinstance(event, BaseException):
            self._over = True
            self._thread.join()
            if event is not None:
                raise event
            raise StopIteration
        if isinstance(event, Answered):
            self._answer = event.answer
            if self._on_answer is not None:
                self._on_answer(event.answer)
        return event

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

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AnswerStream(Iterator[Delta]):
    """Iterates over the text of the answer; then read `.answer`. Where a strategy has to choose, the text comes at the
    end. Closing it (or leaving `with`) aborts the run."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._pieces = answer_text(events)

    def __next__(self) -> Delta:
        return next(self._pieces)

    @property
    def answer(self) -> Answer:
        """See `EventStream.answer`."""
        return self._events.answer

    def close(self) -> None:
        """Abort what still runs."""
        self._events.close()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answer_text(events: Iterator[Event]) -> Iterator[Delta]:
    """The pieces of text of a run's first choice, live where it is known beforehand which sample that is."""
    first: int | None = None
    for event in events:
        if isinstance(event, Started) and event.choice == 0:
            first = event.sample
        elif isinstance(event, Delta) and event.index == first:
            yield event
        elif isinstance(event, Answered) and first is None:
            yield from (piece for piece in as_pieces(event.answer) if isinstance(piece, Delta))
