"""Requests that arrive over time: the engine against padded `transformers.generate`, on the same schedule and weights.

Prompts and answers differ in length, arrivals are a Poisson process, both from a fixed seed; time is real. Greedy, no
end token: each request has exactly the tokens it asked for.
  ponder      submits what has arrived, then steps.
  generate    static batches: whenever it is idle it takes all that has arrived, pads to the left and generates until
              the longest answer is done. Only the tokens that were asked for count.
  continuous  transformers' own continuous batching, the manager under `generate_batch`, fed as requests arrive.
Before anything is timed all contenders must give the same tokens in float32. Rounds are interleaved.

    python bench/arrivals.py
    python bench/arrivals.py --requests 8 --max-new 64 --rate 40 --rounds 1 --contenders ponder,generate
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from common import environment, options, parse, percentile, random_ids, random_model, ratio, save, spread, table

from ponder.engine import Engine, FinishEvent, TokenEvent
from ponder.model.checkpoint import load_model, save_model
from ponder.types import PhaseTokens, SamplingParams

TARGET = 2.5


@dataclass(frozen=True)
class Job:
    """due: seconds after the start. new: tokens to generate."""

    due: float
    prompt: list[int]
    new: int


@dataclass
class Served:
    """One run over the schedule, times in seconds after its start. first: when the first token could be read."""

    ids: list[list[int]]
    done: list[float]
    first: list[float]


@dataclass
class Contender:
    name: str
    serve: Callable[[Sequence[Job]], Served]
    rates: list[float] = field(default_factory=list)
    latency: list[list[float]] = field(default_factory=list)
    first: list[list[float]] = field(default_factory=list)

    def run(self, jobs: Sequence[Job]) -> None:
        served = self.serve(jobs)
        assert [len(ids) for ids in served.ids] == [job.new for job in jobs]
        self.rates.append(sum(job.new for job in jobs) / (max(served.done) - jobs[0].due))
        self.latency.append([end - job.due for end, job in zip(served.done, jobs, strict=True)])
        self.first.append([first - job.due for first, job in zip(served.first, jobs, strict=True)])


def schedule(args: argparse.Namespace) -> list[Job]:
    rng, generator, due = random.Random(args.seed), torch.Generator().manual_seed(args.seed), 0.0
    jobs = []
    for _ in range(args.requests):
        prompt = random_ids(rng.randint(args.min_prompt, args.max_prompt), args.vocab, generator)
        jobs.append(Job(due, prompt, rng.randint(args.min_new, args.max_new)))
        due += rng.expovariate(args.rate)
    return jobs


def serve_ponder(engine: Engine) -> Callable[[Sequence[Job]], Served]:
    def serve(jobs: Sequence[Job]) -> Served:
        served = Served([[] for _ in jobs], [0.0] * len(jobs), [0.0] * len(jobs))
        index_of: dict[int, int] = {}
        began, submitted, finished = time.perf_counter(), 0, 0
        while finished < len(jobs):
            now = time.perf_counter() - began
            while submitted < len(jobs) and jobs[submitted].due <= now:
                job = jobs[submitted]
                request = engine.submit(job.prompt, SamplingParams(max_tokens=job.new, temperature=0))
                index_of[request] = submitted
                submitted += 1
            if not engine.has_work:
                time.sleep(max(0.0, jobs[submitted].due - (time.perf_counter() - began)))
                continue
            events = engine.step()
            now = time.perf_counter() - began
            for event in events:
                at = index_of[event.request]
                if isinstance(event, TokenEvent) and event.index == 0:
                    served.first[at] = now
                elif isinstance(event, FinishEvent):
                    served.ids[at], served.done[at] = list(event.ids), now
                    finished += 1
        return served

    return serve


def serve_generate(model: Any, max_batch: int) -> Callable[[Sequence[Job]], Served]:
    from transformers import GenerationConfig

    def generate(batch: Sequence[Job]) -> list[list[int]]:
        longest, new = max(len(job.prompt) for job in batch), max(job.new for job in batch)
        padded = torch.tensor([[0] * (longest - len(job.prompt)) + job.prompt for job in batch])
        lengths = torch.tensor([[len(job.prompt)] for job in batch])
        mask = (torch.arange(longest) >= longest - lengths).long()
        config = GenerationConfig(do_sample=False, max_new_tokens=new, eos_token_id=None, pad_token_id=0)
        with torch.inference_mode():
            out = model.generate(padded, attention_mask=mask, generation_config=config)
        return [row[longest : longest + job.new].tolist() for row, job in zip(out, batch, strict=True)]

    def serve(jobs: Sequence[Job]) -> Served:
        served, began, taken = Served([], [], []), time.perf_counter(), 0
        while taken < len(jobs):
            now = time.perf_counter() - began
            if jobs[taken].due > now:
                time.sleep(jobs[taken].due - now)
                continue
            batch = [job for job in jobs[taken : taken + max_batch] if job.due <= now]
            served.ids += generate(batch)
            done = time.perf_counter() - began
            served.done += [done] * len(batch)
            served.first += [done] * len(batch)
            taken += len(batch)
        return served

    return serve


def serve_continuous(model: Any, args: argparse.Namespace) -> Callable[[Sequence[Job]], Served]:
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    page = 32
    config = ContinuousBatchingConfig(
        page_size=page,
        num_blocks=args.max_batch * -(-(args.max_prompt + args.max_new) // page),
        max_batch_tokens=args.peer_batch_tokens,
        max_requests_per_batch=args.max_batch,
    )

    def serve(jobs: Sequence[Job]) -> Served:
        generation = GenerationConfig(do_sample=False, max_new_tokens=args.max_new, eos_token_id=-1)
        served = Served([[] for _ in jobs], [0.0] * len(jobs), [0.0] * len(jobs))
        index_of: dict[str, int] = {}
        with model.continuous_batching_context_manager(
            generation_config=generation, continuous_batching_config=config, timeout=10
        ) as manager:
            began, submitted, finished = time.perf_counter(), 0, 0
            while finished < len(jobs):
                now = time.perf_counter() - began
                while submitted < len(jobs) and jobs[submitted].due <= now:
                    job = jobs[submitted]
                    request = manager.add_request(job.prompt, max_new_tokens=job.new, record_timestamps=True)
                    index_of[request] = submitted
                    submitted += 1
                rest = jobs[submitted].due - now if submitted < len(jobs) else 1.0
                out = manager.get_result(timeout=max(rest, 1e-3))
                if out is None and not manager.is_running():
                    raise RuntimeError("transformers' generation thread ended; its log says why")
                if out is None or not out.is_finished():
                    continue
                if out.error is not None:
                    raise RuntimeError(f"transformers' continuous batching failed: {out.error}")
                at = index_of[out.request_id]
                served.ids[at] = list(out.generated_tokens)
                served.done[at] = time.perf_counter() - began
                served.first[at] = out.timestamps[0] - began if out.timestamps else served.done[at]
                finished += 1
        return served

    return serve


def contenders(args: argparse.Namespace, dtype: torch.dtype) -> list[Contender]:
    """Each from the same exported weights, with a separate model."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, "model")
        save_model(random_model(args.shape, args.vocab, args.max_prompt + args.max_new, dtype), folder)
        ours = load_model(folder, dtype=dtype)
        theirs = [AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval() for _ in range(2)]
    engine = Engine(ours, PhaseTokens(), max_batch=args.max_batch)
    makers: dict[str, Callable[[], Contender]] = {
        "ponder": lambda: Contender("ponder", serve_ponder(engine)),
        "generate": lambda: Contender("transformers, generate", serve_generate(theirs[0], args.max_batch)),
        "continuous": lambda: Contender("transformers, continuous batching", serve_continuous(theirs[1], args)),
    }
    return [makers[name]() for name in args.contenders.split(",")]


def check(args: argparse.Namespace) -> dict[str, str]:
    """In float32 all contenders give the same greedy tokens. Returns why contenders are left out, by name."""
    jobs = [Job(0.0, job.prompt, min(job.new, 16)) for job in schedule(args)[:6]]
    served: dict[str, list[list[int]]] = {}
    left_out: dict[str, str] = {}
    for entrant in contenders(args, torch.float32):
        try:
            served[entrant.name] = entrant.serve(jobs).ids
        except (RuntimeError, NotImplementedError, ValueError, ImportError) as error:
            if "continuous" not in entrant.name:
                raise
            left_out[entrant.name] = f"{type(error).__name__}: {error}"
    first, *others = served.values()
    if any(other != first for other in others):
        raise SystemExit(f"the contenders do not give the same tokens: {served}")
    if len({id for ids in first for id in ids}) < len(jobs) * 2:
        raise SystemExit(f"the answers hardly vary, so that equal ones show little: {first}")
    print(f"the same greedy tokens in float32: {', '.join(served)}")
    return left_out


def measure(args: argparse.Namespace) -> dict[str, object]:
    left_out = check(args)
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    entrants = [entrant for entrant in contenders(args, torch.bfloat16) if entrant.name not in left_out]
    jobs = schedule(args)
    for entrant in entrants:  # warms up
        entrant.serve([Job(0.0, job.prompt, min(job.new, 16)) for job in jobs])
    for number in range(args.rounds):
        # Other prompts in each round, so that none is cached from the last; the lengths and arrivals stay.
        generator = torch.Generator().manual_seed(args.seed + 1 + number)
        fresh = [Job(job.due, random_ids(len(job.prompt), args.vocab, generator), job.new) for job in jobs]
        for entrant in entrants if number % 2 else reversed(entrants):
            entrant.run(fresh)
            print(f"round {number + 1}, {entrant.name}: {entrant.rates[-1]:,.0f} useful tokens/s")
    ours = next((entrant.rates for entrant in entrants if entrant.name == "ponder"), None)
    return {
        "arguments": vars(args),
        **environment(),
        "left_out": left_out,
        "asked_tokens": sum(job.new for job in jobs),
        "prompt_tokens": sum(len(job.prompt) for job in jobs),
        "arrivals_seconds": jobs[-1].due,
        "useful_tokens_per_second": {entrant.name: entrant.rates for entrant in entrants},
        "latency_seconds": {entrant.name: entrant.latency for entrant in entrants},
        "first_token_seconds": {entrant.name: entrant.first for entrant in entrants},
        "ratio": {
            entrant.name: ratio(ours, entrant.rates) for entrant in entrants if ours and entrant.name != "ponder"
        },
    }


def report(result: dict[str, Any], args: argparse.Namespace) -> str:
    rows = []
    for name, rates in result["useful_tokens_per_second"].items():
        latency = result["latency_seconds"][name]
        first = result["first_token_seconds"][name]
        rows.append(
            [
                name,
                spread(rates),
                spread([statistics.mean(each) for each in latency], 2),
                spread([percentile(each, 0.95) for each in latency], 2),
                spread([statistics.mean(each) for each in first], 2),
                f"{result['ratio'][name]:.2f}x" if name in result["ratio"] else "",
            ]
        )
    head = ["", "useful tokens/s", "latency, s, mean", "p95", "first token, s, mean", "ponder is faster by"]
    lines = [
        f"{args.requests} requests over {result['arrivals_seconds']:.1f} s ({args.rate:g} a second on average), "
        f"prompts of {args.min_prompt} to {args.max_prompt} tokens, {args.min_new} to {args.max_new} new ones "
        f"({result['asked_tokens']:,} in all), {args.shape}, bfloat16, {result['threads']} threads, "
        f"{args.rounds} rounds, medians (ranges):",
        "",
        table(head, rows),
        "",
        f"To reach against `generate`: {TARGET}x. A static batch gives its tokens when its longest answer is done.",
        *(f"Left out: {name}: {why}" for name, why in result["left_out"].items()),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rate", type=float, default=32.0, help="arrivals a second")
    parser.add_argument("--min-new", type=int, default=16)
    parser.add_argument("--max-new", type=int, default=512)
    parser.add_argument("--min-prompt", type=int, default=32)
    parser.add_argument("--max-prompt", type=int, default=256)
    parser.add_argument("--max-batch", type=int, default=64, help="requests that run at once, for all contenders")
    parser.add_argument("--peer-batch-tokens", type=int, default=512, help="rows of a step of continuous batching")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contenders", default="ponder,generate,continuous")
    args = parse(parser)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    result = measure(args)
    save("arrivals", result, report(result, args))


if __name__ == "__main__":
    main()
