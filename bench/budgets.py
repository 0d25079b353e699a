"""Random budgets for random strategies, nested up to three deep: what was spent beyond them, and how far the bill is
from the back end's own count. `python bench/budgets.py -n 10000` runs the scripted fake, an endpoint and the engine.

A third of the runs is cancelled at a random event. Over an endpoint a stream that is closed early has said words that
were never read, so there the difference of those runs is shown apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from ponder.dialogue.messages import Message
from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.protocol import Delivery, Request, Sampler, Streamed
from ponder.tasks.protocol import Grade
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Ledger, events_of, parse_strategy
from ponder.think.events import Answered, Cut, Event, Started, Stopped, bill
from ponder.think.ledger import TooDeep
from ponder.think.tree import SearchMethod
from ponder.types import Budget, SamplerError, Usage

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Backend:
    """counted: its own count of tokens so far. busy: whether it still works on something. lengths: of answers asked."""

    sampler: Sampler
    counted: Callable[[], Usage]
    busy: Callable[[], bool] = lambda: False
    lengths: tuple[int | None, ...] = (None, 12)


class Counted:
    """A sampler that counts the calls that begin."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.begun = sampler, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    async def stream(self, request: Request, delivery: Delivery) -> AsyncGenerator[Streamed, None]:
        self.begun += 1
        async with aclosing(self.sampler.stream(request, delivery)) as events:
            async for event in events:
                yield event


PLAN = [
    {"name": "a", "task": "Say something."},
    {"name": "b", "task": "Say a number.", "expects": "number"},
    {"name": "c", "task": "Say more than {a} and {b}."},
]


def lines(rng: Random) -> Callable[[Sequence[Message], int], Say]:
    def line(conversation: Sequence[Message], index: int) -> Say:
        if "JSON" in conversation[-1].text and rng.random() < 0.8:
            return Say(json.dumps(PLAN[: rng.randint(1, 3)]).replace(" ", ""), seconds=rng.choice((0, 0.002)))
        thought = " ".join(["hm"] * rng.randrange(12))
        return Say(" ".join([str(rng.randrange(4))] * rng.randrange(4)), thought, seconds=rng.choice((0, 0, 0.002)))

    return line


@contextmanager
def scripted(rng: Random) -> Iterator[Backend]:
    sampler = ScriptedSampler(lines(rng))
    yield Backend(sampler, lambda: sampler.counted)


@contextmanager
def endpoint(rng: Random) -> Iterator[Backend]:
    with StubEndpoint(lines(rng), dialect="vllm") as stub:
        yield Backend(
            EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0), lambda: stub.counted, stub.is_busy
        )


@contextmanager
def engine(rng: Random) -> Iterator[Backend]:
    """Every sequence that the engine ends counts, however it ended."""
    sampler, spent = tiny_sampler(max_positions=2048), [Usage()]
    finish = sampler.engine._finish

    def counting(sequence, reason):  # type: ignore[no-untyped-def]
        event = finish(sequence, reason)
        spent[0] += Usage(0, event.usage.completion_tokens, event.usage.reasoning_tokens)
        return event

    sampler.engine._finish = counting  # type: ignore[method-assign]
    yield Backend(sampler, lambda: spent[0], lengths=(4, 12))
    asyncio.run(sampler.close())


BACKENDS = {"scripted": scripted, "endpoint": endpoint, "engine": engine}


def draw_strategy(rng: Random, levels: int, has_tokens: bool) -> str:
    inner = draw_strategy(rng, levels - 1, has_tokens) if levels > 1 and rng.random() < 0.7 else ""
    first = f"{inner}, " if inner else ""
    most = 8 if levels == 1 else 4
    kinds = (
        "direct",
        f"consensus({first}samples={rng.randint(1, most)})",
        f"consensus({first}samples={rng.randint(1, most)}, until='all')",
        f"consensus({first}samples={rng.randint(1, most)}, until='settled', at_once=2)",
        f"consensus({first}samples={rng.randint(1, most)}, weight='verifier')",
        f"best_of({first}samples={rng.randint(1, most)}, by='verifier')",
        f"refine({first}samples={rng.randint(2, most)})",
        f"approaches({first}ways={rng.randint(2, most)})",
        f"council({first}how='turns', voices={rng.randint(2, 3)}, rounds={rng.randint(1, 2)})",
        f"delegate({first}steps={rng.randint(1, 3)}, replans={rng.randint(0, 2)}, at_once={rng.randint(1, 3)})",
    )
    if has_tokens and not inner:
        method = rng.choice(list(SearchMethod))
        sizes = [rng.randint(1, 3) for _ in range(3)]
        kinds += ("search(method='{}', width={}, branch={}, depth={})".format(method, *sizes),)
    return rng.choice(kinds[bool(inner) :])


def draw_budget(rng: Random) -> Budget:
    return Budget(
        tokens=rng.choice((None, rng.randint(1, 20), rng.randint(1, 400))),
        samples=rng.choice((None, rng.randint(1, 12))),
        depth=rng.choice((None, 1, 2, 3)),
        seconds=rng.choice((None, None, None, rng.uniform(0.005, 0.1))),
    )


CUT_SHORT = (Cut.CANCELLED, Cut.DECIDED, Cut.SECONDS)


def verifier(answer: str) -> Grade:
    return Grade(score=0.25 * len(answer.split()), usage=Usage(prompt_tokens=len(answer)))


@dataclass
class Trial:
    """What one run did.

    over_…: beyond its budget. late: seconds past it.
    quiet: seconds from a cancel to the end of everything that it had begun.
    """

    strategy: str
    budget: Budget
    killed: bool = False
    refused: bool = False
    cancelled: bool = False
    over_tokens: int = 0
    over_samples: int = 0
    over_depth: int = 0
    late: float = 0.0
    after_cancel: int = 0
    quiet: float = 0.0
    bill_off: int = 0
    events: list[Event] = field(default_factory=list, repr=False)


async def trial(backend: Backend, rng: Random) -> Trial:
    text, budget = draw_strategy(rng, 3, backend.sampler.capabilities.tokenizer is not None), draw_budget(rng)
    made = Trial(text, budget)
    cancel_at = rng.randrange(30) if rng.random() < 1 / 3 else None
    calls, at_cancel, cancel_time = Counted(backend.sampler), 0, None
    ask = Ask.of(
        "What is 6 times 7?", verifier=verifier, max_tokens=rng.choice(backend.lengths), seed=rng.randrange(99)
    )
    before, began = backend.counted(), time.monotonic()

    async def run() -> None:
        nonlocal at_cancel, cancel_time
        events = events_of(parse_strategy(text), ask, calls, Ledger(budget))
        try:
            async for event in events:
                made.events.append(event)
                if len(made.events) - 1 == cancel_at:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    at_cancel, cancel_time = calls.begun, time.monotonic()
        finally:
            await events.aclose()

    try:
        await asyncio.ensure_future(run())
    except TooDeep:
        made.refused = True
    except (asyncio.CancelledError, SamplerError):
        made.cancelled = True
    if budget.seconds is not None:
        made.late = max(0.0, time.monotonic() - began - budget.seconds)
    if cancel_time is not None:
        made.quiet = time.monotonic() - cancel_time
    while backend.busy():
        await asyncio.sleep(0.001)
    _judge(made, backend, before)
    if any(isinstance(event, Stopped) and event.cut is Cut.CANCELLED for event in made.events):
        made.after_cancel = calls.begun - at_cancel
    return made


def _judge(made: Trial, backend: Backend, before: Usage) -> None:
    events, budget = made.events, made.budget
    spent, now = bill(event for event in events if not isinstance(event, Answered)), backend.counted()
    counted = now.completion_tokens - before.completion_tokens
    started = [event for event in events if isinstance(event, Started)]
    made.killed = any(event.cut in CUT_SHORT for event in events if isinstance(event, Stopped))
    made.over_tokens = 0 if budget.tokens is None else max(0, counted - budget.tokens)
    made.over_samples = 0 if budget.samples is None else max(0, len(started) - budget.samples)
    deepest = max((event.strategy.count("/") + 1 for event in started), default=0)
    made.over_depth = 0 if budget.depth is None else max(0, deepest - budget.depth)
    made.bill_off = spent.completion_tokens - counted


def run(name: str, n: int, seed: int) -> list[Trial]:
    rng = Random(f"{name} {seed}")

    async def all_of_them(backend: Backend) -> list[Trial]:
        return [await trial(backend, rng) for _ in range(n)]

    with BACKENDS[name](rng) as backend:
        return asyncio.run(all_of_them(backend))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=10_000, help="budgets for each back end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS), choices=list(BACKENDS))
    args = parser.parse_args()
    results = RESULTS / "budgets.json"
    rows = json.loads(results.read_text()) if results.exists() else {}
    print(f"{args.n} random budgets for each back end, seed {args.seed}\n")
    print("| back end | refused as too deep | killed | over: tokens | samples | depth | most seconds late | seconds "
          "from a cancel to quiet, median | most | calls begun after a cancel | bill - count: read to the end | "
          "killed |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in args.backends:
        trials = run(name, args.n, args.seed)
        whole = [each.bill_off for each in trials if not each.killed]
        killed = [each.bill_off for each in trials if each.killed]
        quiet = [each.quiet for each in trials if each.quiet]
        row = {
            "refused": sum(each.refused for each in trials),
            "killed": len(killed),
            "over_tokens": sum(each.over_tokens for each in trials),
            "over_samples": sum(each.over_samples for each in trials),
            "over_depth": sum(each.over_depth for each in trials),
            "late": round(max(each.late for each in trials), 3),
            "quiet_median": round(median(quiet), 4) if quiet else None,
            "quiet_most": round(max(quiet), 4) if quiet else None,
            "after_cancel": sum(each.after_cancel for each in trials),
            "bill_off": sum(map(abs, whole)),
            "bill_off_killed": sum(map(abs, killed)),
        }
        print(f"| {name} | " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
        rows[name] = {"n": args.n, "seed": args.seed, **row}
        results.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
