"""The compiled CPU step by itself, beside what the machine can do at most.

Decoding, prefill, and samples of shared prompts with and without reading their pages once; weights in bfloat16 and in
int8. A round measures the ceilings and then every case, each by the fastest of a few calls; shares are of the same
round's ceiling. Weights are random.

    python bench/kernel.py
    python bench/kernel.py --shapes 256x6 --rounds 2
    PONDER_MAX_ISA=avx2 python bench/kernel.py --shapes 135m    what a laptop without AVX-512 would show
"""

from __future__ import annotations

import argparse
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import torch
from common import SHAPES, environment, parse, random_model, ratio, save, spread, table

from ponder.engine.kernel import FusedRunner, open_runner
from ponder.engine.pages import Chunk
from ponder.kernels import FusedStep, Quantize, StepShape
from ponder.kernels.ceilings import dram_read_bytes_per_second, matmul_flops
from ponder.kernels.machine import machine

PAGE_SIZE, CONTEXT, PROMPT, PREFILL = 16, 128, 512, 1024
STREAMS = (1, 8, 32, 64)
VOCAB = {"256x6": 2048, "135m": 49_152, "0.6b": 151_936}
SHARED = {"256x6": (8, 32), "135m": (4, 8), "0.6b": (4, 8)}  # prompts, samples of each
WEIGHTS: dict[str, Quantize | None] = {"bfloat16": None, "int8": "int8"}


@dataclass
class Case:
    """tokens: of one call. read: bytes of weights, and of keys and values. flops: of matrix products and attention."""

    name: str
    weights: str
    call: Callable[[], object]
    tokens: int
    read: tuple[int, int]
    flops: float
    seconds: list[float] = field(default_factory=list)

    def measure(self, budget: float) -> None:
        """The fastest of the calls that begin within `budget` seconds."""
        best, began = float("inf"), time.perf_counter()
        while best == float("inf") or time.perf_counter() - began < budget:
            start = time.perf_counter()
            self.call()
            best = min(best, time.perf_counter() - start)
        self.seconds.append(best)


def matrices(shape: StepShape) -> tuple[int, int]:
    """(numbers in the layers' matrices, in the head)."""
    heads = (2 * shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    each = shape.hidden_size * (heads + 3 * shape.intermediate_size)
    return shape.num_layers * each, shape.vocab_size * shape.hidden_size


class Bench:
    """One shape, with one kind of weights."""

    def __init__(self, name: str, shape: StepShape, step: FusedStep, weights: str) -> None:
        self.name, self.shape, self.step, self.weights = name, shape, step, weights

    def cases(self) -> Iterator[Case]:
        for streams in STREAMS:
            tables = [array("i", range(9 * i, 9 * i + 9)) for i in range(streams)]
            yield self.decoding(f"decode, {streams} streams", tables, CONTEXT, streams * CONTEXT)
        yield self.prefill()
        prompts, samples = SHARED[self.name]
        pages, first = PROMPT // PAGE_SIZE, 9 * STREAMS[-1]
        heads = [range(first + i * pages, first + (i + 1) * pages) for i in range(prompts)]
        own = iter(range(first + prompts * pages, num_pages(self.name)))
        shared = [array("i", [*head, next(own)]) for head in heads for _ in range(samples)]
        for share in (True, False):
            name = f"{samples} samples of {prompts} prompts of {PROMPT}, pages read {'once' if share else 'by each'}"
            yield self.decoding(name, shared, PROMPT, (prompts if share else len(shared)) * PROMPT, share=share)

    def decoding(self, name: str, tables: list[array[int]], context: int, cached: int, *, share: bool = True) -> Case:
        """A step of one token for each of `tables`. cached: tokens whose keys and values it reads."""
        runs, rows = [Chunk(table, context, 1) for table in tables], range(len(tables))
        ids = [2 + row % 1000 for row in rows]

        def call() -> object:
            self.step.share_pages = share
            return self.step.run(ids, runs, rows)

        layers, head = matrices(self.shape)
        flops = 2 * len(tables) * (layers + head) + self.attention(len(tables) * context)
        return self.case(name, call, len(tables), cached, flops)

    def prefill(self) -> Case:
        ids, run = [2 + i % 1000 for i in range(PREFILL)], Chunk(array("i", range(PREFILL // PAGE_SIZE)), 0, PREFILL)
        layers, head = matrices(self.shape)
        flops = 2 * (PREFILL * layers + head) + self.attention(PREFILL * PREFILL / 2)
        return self.case(f"prefill, {PREFILL}", lambda: self.step.run(ids, [run], [PREFILL - 1]), PREFILL, 0, flops)

    def attention(self, pairs: float) -> float:
        """Operations of `pairs` of a token and one that it looks at."""
        return 4 * self.shape.num_layers * self.shape.num_heads * self.shape.head_dim * pairs

    def case(self, name: str, call: Callable[[], object], tokens: int, cached: int, flops: float) -> Case:
        weights = sum(matrices(self.shape)) * (2 if WEIGHTS[self.weights] is None else 1)
        values = cached * 4 * self.shape.num_layers * self.shape.num_kv_heads * self.shape.head_dim
        return Case(name, self.weights, call, tokens, (weights, values), flops)


def num_pages(shape: str) -> int:
    prompts, samples = SHARED[shape]
    return 9 * STREAMS[-1] + prompts * (PROMPT // PAGE_SIZE) + prompts * samples


def measure(name: str, rounds: int, budget: float) -> tuple[list[Case], dict[str, list[float]]]:
    model = random_model(name, VOCAB[name], 4096, torch.bfloat16)
    cases: list[Case] = []
    for weights, quantize in WEIGHTS.items():
        runner = open_runner(
            *(model, num_pages(name), PAGE_SIZE), kernel="fused", deterministic=False, quantize=quantize
        )
        assert isinstance(runner, FusedRunner)
        cases += Bench(name, model.config, runner.pages, weights).cases()
    threads = torch.get_num_threads()
    ceilings: dict[str, list[float]] = {"dram": [], "matmul": []}
    for number in range(1 + rounds):
        ceilings["dram"].append(dram_read_bytes_per_second(threads))
        ceilings["matmul"].append(matmul_flops())
        for case in cases:
            case.measure(budget)
        print(f"{name}: {f'round {number}' if number else 'warm-up'}", flush=True)
    for figures in (*ceilings.values(), *(case.seconds for case in cases)):
        del figures[0]
    return cases, ceilings


def rows(cases: list[Case], ceilings: dict[str, list[float]]) -> list[list[str]]:
    made = []
    for case in cases:
        dram = [sum(case.read) / seconds for seconds in case.seconds]
        weights = [case.read[0] / seconds for seconds in case.seconds]
        flops = [case.flops / seconds for seconds in case.seconds]
        made.append(
            [
                case.name,
                case.weights,
                spread([1000 * seconds for seconds in case.seconds], 2),
                f"{case.tokens / median(case.seconds):,.0f}",
                f"{ratio(weights, ceilings['dram']):.0%}",
                f"{ratio(dram, ceilings['dram']):.0%}",
                f"{ratio(flops, ceilings['matmul']):.0%}",
            ]
        )
    return made


def report(name: str, cases: list[Case], ceilings: dict[str, list[float]], threads: int) -> str:
    find = {(case.name, case.weights): case.seconds for case in cases}
    prompts, samples = SHARED[name]
    once, each = (
        find[f"{samples} samples of {prompts} prompts of {PROMPT}, pages read {how}", "bfloat16"]
        for how in ("once", "by each")
    )
    one = f"decode, {STREAMS[0]} streams"
    head = ["case", "weights", "ms a step", "tokens/s", "DRAM, weights", "DRAM, with cache", "products"]
    return (
        f"## {name}, vocabulary {VOCAB[name]:,}, {threads} threads\n\n"
        f"Ceilings: DRAM read {spread([x / 1e9 for x in ceilings['dram']], 1)} GB/s, "
        f"{machine().products} product {spread([x / 1e12 for x in ceilings['matmul']], 2)} TFLOP/s.\n\n"
        f"{table(head, rows(cases, ceilings))}\n\n"
        f"One stream, int8 over bfloat16: {ratio(find[one, 'bfloat16'], find[one, 'int8']):.2f}x. "
        f"Shared pages read once: {ratio(each, once):.2f}x."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(VOCAB), default=["256x6", "0.6b"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--budget", type=float, default=0.4, help="seconds of one case in one round")
    args = parse(parser)
    assert set(VOCAB) <= set(SHAPES)
    found, texts = {}, []
    for name in args.shapes:
        cases, ceilings = measure(name, args.rounds, args.budget)
        texts.append(report(name, cases, ceilings, torch.get_num_threads()))
        found[name] = {
            "ceilings": ceilings,
            "cases": [
                {
                    "name": case.name,
                    "weights": case.weights,
                    "seconds": case.seconds,
                    "tokens": case.tokens,
                    "bytes_of_weights": case.read[0],
                    "bytes_of_cache": case.read[1],
                    "flops": case.flops,
                }
                for case in cases
            ],
        }
    head = (
        "The compiled step: milliseconds of the fastest call of each round, median (range) over rounds; bytes read and "
        "operations as shares of the same round's ceilings.\n\n"
    )
    save("kernel", {"arguments": vars(args), **environment(), "shapes": found}, head + "\n\n".join(texts))


if __name__ == "__main__":
    main()
