"""One thread that drives an engine, so that event loops never wait for a step.

Commands come from any thread and run between steps, in the order in which they were posted; events go to a callback
right after their step, before the next one begins.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

from ponder.engine.engine import COMPUTE_LOCK, Engine
from ponder.engine.sequence import Event
from ponder.types import InvalidRequest

T = TypeVar("T")
Command = Callable[[], object]

IDLE_SECONDS = 0.5


class EngineThread:
    """The thread starts with the first command and ends by itself once it has been idle. The next command starts it
    again, so an engine that is not used holds no thread and needs no closing.

    It takes `COMPUTE_LOCK` around the commands and the step of a round, and gives it up between rounds, so that the
    engines of a process take turns.
    """

    def __init__(
        self,
        engine: Engine,
        on_events: Callable[[Sequence[Event]], None],
        on_error: Callable[[BaseException], None],
        *,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """on_events: is given the events of each step.
        on_error: is called when a step, a command or `on_events` failed. It must end what the engine was working on,
            because the engine rests until the next command.

        Both are called on the engine thread, between steps, where the engine may be used.
        """
        self._engine = engine
        self._on_events = on_events
        self._on_error = on_error
        self._idle_seconds = idle_seconds
        self._changed = threading.Condition()  # guards the three below; never held while something runs
        self._commands: deque[Command] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        _LIVING.add(self)

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        with self._changed:
            return self._thread is not None

    @property
    def num_commands(self) -> int:
        """Commands that wait for their turn."""
        with self._changed:
            return len(self._commands)

    def post(self, command: Command) -> None:
        """Have `command` run on the engine thread. Returns at once. After `close` commands run still, steps do not."""
        with self._changed:
            self._commands.append(command)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ponder-engine", daemon=True)
                self._thread.start()
            else:
                self._changed.notify_all()

    def call(self, command: Callable[[], T]) -> Future[T]:
        """`post`, with what the command returns or raises. A result that is cancelled in time is not computed."""
        result: Future[T] = Future()

        def answer() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                result.set_result(command())
            except BaseException as error:  # handed over to the reader of the result
                result.set_exception(error)

        self.post(answer)
        return result

    def close(self) -> None:
        """No further step: the thread ends once the commands posted so far have run. Nothing is aborted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the thread to end. False: it is still there after that many seconds."""
        with self._changed:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)
            return not thread.is_alive()
        return True

    def _run(self) -> None:
        try:
            busy = False
            while (commands := self._next(busy)) is not None:
                with _TURNS, COMPUTE_LOCK:
                    busy = self._round(commands)
        except BaseException:  # `on_error` itself failed; the next command finds no thread and starts one
            with self._changed:
                self._thread = None
            raise

    def _next(self, busy: bool) -> Sequence[Command] | None:
        """What to run before the next step. None: nothing is left, and the thread is no longer counted on."""
        with self._changed:
            if not busy:
                self._changed.wait_for(lambda: self._commands or self._closed, self._idle_seconds)
            if not self._commands and (self._closed or not busy):
                self._thread = None  # the next command starts another
                return None
            commands, self._commands = self._commands, deque()
            return commands

    def _round(self, commands: Sequence[Command]) -> bool:
        """The commands, then one step. True when there is more to do."""
        for command in commands:
            try:
                command()
            except BaseException as error:
                self._on_error(error)
        if self._closed or not self._engine.has_work:
            return False
        try:
            self._on_events(self._engine.step())
        except BaseException as error:
            self._on_error(error)
            return False
        return self._engine.has_work


def check_lock() -> None:
    """Raises InvalidRequest where this thread holds `COMPUTE_LOCK`: it would wait for ever for the engine thread."""
    if COMPUTE_LOCK._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks it
        raise InvalidRequest("this thread is inside update_weights(): leave it before you sample")


class _Turns:
    """A lock that serves its waiters in the order in which they came. With a plain one, the thread that has just let go
    is the first to take it again, and a second model would hardly move."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._held:
                self._held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()  # it is theirs now: `_held` stays
            else:
                self._held = False


_TURNS = _Turns()
_LIVING: weakref.WeakSet[EngineThread] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A thread that is inside torch while the interpreter goes down takes the process with it."""
    living = list(_LIVING)
    for each in living:
        each.close()
    for each in living:
        each.join(10.0)
