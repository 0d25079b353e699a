"""Samples of one prompt: the engine against the same engine that shares nothing.

Each round every contender answers the same new prompt with the same seeds; rounds are interleaved, so that a machine
that drifts slows both alike. Pages are counted after every step. Ends are ignored: each sample has all its tokens.

    python bench/sharing.py
    python bench/sharing.py --samples 8 --prompt 256 --new 32 --rounds 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field

import torch
from common import environment, options, parse, random_ids, random_model, ratio, save, spread, table

from ponder.engine import Engine, FinishEvent, TokenEvent
from ponder.model.transformer import Transformer
from ponder.types import PhaseTokens, SamplingParams

TARGET = 2.5


@dataclass
class Contender:
    """An engine, and what it showed in each round. pages: at their peak. prefilled: tokens of prompts."""

    name: str
    engine: Engine
    rates: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    prefilled: list[int] = field(default_factory=list)

    def run(self, prompt: list[int], samples: int, new: int) -> list[tuple[int, ...]]:
        """One round. Returns the ids of each sample."""
        before, pages = self.engine.stats.counters.prefill_tokens, 0
        began, first = time.perf_counter(), 0.0
        requests = [self.engine.submit(prompt, SamplingParams(max_tokens=new, seed=seed)) for seed in range(samples)]
        ids: dict[int, tuple[int, ...]] = {}
        while self.engine.has_work:
            events = self.engine.step()
            pages = max(pages, self.engine.stats.pages_used)
            if not first and any(isinstance(event, TokenEvent) for event in events):
                first = time.perf_counter() - began
            ids |= {event.request: event.ids for event in events if isinstance(event, FinishEvent)}
        self.rates.append(samples * new / (time.perf_counter() - began))
        self.first_token.append(first)
        self.pages.append(pages)
        self.prefilled.append(self.engine.stats.counters.prefill_tokens - before)
        return [ids[request] for request in requests]


def contenders(model: Transformer, args: argparse.Namespace) -> list[Contender]:
    window = args.prompt + args.new
    return [
        Contender(name, Engine(model, PhaseTokens(), max_batch=args.samples, window=window, share_prefixes=share))
        for name, share in (("shared", True), ("sharing off", False))
    ]


def check(args: argparse.Namespace, generator: torch.Generator) -> None:
    """In float32 both give the same tokens."""
    model = random_model(args.shape, args.vocab, args.prompt + args.new, torch.float32)
    prompt = random_ids(args.prompt, args.vocab, generator)
    shared, alone = (entrant.run(prompt, 4, min(args.new, 16)) for entrant in contenders(model, args))
    if shared != alone or len(set(shared)) == 1:
        raise SystemExit(f"sharing changes what is sampled, or nothing varies: {shared} against {alone}")


def measure(args: argparse.Namespace) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    check(args, generator)
    model = random_model(args.shape, args.vocab, args.prompt + args.new, torch.bfloat16)
    entrants = contenders(model, args)
    for number in range(1 + args.rounds):
        prompt = random_ids(args.prompt, args.vocab, generator)
        for entrant in entrants if number % 2 else reversed(entrants):
            entrant.run(prompt, args.samples, args.new)
            print(f"{'round' if number else 'warm-up'} {number}, {entrant.name}: {entrant.rates[-1]:,.0f} tokens/s")
    page_size = entrants[0].engine.stats.page_size
    # Each sample has its own pages after the prompt; its last token is never computed.
    own = args.samples * (-(-(args.prompt + args.new - 1) // page_size) - args.prompt // page_size)
    return {
        "arguments": vars(args),
        **environment(),
        "parameters": model.config.num_parameters,
        "prompt_pages": args.prompt // page_size,
        "tokens_per_second": {entrant.name: entrant.rates[1:] for entrant in entrants},
        "first_token_seconds": {entrant.name: entrant.first_token[1:] for entrant in entrants},
        "peak_pages": {entrant.name: max(entrant.pages[1:]) for entrant in entrants},
        "pages_for_the_prompt": {entrant.name: max(entrant.pages[1:]) - own for entrant in entrants},
        "prefill_tokens": {entrant.name: statistics.median(entrant.prefilled[1:]) for entrant in entrants},
        "ratio": ratio(entrants[0].rates[1:], entrants[1].rates[1:]),
    }


def report(result: dict[str, object], args: argparse.Namespace) -> str:
    rates: dict[str, list[float]] = result["tokens_per_second"]  # type: ignore[assignment]
    first: dict[str, list[float]] = result["first_token_seconds"]  # type: ignore[assignment]
    peak: dict[str, int] = result["peak_pages"]  # type: ignore[assignment]
    for_prompt: dict[str, int] = result["pages_for_the_prompt"]  # type: ignore[assignment]
    prefilled: dict[str, float] = result["prefill_tokens"]  # type: ignore[assignment]
    rows = [
        [
            name,
            spread(rates[name]),
            spread([1000 * seconds for seconds in first[name]]),
            f"{peak[name]:,}",
            f"{for_prompt[name]:,}",
            f"{prefilled[name]:,.0f}",
        ]
        for name in rates
    ]
    head = ["", "tokens/s, median (range)", "first token, ms", "pages at the peak", "of the prompt", "tokens prefilled"]
    return (
        f"{args.samples} samples of one prompt of {args.prompt} tokens ({result['prompt_pages']} pages), "
        f"{args.new} new tokens each, {args.shape}, bfloat16, {result['threads']} threads, {args.rounds} rounds:\n\n"
        f"{table(head, rows)}\n\n"
        f"Sharing is faster by {result['ratio']:.2f}x (to reach: {TARGET}x)."
    )


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=1024, help="tokens")
    parser.add_argument("--new", type=int, default=128, help="tokens of each sample")
    args = parse(parser)
    result = measure(args)
    save("sharing", result, report(result, args))


if __name__ == "__main__":
    main()
