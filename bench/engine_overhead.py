"""What the engine does around its compiled step: the time of the step itself, and of everything else to the next one.

Every stream decodes all the time. The call into compiled code (ids in, sampled ids out) is clocked from within; what
lies between two calls is Python: scheduling, events, and what drives the engine. The engine is driven
  inline         `step()` in a loop;
  EngineThread   by its thread, events to a callback;
  LocalSampler   by coroutines that wait for whole completions (text parsed in the end);
  streaming      by coroutines that receive text as it comes.
All of them in turn, several rounds, each in a thread that ends: OpenMP keeps a team for each thread that has computed,
and with more of them than cores its workers go to sleep between steps. The control tokens of the format are kept away
by a bias, so that no request ends early.

    python bench/engine_overhead.py
    python bench/engine_overhead.py --streams 1 --new 64 --rounds 1
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from common import environment, options, parse, random_ids, random_model, save, spread, table

from ponder.dialogue import PonderFormat
from ponder.engine import FinishEvent
from ponder.engine.driver import EngineThread
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Request
from ponder.testing.tiny import ByteTokenizer
from ponder.types import Phase, SamplingParams

Prompts = Sequence[Sequence[int]]
TARGETS = {1: 100.0, 64: 25.0 * 64}  # microseconds around a step, driven inline


class Clock:
    """Stands before the compiled library: when each step's call began, ended, and how many rows it had."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.calls: list[tuple[float, float, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def ponder_run(self, *arguments: Any) -> int:
        began = time.perf_counter()
        failed = self._library.ponder_run(*arguments)
        self.calls.append((began, time.perf_counter(), arguments[4]))
        return failed


def inline(sampler: LocalSampler, prompts: Prompts, params: SamplingParams) -> None:
    for prompt in prompts:
        sampler.engine.submit(prompt, params)
    while sampler.engine.has_work:
        sampler.engine.step()


def threaded(sampler: LocalSampler, prompts: Prompts, params: SamplingParams) -> None:
    engine, left, done = sampler.engine, [len(prompts)], threading.Event()

    def on_events(events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, FinishEvent):
                left[0] -= 1
        if not left[0]:
            done.set()

    def submit() -> None:
        for prompt in prompts:
            engine.submit(prompt, params)

    driver = EngineThread(engine, on_events, lambda error: done.set())
    driver.call(submit).result()
    done.wait()
    driver.close()
    driver.join()


def completed(sampler: LocalSampler, prompts: Prompts, params: SamplingParams) -> None:
    async def run() -> None:
        requests = [Request(prompt=tuple(prompt), params=params, start=Phase.ANSWER) for prompt in prompts]
        await asyncio.gather(*(sampler.sample(request) for request in requests))

    asyncio.run(run())


def streamed(sampler: LocalSampler, prompts: Prompts, params: SamplingParams) -> None:
    async def follow(request: Request) -> None:
        async for _ in sampler.stream(request):
            pass

    async def run() -> None:
        requests = [Request(prompt=tuple(prompt), params=params, start=Phase.ANSWER) for prompt in prompts]
        await asyncio.gather(*(follow(request) for request in requests))

    asyncio.run(run())


WAYS: dict[str, Callable[[LocalSampler, Prompts, SamplingParams], None]] = {
    "inline": inline,
    "EngineThread": threaded,
    "LocalSampler": completed,
    "streaming": streamed,
}


def figures(clock: Clock, streams: int) -> dict[str, float]:
    """Medians in microseconds, of neighbouring steps in which every stream decodes."""
    calls, clock.calls = clock.calls, []
    both = [(a, b) for a, b in pairwise(calls) if a[2] == b[2] == streams]
    return {
        "kernel": 1e6 * statistics.median(end - began for _, (began, end, _) in both),
        "around": 1e6 * statistics.median(b[0] - a[1] for a, b in both),
        "step": 1e6 * statistics.median(b[1] - a[1] for a, b in both),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    tokenizer = ByteTokenizer(vocab_size=args.vocab)
    model = random_model(args.shape, args.vocab, args.prompt + args.new, torch.bfloat16)
    sampler = LocalSampler(model, tokenizer, PonderFormat(tokenizer), max_batch=max(args.streams))
    if sampler.engine.kernel.kernel == "torch":
        raise SystemExit(f"the fused step does not run here: {sampler.engine.kernel.reason}")
    pages: Any = sampler.engine._runner.pages
    clock = pages._library = Clock(pages._library)
    away = tuple((id, -1e9) for id in tokenizer.control.values())
    params = SamplingParams(max_tokens=args.new, seed=0, logit_bias=away)
    result: dict[int, dict[str, list[dict[str, float]]]] = {}
    for streams in args.streams:
        result[streams] = {way: [] for way in WAYS}
        for number in range(1 + args.rounds):  # the first warms up
            generator = torch.Generator().manual_seed(number)
            for way, run in WAYS.items():
                prompts = [random_ids(args.prompt, 200, generator) for _ in range(streams)]
                thread = threading.Thread(target=run, args=(sampler, prompts, params))
                thread.start()
                thread.join()
                sampler._driver.join()
                if number:
                    result[streams][way].append(figures(clock, streams))
                clock.calls = []
        print(f"{streams} streams done")
    return {
        "arguments": vars(args),
        **environment(),
        "kernel": sampler.engine.kernel.kernel,
        "microseconds": result,
    }


def report(result: dict[str, Any], args: argparse.Namespace) -> str:
    rows = []
    for streams, ways in result["microseconds"].items():
        for way, rounds in ways.items():
            kernel, around, step = ([each[name] for each in rounds] for name in ("kernel", "around", "step"))
            own = statistics.median(around)
            share = own / statistics.median(step)
            rate = 1e6 * streams / statistics.median(step)
            target = f"{TARGETS[streams] / streams:.0f}" if way == "inline" and streams in TARGETS else ""
            cells = [str(streams), way, spread(kernel), spread(step), spread(around), f"{own / streams:.1f}", target]
            rows.append([*cells, f"{share:.0%}", f"{rate:,.0f}"])
    head = ["streams", "driven", "compiled call, µs", "step, µs", "around it, µs", "per token, µs", "at most"]
    return (
        f"Decoding, {args.shape}, vocabulary {args.vocab}, bfloat16 ({result['kernel']}), prompts of {args.prompt} "
        f"tokens, {args.new} new ones each, temperature 1, {result['threads']} threads, {args.rounds} rounds, medians "
        "(ranges). The compiled call samples too.\n\n"
        f"{table([*head, 'share of the step', 'tokens/s'], rows)}"
    )


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=200, help="tokens of each stream")
    args = parse(parser)
    result = measure(args)
    save("engine_overhead", result, report(result, args))


if __name__ == "__main__":
    main()
