"""The second turn after thinking was dropped: how much is computed again, and how long the first token takes.

A first turn thinks for exactly `--think` tokens, then answers; the second turn's prompt holds the answer, not the
thoughts. Three ways to it:
  prefilled   while the answer streams, its ids also run as the next turn's prefix; at the end of the turn it is
              closed, the thoughts are freed, and the engine runs until it is idle.
  re-prefill  no such prefix: the second turn computes the answer once more.
  control     a history of the same ids that never held thoughts, cached by an ordinary turn.
First turns with and without that prefix alternate; so do the second turns of the three ways, several of each in a
round, each with a new message. Inter-token latency is taken from one answer token to the next, calls of the prefix
included.
At a small size, in deterministic mode, the second turn's log-probabilities are held against those of a cold engine.

    python bench/next_turn.py
    python bench/next_turn.py --answers 64 --think 64 --rounds 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from common import environment, options, parse, percentile, random_ids, random_model, ratio, save, spread, table

from ponder.engine import Engine, FinishEvent
from ponder.model.transformer import Transformer
from ponder.types import Phase, PhaseTokens, SamplingParams, ThinkingLimits

THINK, CLOSE = 0, 1
TOKENS = PhaseTokens(think_open=THINK, think_close=CLOSE)
WAYS = ("prefilled", "re-prefill", "control")
WITHIN = 0.10  # of the control's time to first token; what a prefix may add to the mean inter-token latency


@dataclass
class Turn:
    """A first turn. latency: seconds from each answer token to the next. catch_up: of the prefix, after the end."""

    answer: list[int]
    latency: list[float]
    catch_up: float


@dataclass
class Figures:
    """Of one answer length. By way: seconds to the second turn's first token, and the tokens prefilled for it."""

    first_token: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    prefilled: dict[str, list[int]] = field(default_factory=lambda: {way: [] for way in WAYS})
    mean_with: list[float] = field(default_factory=list)
    mean_without: list[float] = field(default_factory=list)
    p99_with: list[float] = field(default_factory=list)
    p99_without: list[float] = field(default_factory=list)
    catch_up: list[float] = field(default_factory=list)


def first_turn(engine: Engine, base: Sequence[int], think: int, answer: int, tenant: str, *, prefilled: bool) -> Turn:
    """Think and answer after `base`; then the thoughts go."""
    prompt = [*base, THINK]
    limits = ThinkingLimits(cap=think, floor=think)
    params = SamplingParams(max_tokens=think + answer, seed=0, thinking=limits, logit_bias=((THINK, -1e9),))
    engine.submit(prompt, params, start=Phase.THINK, tenant=tenant)
    number: int | None = None
    times: list[float] = []
    ids: list[int] = []
    spent: list[int] = []
    while not spent:
        for event in engine.step():
            if isinstance(event, FinishEvent):
                spent = [*prompt, *event.ids]
            elif event.phase is Phase.ANSWER:
                times.append(time.perf_counter())
                ids.append(event.id)
                if not prefilled:
                    continue
                if number is None:  # not before: by now the prompt is cached, and need not be computed twice
                    number = engine.open_next_turn([*base, event.id], tenant=tenant)
                else:
                    engine.extend_next_turn(number, [event.id])
    assert len(ids) == answer
    assert len(spent) == len(prompt) + think + answer
    ended = time.perf_counter()
    if number is not None:
        engine.close_next_turn(number, [*base, *ids])
    engine.end_turn(spent, [*base, *ids], tenant=tenant)
    while engine.has_work:
        engine.step()
    latency = [after - before for before, after in pairwise(times)]
    return Turn(ids, latency, time.perf_counter() - ended)


def ordinary_turn(engine: Engine, ids: Sequence[int], tenant: str) -> None:
    """Caches a history without thoughts."""
    engine.submit(ids, SamplingParams(max_tokens=1, temperature=0), tenant=tenant)
    while engine.has_work:
        engine.step()


def second_turn(engine: Engine, prompt: Sequence[int], keep: Sequence[int], tenant: str) -> tuple[float, int]:
    """(seconds to the first token, tokens prefilled). Afterwards the cache holds of it what `keep` begins with."""
    before = engine.stats.counters.prefill_tokens
    began = time.perf_counter()
    engine.submit(prompt, SamplingParams(max_tokens=2, temperature=0), tenant=tenant)
    first, ended = 0.0, None
    while ended is None:
        for event in engine.step():
            if isinstance(event, FinishEvent):
                ended = event
            elif not first:
                first = time.perf_counter() - began
    prefilled = engine.stats.counters.prefill_tokens - before
    assert prefilled == len(prompt) - ended.usage.cached_tokens
    engine.end_turn([*prompt, *ended.ids], keep, tenant=tenant)
    return first, prefilled


def run_round(engine: Engine, args: argparse.Namespace, answer: int, number: int, figures: Figures) -> None:
    """First turns with and without a next-turn prefix, then the second turns of all ways, one after the other."""
    generator = torch.Generator().manual_seed(number)
    base = random_ids(args.prompt - 1, args.vocab, generator)
    history: dict[str, list[int]] = {}
    for way in ("prefilled", "re-prefill") if number % 2 else ("re-prefill", "prefilled"):
        turn = first_turn(engine, base, args.think, answer, way, prefilled=way == "prefilled")
        history[way] = [*base, *turn.answer]
        means, tails = (
            (figures.mean_with, figures.p99_with) if way == "prefilled" else (figures.mean_without, figures.p99_without)
        )
        means.append(statistics.mean(turn.latency))
        tails.append(percentile(turn.latency, 0.99))
        if way == "prefilled":
            figures.catch_up.append(turn.catch_up)
    history["control"] = history["prefilled"]
    ordinary_turn(engine, history["control"], "control")
    for repetition in range(args.turns):
        message = random_ids(args.message, args.vocab, generator)
        shift = (number + repetition) % len(WAYS)
        for way in (*WAYS[shift:], *WAYS[:shift]):
            keep = base if way == "re-prefill" else history[way]
            first, prefilled = second_turn(engine, [*history[way], *message], keep, way)
            figures.first_token[way].append(first)
            figures.prefilled[way].append(prefilled)
    for way in WAYS:
        engine.end_turn(history[way], (), tenant=way)


def largest_difference(args: argparse.Namespace, dtype: torch.dtype) -> tuple[float, int]:
    """(largest difference of a log-probability, how many were compared) between a second turn after a prefix and the
    same prompt in a cold engine, both deterministic: the 20 likeliest ids at each of 8 tokens."""
    think, answer = min(args.think, 48), min(min(args.answers), 100)
    generator = torch.Generator().manual_seed(0)
    base, message = (random_ids(count, args.vocab, generator) for count in (args.prompt - 1, args.message))
    model = random_model(args.shape, args.vocab, args.prompt + think + answer + args.message + 8, dtype)
    # max_batch decides the memory: there is room for the prefix beside the turn
    engines = [Engine(model, TOKENS, max_batch=2, deterministic=True) for _ in range(2)]
    history = [*base, *first_turn(engines[0], base, think, answer, "", prefilled=True).answer]
    params = SamplingParams(max_tokens=8, temperature=0, top_logprobs=20)
    warm, cold = (engine.generate([[*history, *message]], params)[0] for engine in engines)
    assert warm.usage.cached_tokens >= len(history) // 16 * 16
    assert cold.usage.cached_tokens == 0
    if warm.ids != cold.ids:
        raise SystemExit(f"a second turn after a prefix gives other tokens: {warm.ids} against {cold.ids}")
    pairs = [
        (dict(ours)[id], logprob)
        for ours, theirs in zip(warm.segment.top_logprobs, cold.segment.top_logprobs, strict=True)
        for id, logprob in theirs
    ]
    return max(abs(a - b) for a, b in pairs), len(pairs)


def measure(args: argparse.Namespace, model: Transformer) -> dict[str, Any]:
    differences = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        differences[name], compared = largest_difference(args, dtype)
        print(f"deterministic, {name}: largest of {compared} log-probability differences {differences[name]}")
    room = model.config.max_positions
    page_bytes = 2 * model.config.num_layers * model.config.num_kv_heads * 16 * model.config.head_dim * 2
    engine = Engine(model, TOKENS, max_batch=1, memory=4 * (room // 16 + 1) * page_bytes)
    all_figures: dict[int, Figures] = {}
    run_round(engine, args, min(args.answers), 0, Figures())  # warms up
    for answer in args.answers:
        figures = all_figures[answer] = Figures()
        for number in range(args.rounds):
            run_round(engine, args, answer, number, figures)
        print(f"answers of {answer}: {args.rounds} rounds done")
    assert engine.stats.pages_used == 0
    assert engine.stats.evictions == engine.stats.counters.next_turns_dropped == 0
    return {
        "arguments": vars(args),
        **environment(),
        "largest_logprob_difference": differences,
        "counters": {
            name: getattr(engine.stats.counters, name) for name in ("next_turn_tokens", "next_turns_finished")
        },
        "answers": {answer: vars(figures) for answer, figures in all_figures.items()},
    }


def report(result: dict[str, Any], args: argparse.Namespace) -> str:
    second, first = [], []
    for answer, figures in result["answers"].items():
        control = figures["first_token"]["control"]
        for way in WAYS:
            times, prefilled = figures["first_token"][way], figures["prefilled"][way]
            tokens = f"{min(prefilled)}" if min(prefilled) == max(prefilled) else f"{min(prefilled)}-{max(prefilled)}"
            milliseconds = spread([1000 * seconds for seconds in times], 1)
            second.append([str(answer), way, tokens, milliseconds, f"{ratio(times, control):.2f}"])
        with_, without = figures["mean_with"], figures["mean_without"]
        first.append(
            [
                str(answer),
                *(spread([1000 * each for each in means], 3) for means in (without, with_)),
                f"{ratio(with_, without) - 1:+.1%}",
                *(spread([1000 * each for each in figures[name]], 2) for name in ("p99_without", "p99_with")),
                spread([1000 * each for each in figures["catch_up"]], 1),
            ]
        )
    differences = result["largest_logprob_difference"]
    lines = [
        f"{args.shape}, bfloat16, {result['threads']} threads, {args.rounds} rounds: a prompt of {args.prompt} tokens, "
        f"{args.think} of thinking, an answer, then a message of {args.message} tokens ({args.turns} second turns of "
        "each way in a round). Medians (ranges).",
        "",
        table(["answer", "second turn", "tokens prefilled", "first token, ms", "of the control's"], second),
        "",
        f"To hold: {args.message} tokens and at most one page (16) more; within {WITHIN:.0%} of the control.",
        "",
        table(
            [
                "answer",
                "inter-token mean, ms, no prefill",
                "with prefill",
                "added",
                "p99, ms, no prefill",
                "with prefill",
                "warm after the end, ms",
            ],
            first,
        ),
        "",
        f"To hold: at most {WITHIN:.0%} added. Largest log-probability difference against a cold engine, "
        "both deterministic: "
        f"{', '.join(f'{name} {value:g}' for name, value in differences.items())} (to hold: 0).",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__, rounds=4)
    parser.add_argument("--answers", type=int, nargs="+", default=[64, 256, 1024, 4096], help="tokens")
    parser.add_argument("--think", type=int, default=1024, help="tokens, the close included")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the first prompt, the think-open included")
    parser.add_argument("--message", type=int, default=32, help="tokens that the second turn adds")
    parser.add_argument("--turns", type=int, default=8, help="second turns of each way in a round")
    parser.add_argument("--max-positions", type=int, default=8192)
    args = parse(parser)
    model = random_model(args.shape, args.vocab, args.max_positions, torch.bfloat16)
    result = measure(args, model)
    save("next_turn", result, report(result, args))


if __name__ == "__main__":
    main()
