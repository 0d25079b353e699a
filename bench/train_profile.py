"""Where a training step on the kernels goes, beside the ceiling of a bfloat16 product measured in the same run.

python bench/train_profile.py --shapes 256x6,512x8,1024x16 --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import environment, options, parse, save, shape_config, table
from train_throughput import contenders

import ponder.kernels.training as kernels
import ponder.model.loss as losses
from ponder.train.loop.fit import keep_freed_memory

# The part of a step → where its functions are.
PARTS: dict[str, list[tuple[Any, str]]] = {
    "attention, forward": [(kernels.TrainingStack, "attend")],
    "attention, backward": [(kernels.TrainingStack, "attend_backward")],
    "products, gradients of weights": [(kernels, "add_product_"), (losses, "add_product_")],
    "products, forward and gradients of rows": [(torch.Tensor, "__matmul__"), (torch, "mm"), (kernels.F, "linear")],
    "norms and residual sums": [(kernels.TrainingStack, "norm"), (kernels.TrainingStack, "norm_backward")],
    "SwiGLU": [(kernels.TrainingStack, "swiglu"), (kernels.TrainingStack, "swiglu_backward")],
    "cross entropy, without its products": [(losses, "cross_entropy_")],
    "copies of weights": [(kernels.TrainingStack, "_copy")],
    "AdamW": [(torch.optim.AdamW, "step")],
}


@contextmanager
def timed(seconds: Counter[str]) -> Iterator[None]:
    """Adds up the wall time of every part while it lasts. Parts do not call each other."""
    before = [(owner, name, getattr(owner, name)) for functions in PARTS.values() for owner, name in functions]

    def wrap(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                seconds[part] += time.perf_counter() - begin

        return run

    for part, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, wrap(part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def ceiling(size: int = 2048) -> float:
    """FLOP/s of the best of five square products."""
    a, b = (torch.randn(size, size).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def profile(args: argparse.Namespace, shape: str) -> dict[str, Any]:
    """Seconds of each part of a step, the mean over `rounds`; floating-point operations of those that are products."""
    config = shape_config(shape, args.vocab, args.seq)
    (entrant,) = contenders(config, ["ponder"], 0)
    ids_BT = torch.randint(0, args.vocab, (args.batch, args.seq), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        entrant.step(ids_BT, ids_BT, args.micro_batch)
    seconds: Counter[str] = Counter()
    begin = time.perf_counter()
    with timed(seconds):
        for _ in range(args.rounds):
            entrant.step(ids_BT, ids_BT, args.micro_batch)
    total = (time.perf_counter() - begin) / args.rounds
    tokens = args.batch * args.seq
    weights = sum(p.numel() for p in entrant.model.parameters() if p.dim() > 1)
    scores = 2 * 2 * tokens * args.seq / 2 * config.num_heads * config.head_dim * config.num_layers
    flops = {
        "products, forward and gradients of rows": 4.0 * weights * tokens,
        "products, gradients of weights": 2.0 * weights * tokens,
        "attention, forward": scores,
        "attention, backward": 2.5 * scores,
    }
    parts = {part: spent / args.rounds for part, spent in seconds.items()}
    return {"seconds": total, "parts": parts, "flops": flops, "tokens_per_second": tokens / total}


def as_table(result: dict[str, Any], peak: float) -> str:
    parts, total = dict(result["parts"]), result["seconds"]
    parts["everything else"] = total - sum(parts.values())
    rows = []
    for part, spent in sorted(parts.items(), key=lambda item: -item[1]):
        rate = result["flops"].get(part, 0.0) / spent
        share = [f"{rate / 1e12:.2f}", f"{rate / peak:.0%}"] if rate else ["", ""]
        rows.append([part, f"{spent * 1e3:,.0f}", f"{spent / total:.0%}", *share])
    rate = sum(result["flops"].values()) / total
    rows.append(["the step", f"{total * 1e3:,.0f}", "", f"{rate / 1e12:.2f}", f"{rate / peak:.0%}"])
    return table(["", "ms", "of the step", "TFLOP/s", "of the ceiling"], rows)


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--shapes", default="256x6,512x8,1024x16")
    parser.add_argument("--batch", type=int, default=8, help="sequences in an optimizer step")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=512)
    args = parse(parser)
    keep_freed_memory()
    peak = ceiling()
    text = [f"Batch {args.batch} x {args.seq}, micro-batch {args.micro_batch}, vocabulary {args.vocab}."]
    text += [f"Ceiling: a bfloat16 product of 2048 cubed, {peak / 1e12:.2f} TFLOP/s in the same run."]
    results = {}
    for shape in args.shapes.split(","):
        results[shape] = profile(args, shape)
        rate = results[shape]["tokens_per_second"]
        text += ["", f"**{shape}**, {rate:,.0f} tokens/s:", "", as_table(results[shape], peak)]
    found = {"arguments": vars(args), **environment(), "ceiling_flops": peak, "shapes": results}
    save("train_profile", found, "\n".join(text))


if __name__ == "__main__":
    main()
