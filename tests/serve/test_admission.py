"""The queue: who begins, who waits, who is refused; nothing is lost when a request is given up at any moment."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from ponder.serve.admission import Admission, Bound
from ponder.serve.errors import DeadlinePassed, QueueFull, ServeError, ShuttingDown


async def no_tokens() -> int:
    return 0


def counted(tokens: int) -> Callable:
    async def count() -> int:
        return tokens

    return count


class Crowd:
    """Requests by name, each in a task that holds its place until it is told to leave."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.began: list[str] = []
        self.refused: dict[str, type[ServeError]] = {}
        self._leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, *, tokens: int = 0, sequences: int = 1, deadline: float | None = None) -> None:
        """The owner is the name's first letter."""
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, tokens, sequences, deadline))
        await settle()

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await settle()

    async def end(self) -> None:
        for leave in self._leave.values():
            leave.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _hold(self, name: str, tokens: int, sequences: int, deadline: float | None) -> None:
        try:
            async with self.admission.admit(name[0], counted(tokens), sequences, deadline):
                self.began.append(name)
                await self._leave[name].wait()
        except ServeError as error:
            self.refused[name] = type(error)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def admission(running: int = 1, requests: int = 100, tokens: int = 1000) -> Admission:
    return Admission(running=running, queued_requests=requests, queued_tokens=tokens)


def is_empty(queue: Admission) -> bool:
    return queue.idle and not queue.waiting_tokens and queue._free == queue._running and not queue._lines


def test_exactly_what_runs_and_what_the_queue_holds_is_let_in() -> None:
    async def run() -> None:
        crowd = Crowd(admission(running=3, requests=5))
        for number in range(80):
            await crowd.ask(f"a{number}")
        assert (crowd.admission.num_running, crowd.admission.num_waiting) == (3, 5)
        assert len(crowd.refused) == 72
        assert set(crowd.refused.values()) == {QueueFull}
        assert crowd.admission.refused == {Bound.REQUESTS: 72}
        await crowd.end()
        assert crowd.began == [f"a{number}" for number in range(8)]
        assert is_empty(crowd.admission)

    asyncio.run(run())


def test_the_queue_is_bounded_in_tokens() -> None:
    async def run() -> None:
        crowd = Crowd(admission(tokens=100))
        for name, tokens in (("a0", 500), ("a1", 60), ("a2", 50), ("a3", 40)):
            await crowd.ask(name, tokens=tokens)
        assert crowd.refused == {"a2": QueueFull}
        assert crowd.admission.waiting_tokens == 100
        await crowd.end()
        assert crowd.began == ["a0", "a1", "a3"]
        assert is_empty(crowd.admission)

    asyncio.run(run())


def test_owners_take_turns_however_much_one_asks() -> None:
    async def run() -> None:
        crowd = Crowd(admission())
        for name in ("a0", "a1", "a2", "a3", "b0", "c0"):
            await crowd.ask(name)
        for name in ("a0", "a1", "b0", "c0", "a2"):
            await crowd.leave(name)
        assert crowd.began == ["a0", "a1", "b0", "c0", "a2", "a3"]
        await crowd.end()

    asyncio.run(run())


def test_who_fills_the_queue_gives_up_places_to_others() -> None:
    async def run() -> None:
        crowd = Crowd(admission(requests=4))
        for name in ("a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2"):
            await crowd.ask(name)
        # b0 and b1 take the newest of a's four places; with two each, b2 is refused.
        assert crowd.refused == {"a4": QueueFull, "a3": QueueFull, "b2": QueueFull}
        await crowd.end()
        assert crowd.began == ["a0", "a1", "b0", "a2", "b1"]
        assert is_empty(crowd.admission)

    asyncio.run(run())


def test_who_fills_the_queue_with_tokens_gives_up_places_to_others() -> None:
    async def run() -> None:
        crowd = Crowd(admission(tokens=100))
        for name, tokens in (("a0", 1), ("a1", 50), ("a2", 30), ("a3", 20), ("b0", 30), ("b1", 60)):
            await crowd.ask(name, tokens=tokens)
        assert crowd.refused == {"a2": QueueFull, "a3": QueueFull, "b1": QueueFull}
        assert crowd.admission.waiting_tokens == 80
        await crowd.end()
        assert is_empty(crowd.admission)

    asyncio.run(run())


def test_a_request_of_many_sequences_neither_waits_for_ever_nor_keeps_places_idle() -> None:
    async def run() -> None:
        crowd = Crowd(admission(running=4))
        await crowd.ask("a0")
        await crowd.ask("b0", sequences=9)
        await crowd.ask("c0")
        assert crowd.began == ["a0", "b0"]
        await crowd.leave("a0")
        assert crowd.began == ["a0", "b0"], "its sequences beyond the four wait in the engine: nobody else comes in"
        await crowd.leave("b0")
        assert crowd.began == ["a0", "b0", "c0"]
        await crowd.end()
        assert is_empty(crowd.admission)

    asyncio.run(run())


def test_a_deadline_ends_the_waiting() -> None:
    async def run() -> None:
        crowd = Crowd(admission())
        await crowd.ask("a0")
        await crowd.ask("a1", deadline=time.monotonic() + 0.02)
        await crowd.ask("a2", deadline=time.monotonic() - 1)
        await crowd.tasks["a1"]
        assert crowd.refused == {"a1": DeadlinePassed, "a2": DeadlinePassed}
        await crowd.end()
        assert is_empty(crowd.admission)

    asyncio.run(run())


def test_nobody_new_comes_in_once_it_is_closed_and_who_waits_still_does() -> None:
    async def run() -> None:
        crowd = Crowd(admission())
        await crowd.ask("a0")
        await crowd.ask("a1")
        crowd.admission.close()
        await crowd.ask("a2")
        assert crowd.refused == {"a2": ShuttingDown}
        await crowd.end()
        assert crowd.began == ["a0", "a1"]

    asyncio.run(run())


@pytest.mark.parametrize("steps_between", [0, 1])
def test_a_place_that_comes_with_the_cancellation_goes_to_the_next(steps_between: int) -> None:
    """0: a1 is cancelled, and has not run since, when its turn comes. 1: it has its place, and has not run since."""

    async def run() -> None:
        crowd = Crowd(admission())
        for name in ("a0", "a1", "a2"):
            await crowd.ask(name)
        crowd._leave["a0"].set()
        for _ in range(steps_between):
            await asyncio.sleep(0)
        crowd.tasks["a1"].cancel()
        await settle()
        assert crowd.began == ["a0", "a2"]
        await crowd.end()
        assert is_empty(crowd.admission)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_whoever_gives_up_at_whatever_moment(seed: int) -> None:
    rng = random.Random(seed)

    async def slow(tokens: int) -> int:
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        return tokens

    async def run() -> None:
        queue = admission(running=3, requests=6, tokens=50)

        async def one() -> None:
            sequences = rng.choice([1, 1, 1, 5])
            deadline = rng.choice([None, None, time.monotonic() + rng.random() / 1000])
            try:
                async with queue.admit(rng.choice("abc"), lambda: slow(rng.randrange(30)), sequences, deadline):
                    assert queue.num_running <= 3
                    for _ in range(rng.randrange(6)):
                        await asyncio.sleep(0)
            except ServeError:
                pass

        tasks = []
        for _ in range(400):
            tasks.append(asyncio.create_task(one()))
            if rng.random() < 0.5:
                rng.choice(tasks).cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            assert queue.num_waiting <= 6
            assert queue.waiting_tokens <= 50
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        broken = [each for each in done if isinstance(each, Exception)]
        assert not broken
        assert is_empty(queue)

    asyncio.run(run())
