"""One thread drives an engine: order, errors, idleness, and fairness between the engines of a process."""

import gc
import threading
import time
import weakref
from functools import partial

import pytest

from ponder.engine import COMPUTE_LOCK, FinishEvent
from ponder.engine.driver import EngineThread, check_lock
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams


class FakeEngine:
    """Has work for `work` steps, each of which takes `seconds` and notes its name in `log`."""

    def __init__(self, name="engine", log=None, seconds=0.0):
        self.name, self.seconds = name, seconds
        self.log = [] if log is None else log
        self.work = 0
        self.error = None

    @property
    def has_work(self):
        return self.work > 0

    def step(self):
        assert COMPUTE_LOCK._is_owned()
        if self.error is not None:
            raise self.error
        time.sleep(self.seconds)
        self.work -= 1
        self.log.append(self.name)
        return [self.name]


def driven(engine, on_events=lambda events: None, on_error=None, **options):
    def fail(error):
        raise error

    return EngineThread(engine, on_events, on_error or fail, **options)


def busy(engine, steps):
    def command():
        engine.work = steps

    return command


def until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.001)


def test_commands_run_in_their_order_on_one_thread_that_holds_the_lock():
    seen = []
    thread = driven(FakeEngine())
    for index in range(100):
        thread.post(lambda index=index: seen.append((index, threading.get_ident(), COMPUTE_LOCK._is_owned())))
    assert thread.call(lambda: "the last").result(5) == "the last"
    assert [index for index, _, _ in seen] == list(range(100))
    ((ident, owned),) = {(ident, owned) for _, ident, owned in seen}
    assert ident != threading.get_ident()
    assert owned


def test_what_a_command_raises_reaches_who_called_it():
    with pytest.raises(InvalidRequest, match="no"):
        driven(FakeEngine()).call(lambda: (_ for _ in ()).throw(InvalidRequest("no"))).result(5)


def test_a_call_that_is_cancelled_before_its_turn_does_not_run_and_fails_nothing():
    errors, ran = [], []
    engine = FakeEngine()
    thread = driven(engine, on_error=errors.append)
    with COMPUTE_LOCK:
        first = thread.call(lambda: ran.append("first"))
        assert thread.call(lambda: ran.append("second")).cancel()
    thread.call(lambda: None).result(30)
    assert first.done()
    assert ran == ["first"]
    assert not errors


def test_events_come_before_the_next_step():
    engine, log = FakeEngine(), []
    engine.log = log
    thread = driven(engine, lambda events: log.append(("told of", *events)))
    thread.post(busy(engine, 3))
    until(lambda: len(log) == 6)
    assert log == ["engine", ("told of", "engine")] * 3


def test_a_command_runs_after_the_step_under_way_and_posting_it_does_not_wait():
    engine = FakeEngine(seconds=0.2)
    thread = driven(engine)
    thread.call(busy(engine, 10)).result(5)
    until(lambda: len(engine.log) == 1)
    began = time.monotonic()
    stopped = thread.call(busy(engine, 0))
    assert time.monotonic() - began < 0.1
    stopped.result(5)
    assert len(engine.log) <= 3


# The thread's life -------------------------------------------------------------------------------------------------


def test_an_idle_thread_ends_and_the_next_command_starts_another():
    thread = driven(FakeEngine(), idle_seconds=0.05)
    assert not thread.running
    first = thread.call(threading.get_ident).result(5)
    assert thread.running
    until(lambda: not thread.running)
    until(lambda: first not in {each.ident for each in threading.enumerate()})
    assert thread.call(lambda: "again").result(5) == "again"


def test_no_command_is_lost_or_run_twice_while_the_thread_keeps_ending():
    thread = driven(FakeEngine(), idle_seconds=0.0)
    seen, starts = [], set()

    def post(worker):
        for index in range(200):
            thread.post(lambda index=index: (seen.append((worker, index)), starts.add(threading.current_thread())))
            time.sleep(0.0005 * (index % 3))

    workers = [threading.Thread(target=post, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    until(lambda: len(seen) == 800)
    assert [each for each in seen if each[0] == 2] == [(2, index) for index in range(200)]
    assert len(starts) > 1, "the thread never ended, so nothing was tested"


def test_an_engine_that_is_dropped_leaves_no_thread_behind(kernel):
    engine = kernel.engine(kernel.tiny_model(), PhaseTokens())
    thread = driven(engine, idle_seconds=0.05)
    thread.call(partial(engine.submit, [1, 2], SamplingParams(max_tokens=5))).result(5)
    assert thread.running
    dropped = weakref.ref(engine)
    del thread, engine

    def gone():
        time.sleep(0.2)  # collecting a large heap holds the interpreter, which the thread needs to come to its end
        return gc.collect() >= 0 and dropped() is None

    until(gone)


def test_closing_ends_the_thread_and_the_engine_is_not_stepped_again():
    engine = FakeEngine(seconds=0.01)
    thread = driven(engine)
    thread.call(busy(engine, 10_000)).result(5)
    thread.close()
    assert thread.join(5)
    steps = len(engine.log)
    assert thread.call(lambda: "still answered").result(5) == "still answered"
    assert thread.join(5)
    assert len(engine.log) == steps


# Errors ------------------------------------------------------------------------------------------------------------


def test_a_step_that_fails_is_reported_once_and_the_thread_goes_on():
    engine, errors, told = FakeEngine(), [], []
    thread = driven(engine, told.append, errors.append)
    engine.error = MemoryError("no room")
    thread.call(busy(engine, 3)).result(5)
    time.sleep(0.05)
    assert [str(error) for error in errors] == ["no room"], "it rests until the next command, and does not spin"
    engine.error = None
    thread.call(busy(engine, 2)).result(5)
    until(lambda: len(told) == 2)


def test_a_callback_that_fails_is_reported_like_a_step():
    engine, errors = FakeEngine(), []
    thread = driven(engine, lambda events: 1 / 0, errors.append)
    thread.call(busy(engine, 1)).result(5)
    until(lambda: errors)
    assert isinstance(errors[0], ZeroDivisionError)
    assert thread.call(lambda: 1).result(5) == 1


def test_an_error_in_the_handler_of_errors_ends_the_thread_but_not_the_service(monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda details: reported.append(str(details.exc_value)))
    engine = FakeEngine()
    thread = driven(engine)
    engine.error = MemoryError("no room")
    thread.post(busy(engine, 1))
    until(lambda: reported == ["no room"])
    assert not thread.running
    engine.error = None
    assert thread.call(lambda: 1).result(5) == 1


# Several engines, several threads ----------------------------------------------------------------------------------


def test_two_busy_engines_take_turns():
    log = []
    engines = [FakeEngine("a", log, 0.001), FakeEngine("b", log, 0.001)]
    threads = [driven(engine) for engine in engines]
    for thread, engine in zip(threads, engines, strict=True):
        thread.post(busy(engine, 150))
    until(lambda: len(log) == 300)
    both = log[min(log.index("a"), log.index("b")) + 10 : 250]
    longest = max(len(run) for name in "ab" for run in "".join(both).split(name))
    assert longest <= 2, "".join(both)


def test_the_weights_change_between_two_steps_of_a_driven_engine(kernel):
    engine = kernel.engine(kernel.tiny_model(), PhaseTokens())
    finished = []
    thread = driven(engine, lambda events: finished.extend(e for e in events if isinstance(e, FinishEvent)))
    with engine.update_weights():
        submitted = thread.call(lambda: engine.submit([1, 2], SamplingParams(max_tokens=5)))
        time.sleep(0.05)
        assert not submitted.done(), "the engine thread waits for the lock"
    submitted.result(5)
    until(lambda: finished)
    assert finished[0].segment.weights_version == 1


def test_who_holds_the_lock_is_told_not_to_wait_for_the_engine_thread():
    check_lock()
    with COMPUTE_LOCK, pytest.raises(InvalidRequest, match="inside update_weights"):
        check_lock()
