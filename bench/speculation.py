"""Speculation: one stream with and without guesses, on the same prompts, and how many guesses were right.

The bundled model thinks about held-out problems of each family, greedily and sampled; a GGUF model (`--gguf`) rewrites
texts. Each prompt runs without and with guesses in turn, in one process and on one thread. Times are CPU seconds of the
process from the first token on, since a machine may have other work. "again" is a second sample of the same prompt
right after the first, which has that to look into. A cell slower than without is printed like any other.

    python bench/speculation.py
    python bench/speculation.py --families countdown,gcd -n 2 --kinds greedy,sampled,again
    python bench/speculation.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import environment, options, parse, save, table

from ponder.dialogue.format import Start
from ponder.dialogue.messages import Message
from ponder.engine import FinishEvent
from ponder.evaluate import held_out
from ponder.sampler.local import LocalSampler, load_sampler
from ponder.sampler.opening import find_model
from ponder.tasks.families import FAMILIES
from ponder.types import Phase, SamplingParams

MODES = ("off", "auto")
TEXT = (
    "The harbour of Whitby lies on the east coast, at the mouth of the river Esk. In the eighteenth century it built "
    "ships for the coal trade, and James Cook learned to sail there. The town is known for its abbey, whose ruins "
    "stand on the east cliff, and for jet, a black stone that was carved into jewellery. Today most visitors come for "
    "the fish market, the narrow streets below the cliff and the view from the hundred and ninety-nine steps."
)
CODE = """def total(prices, rate):
    result = 0
    for price in prices:
        if price > 0:
            result = result + price * (1 + rate)
    return result


def mean(prices, rate):
    return total(prices, rate) / len(prices)"""
REWRITES = {
    "copy with one word changed": f"Repeat this text, but write 'Scarborough' instead of 'Whitby':\n\n{TEXT}",
    "correct the spelling": f"Correct the spelling of this text and change nothing else:\n\n{TEXT.replace('th', 'ht')}",
    "rename in code": f"Rename the variable 'prices' to 'costs' and print the whole program:\n\n{CODE}",
    "as a list": f"Write the sentences of this text as a list, word for word:\n\n{TEXT}",
    "a story (nothing to look up)": "Write a short story about a lighthouse keeper.",
}


class Cell:
    """What one kind of prompt gave: CPU seconds a token by mode and prompt, the least of all rounds (what else the
    machine does can only add to it); over all rounds tokens, guesses run and right, and pairs with the same ids."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[int, float]] = {mode: {} for mode in MODES}
        self.tokens: dict[str, list[int]] = {mode: [] for mode in MODES}
        self.drafted = self.accepted = self.passes = self.same = 0

    def numbers(self) -> dict[str, Any]:
        per_token = {mode: statistics.mean(self.seconds[mode].values()) for mode in MODES}
        return {
            "speedup": per_token["off"] / per_token["auto"],
            "tokens_per_cpu_second": {mode: 1 / each for mode, each in per_token.items()},
            "tokens": sum(self.tokens["auto"]),
            "tokens_per_pass": sum(self.tokens["auto"]) / max(1, self.passes),
            "drafted": self.drafted,
            "accepted": self.accepted,
            "same_ids": self.same,
            "pairs": len(self.tokens["auto"]),
        }


def run(
    sampler: LocalSampler, prompt: Sequence[int], params: SamplingParams, start: Phase
) -> tuple[FinishEvent, float]:
    """The result, and the CPU seconds from its first token on."""
    engine, began = sampler.engine, 0.0
    engine.submit(prompt, params, start=start)
    while True:
        events = engine.step()
        began = began or (time.process_time() if events else 0.0)
        if events and isinstance(events[-1], FinishEvent):
            return events[-1], time.process_time() - began


def measure(
    samplers: dict[str, LocalSampler], prompts: Sequence[Sequence[int]], args: argparse.Namespace, **how: Any
) -> Cell:
    """Every prompt by both engines, one after the other, `rounds` times over with other seeds and orders."""
    cell = Cell()
    start, temperature = how["start"], how["temperature"]
    for number in range(args.rounds):
        for sampler in samplers.values():  # no sample of an earlier cell is there to look into
            with sampler.engine.update_weights():
                pass
            run(sampler, [1, 2, 3], SamplingParams(max_tokens=2), Phase.ANSWER)  # packs the weights again
        for at, prompt in enumerate(prompts):
            ids = {}
            modes = MODES if (at + number) % 2 else MODES[::-1]
            for mode in modes:
                engine = samplers[mode].engine
                for again in range(1 + how.get("again", False)):
                    seed = 1000 * number + at + 500 * again
                    params = SamplingParams(max_tokens=args.new, temperature=temperature, seed=seed, repeats=128)
                    before = engine.stats.counters
                    finish, seconds = run(samplers[mode], prompt, params, start)
                after = engine.stats.counters
                ids[mode] = finish.ids
                least = cell.seconds[mode].get(at, seconds)
                cell.seconds[mode][at] = min(least, seconds / len(finish.ids))
                cell.tokens[mode].append(len(finish.ids))
                if mode == "auto":
                    cell.drafted += after.drafted_tokens - before.drafted_tokens
                    cell.accepted += after.accepted_tokens - before.accepted_tokens
                    cell.passes += after.steps - before.steps
            cell.same += ids["off"] == ids["auto"]
    return cell


def rendered(sampler: LocalSampler, question: str, start: Start) -> list[int]:
    return list(sampler.format.render([Message.user(question)], start=start).ids)


def thoughts(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    samplers = open_both(find_model("mini"), args)
    found = {}
    for family in args.families.split(",") if args.families else sorted(FAMILIES):
        problems = held_out(FAMILIES[family], args.n)
        prompts = [rendered(samplers["off"], problem.question, Start.THINK) for problem in problems]
        for name, how in {
            "greedy": {"temperature": 0.0},
            "sampled": {"temperature": 1.0},
            "again": {"temperature": 1.0, "again": True},
        }.items():
            if name in args.kinds.split(","):
                cell = found[f"{family}, {name}"] = measure(samplers, prompts, args, start=Phase.THINK, **how).numbers()
                print(f"{family}, {name}: {cell['speedup']:.2f}", flush=True)
    return found


def rewriting(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    samplers = open_both(args.gguf, args)
    found = {}
    for name, question in REWRITES.items():
        prompts = [rendered(samplers["off"], question, Start.DIRECT)]
        cell = measure(samplers, prompts, args, start=Phase.ANSWER, temperature=0.0).numbers()
        found[name] = cell
        print(f"{name}: {cell['speedup']:.2f}", flush=True)
    return found


def open_both(model: Path, args: argparse.Namespace) -> dict[str, LocalSampler]:
    return {
        mode: load_sampler(model, speculate=mode, deterministic=args.deterministic, max_batch=4, window=2048)
        for mode in MODES
    }


def report(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    rows = []
    for name, cell in sorted(found.items(), key=lambda item: -item[1]["speedup"]):
        share = f"{cell['accepted'] / cell['drafted']:.0%}" if cell["drafted"] else "none run"
        rates = cell["tokens_per_cpu_second"]
        cells = [name, f"{cell['speedup']:.2f}", f"{rates['off']:,.0f}", f"{rates['auto']:,.0f}"]
        cells += [f"{cell['tokens_per_pass']:.2f}", share, f"{cell['drafted']:,}", f"{cell['tokens']:,}"]
        rows.append([*cells, f"{cell['same_ids']}/{cell['pairs']}"])
    head = ["prompts", "speedup", "tokens/CPU s off", "auto", "tokens a pass", "guesses right", "guesses run", "tokens"]
    middle = statistics.median(cell["speedup"] for cell in found.values())
    return (
        f"One stream, one thread, {args.n} prompts a cell, {args.rounds} rounds, at most {args.new} tokens each, "
        f"{'deterministic' if args.deterministic else 'default'} mode. CPU seconds of the process from the first token "
        f"on, without and with guesses in turn, the least of all rounds. Median speedup {middle:.2f}.\n\n"
        f"{table([*head, 'same ids'], rows)}"
    )


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--families", default="", help="comma-separated (default: all)")
    parser.add_argument("--kinds", default="greedy", help="of greedy,sampled,again (default: greedy)")
    parser.add_argument("--gguf", type=Path, help="a GGUF file to rewrite texts with, instead of the families")
    parser.add_argument("-n", type=int, default=4, help="problems of each family")
    parser.add_argument("--new", type=int, default=600, help="tokens of an answer, at most")
    parser.add_argument("--deterministic", action="store_true", help="ids are then the same, bit for bit")
    args = parse(parser)
    torch.set_num_threads(args.threads or 1)
    found = rewriting(args) if args.gguf else thoughts(args)
    name = "speculation_rewriting" if args.gguf else f"speculation_{args.kinds.replace(',', '_')}"
    save(
        name,
        {"arguments": {k: str(v) for k, v in vars(args).items()}, **environment(), "cells": found},
        report(found, args),
    )


if __name__ == "__main__":
    main()
