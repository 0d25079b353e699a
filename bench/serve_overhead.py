"""What the server costs: streams over HTTP against the bare engine, in one interleaved run on the same weights.

Every round has the same number of streams, all begun at once, with random weights and no end token:
  engine    `submit`, then `step()` in a loop; ids in, ids out.
  sampler   coroutines that receive text, gathered over the server's time, without HTTP.
  server    `ponder serve` in this process, its clients in another (`serve_client.py`), server-sent events.
Shares are of wall time and of processor time; the clients' own processor time is told apart, for they share the cores,
and what warms the next turns once all answers are out is left out.
Then ten times as many requests as the queue holds come on top of full places: how long a refusal takes.

    python bench/serve_overhead.py
    python bench/serve_overhead.py --shape 0.6b --streams 32 --new 32 --rounds 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import torch
from common import environment, options, parse, percentile, random_model, ratio, save, spread, table

import ponder
from ponder.dialogue import Message, PonderFormat
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Delivery, Request
from ponder.serve import Served, Settings, create_app
from ponder.serve.http.server import server
from ponder.tokenizer import Tokenizer
from ponder.types import Phase, SamplingParams, ThinkingLimits

WANTED = {"256x6": 0.60, "0.6b": 0.95}
Cost = dict[str, float]


class Steps:
    """The processor time of `engine.step()`, as its thread spends it. next_turns: of steps that only made next turns
    warm, when all answers were out."""

    def __init__(self, engine: Any) -> None:
        self.seconds = self.next_turns = 0.0
        self._engine, self._step = engine, engine.step
        engine.step = self.step

    def step(self) -> Any:
        idle = not self._engine.num_running and not self._engine.num_waiting
        began = time.thread_time()
        events = self._step()
        spent = time.thread_time() - began
        if idle:
            self.next_turns += spent
        else:
            self.seconds += spent
        return events


class Bench:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.tokenizer = Tokenizer.load(Path(ponder.__file__).parent / "mini")
        format = PonderFormat(self.tokenizer)
        vocab = args.vocab = self.tokenizer.vocab_size  # every id that is sampled is some text
        model = random_model(args.shape, vocab, 2 * args.prompt + 64 + args.new, torch.bfloat16)
        self.sampler = LocalSampler(model, self.tokenizer, format, name="bench", max_batch=args.streams)
        self.away = list(self.tokenizer.control.values())
        self.steps = Steps(self.sampler.engine)
        self.client = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("serve_client.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def requests(self, number: int) -> list[Request]:
        """Those of one round: prompts that no other round has."""
        texts = [
            f"{number} {stream} " + "tell me more. " * (self.args.prompt // 6) for stream in range(self.args.streams)
        ]
        params = SamplingParams(
            max_tokens=self.args.new,
            seed=number,
            thinking=ThinkingLimits(cap=0),
            logit_bias=tuple((id, -100.0) for id in self.away),
        )
        return [Request(prompt=(Message.user(text),), params=params) for text in texts]

    def bodies(self, number: int) -> list[str]:
        """The same requests as HTTP bodies."""
        return [
            json.dumps(
                {
                    "model": "bench",
                    "messages": [{"role": "user", "content": request.prompt[0].text}],
                    "max_completion_tokens": self.args.new,
                    "seed": number,
                    "thinking_token_budget": 0,
                    "logit_bias": dict.fromkeys(self.away, -100),
                    "stream": True,
                    "stream_options": {"include_usage": True},
                }
            )
            for request in self.requests(number)
        ]

    def engine_alone(self, number: int) -> Cost:
        engine = self.sampler.engine
        prompts = [self.sampler._prompt(request) for request in self.requests(number)]
        with self.measured() as cost:
            for prompt, request in zip(prompts, self.requests(number), strict=True):
                engine.submit(prompt.ids, request.params, start=Phase.ANSWER)
            while engine.has_work:
                engine.step()
        return cost

    def sampler_alone(self, number: int) -> Cost:
        async def follow(request: Request) -> None:
            async with aclosing(self.sampler.stream(request, Delivery(gather=self.args.coalesce / 1000))) as items:
                async for _ in items:
                    pass

        async def run() -> None:
            await asyncio.gather(*(follow(request) for request in self.requests(number)))

        with self.measured() as cost:
            asyncio.run(run())
        return cost

    def served(self, number: int, port: int) -> Cost:
        with self.measured() as cost:
            told = self.order(port, self.bodies(number), 0.0)
        answers = told["answers"]
        assert all(answer["tokens"] == self.args.new for answer in answers), answers[:2]
        cost |= {
            "client_cpu": told["cpu"],
            "events": sum(answer["events"] for answer in answers),
            "bytes": sum(answer["bytes"] for answer in answers),
            "first_p50": percentile([answer["first"] for answer in answers], 0.5),
            "first_p99": percentile([answer["first"] for answer in answers], 0.99),
        }
        return cost

    def order(self, port: int, bodies: list[str], gap: float) -> dict[str, Any]:
        assert self.client.stdin
        assert self.client.stdout
        self.client.stdin.write(json.dumps({"port": port, "requests": bodies, "gap": gap}) + "\n")
        self.client.stdin.flush()
        return json.loads(self.client.stdout.readline())

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        cost: Cost = {}
        next_turns = self.sampler.engine.stats.counters.next_turn_tokens
        self.steps.seconds = self.steps.next_turns = 0.0
        began, cpu = time.perf_counter(), time.process_time()
        yield cost
        cost["seconds"] = time.perf_counter() - began
        cost["cpu"] = time.process_time() - cpu - self.steps.next_turns
        cost["next_turns_cpu"] = self.steps.next_turns
        cost["step_cpu"] = self.steps.seconds
        cost["next_turn_tokens"] = self.sampler.engine.stats.counters.next_turn_tokens - next_turns
        cost["tokens"] = self.args.streams * self.args.new

    def refusals(self, port: int) -> dict[str, Any]:
        """Full places, a full queue, and ten times the queue on top, one after the other."""
        bodies = self.bodies(1000)
        full = self.args.streams + self.args.queue
        crowd = (bodies * (1 + 11 * self.args.queue // len(bodies)))[: self.args.queue * 10]
        told = self.order(port, (bodies * 2)[:full] + crowd, self.args.gap)
        refused = [answer["head"] for answer in told["answers"] if answer["status"] == 429]
        return {
            "asked": len(told["answers"]),
            "answered": sum(answer["status"] == 200 for answer in told["answers"]),
            "refused": len(refused),
            "p50": percentile(refused, 0.5) if refused else None,
            "p99": percentile(refused, 0.99) if refused else None,
        }


def in_thread(run: Callable[[], Cost]) -> Cost:
    """OpenMP keeps a team of threads for each thread that has computed: each way has one that ends."""
    out: list[Cost] = []
    thread = threading.Thread(target=lambda: out.append(run()))
    thread.start()
    thread.join()
    return out[0]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(args)
    settings = Settings(port=0, coalesce=args.coalesce, queued_requests=args.queue)
    running = server(create_app([Served(name="bench", sampler=bench.sampler)], settings))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    ways: dict[str, Callable[[int], Cost]] = {
        "engine": lambda number: in_thread(lambda: bench.engine_alone(number)),
        "sampler": lambda number: in_thread(lambda: bench.sampler_alone(number)),
        "server": lambda number: bench.served(number, port),
    }
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    refusals = []
    for number in range(1 + args.rounds):  # the first warms up
        for place, (way, run) in enumerate(ways.items()):
            cost = run(number * len(ways) + place)
            bench.sampler._driver.join()
            if number:
                costs[way].append(cost)
                print(f"round {number}, {way}: {cost['tokens'] / cost['seconds']:,.0f} tokens/s", flush=True)
        if number and args.queue:
            refusals.append(bench.refusals(port))
    bench.client.stdin.close()  # type: ignore[union-attr]
    bench.client.wait()
    running.should_exit = True
    thread.join()
    return {
        "arguments": vars(args),
        **environment(),
        "kernel": bench.sampler.engine.kernel.kernel,
        "costs": costs,
        "refusals": refusals,
    }


def report(result: dict[str, Any], args: argparse.Namespace) -> str:
    rows = []
    rates = {way: [each["tokens"] / each["seconds"] for each in costs] for way, costs in result["costs"].items()}
    work = {way: [each["tokens"] / each["cpu"] for each in costs] for way, costs in result["costs"].items()}
    for way, costs in result["costs"].items():
        outside = [1e6 * (each["cpu"] - each["step_cpu"]) / each["tokens"] for each in costs]
        client = [1e6 * each["client_cpu"] / each["tokens"] for each in costs if "client_cpu" in each]
        row = [
            way,
            spread(rates[way]),
            f"{ratio(rates[way], rates['engine']):.0%}",
            f"{ratio(work[way], work['engine']):.0%}",
            spread(outside, 1),
            spread(client, 1) if client else "",
            f"{statistics.median(each['tokens'] / each['events'] for each in costs):.1f}" if client else "",
        ]
        rows.append(row)
    head = [
        "",
        "tokens/s",
        "of the engine's",
        "by processor time",
        "µs outside `step()` a token",
        "client's",
        "tokens an event",
    ]
    served = result["costs"]["server"]
    first = [[1e3 * each[name] for each in served] for name in ("first_p50", "first_p99")]
    lines = [
        f"{args.streams} streams of {args.new} tokens, prompts of about {args.prompt}, {args.shape}, "
        f"vocabulary {args.vocab}, bfloat16 ({result['kernel']}), text gathered over {args.coalesce:g} ms, "
        f"{result['threads']} threads, load {result['machine']['load']:.1f}, {args.rounds} rounds, medians (ranges):",
        "",
        table(head, rows),
        "",
        f"Wanted of the server: {WANTED.get(args.shape, 0):.0%} of the engine's tokens/s. Time to the first event, all "
        f"begun at once: median {spread(first[0], 0, ' ms')}, 99th percentile {spread(first[1], 0, ' ms')}.",
    ]
    for told in result["refusals"][-1:]:
        lines.append(
            f"Overload, one request every {1e3 * args.gap:g} ms on full places and a queue of {args.queue}: "
            f"{told['asked']} asked, {told['answered']} answered, {told['refused']} refused; a refusal took "
            f"{1e3 * statistics.median(each['p50'] for each in result['refusals']):.1f} ms (median), "
            f"{1e3 * max(each['p99'] for each in result['refusals']):.1f} ms (99th percentile, worst round)."
        )
    if args.note:
        lines.append(args.note)
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128, help="tokens, about")
    parser.add_argument("--new", type=int, default=200, help="tokens of each stream")
    parser.add_argument("--coalesce", type=float, default=20.0, help="milliseconds")
    parser.add_argument("--queue", type=int, default=32, help="requests that may wait; 0: no refusals are measured")
    parser.add_argument("--gap", type=float, default=0.01, help="seconds between two requests of the overload")
    parser.add_argument("--name", default="", help="of the files of results; default: by the shape")
    parser.add_argument("--note", default="", help="what else to say of this run")
    args = parse(parser)
    result = measure(args)
    save(args.name or f"serve_overhead-{args.shape}", result, report(result, args))


if __name__ == "__main__":
    main()
