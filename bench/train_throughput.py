"""Training tokens per second: Ponder's model against transformers' Qwen3, in one loop, in one interleaved run.

Each contender starts from the same weights and takes the same steps: batch x seq tokens, products in bfloat16 (in
float32 where the processor has no others, or with --held-to) over float32 weights, mean cross entropy, AdamW (fused).
Rounds are interleaved, so that a machine that drifts or is shared slows all alike; the median and the spread over
rounds are shown, and tokens per CPU-second, which depends less on neighbours.
Memory is measured for each contender in a separate process (--memory): the largest resident set during a step after
the first, so that compilers do not count.

    python bench/train_throughput.py --shape 256x6
    python bench/train_throughput.py --shape 512x8 --rounds 5 --steps 1
    python bench/train_throughput.py --shape 256x6 --micro-batch 4 --held-to avx2
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import environment, options, parse, ratio, save, shape_config, spread
from common import table as markdown
from torch import Tensor, nn
from torch.nn import functional as F

from ponder.kernels.machine import InstructionSet, held_to, machine
from ponder.kernels.training import TrainingStack
from ponder.model.config import ModelConfig
from ponder.model.hf_config import config_to_hf
from ponder.model.loss import Backend, next_token_loss, training_stack
from ponder.model.transformer import Transformer
from ponder.train.loop.fit import keep_freed_memory

Loss = Callable[[nn.Module, Tensor, Tensor, TrainingStack | None], Tensor]


@dataclass
class Contender:
    """One way to train: its own copy of the weights, its own optimizer."""

    name: str
    model: nn.Module
    loss: Loss
    kernels: bool = False
    optimizer: torch.optim.Optimizer = field(init=False)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)

    def step(self, ids_BT: Tensor, targets_BT: Tensor, micro_batch: int) -> float:
        """One optimizer step over the batch, in micro-batches. Returns the mean loss."""
        pieces = list(zip(ids_BT.split(micro_batch), targets_BT.split(micro_batch), strict=True))
        stack = training_stack(self.model) if self.kernels and isinstance(self.model, Transformer) else None
        total = 0.0
        for ids, targets in pieces:
            loss = self.loss(self.model, ids, targets, stack) / len(pieces)
            loss.backward()
            total += loss.detach().item()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total


def transformers_loss(model: nn.Module, ids_BT: Tensor, targets_BT: Tensor, _: TrainingStack | None) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=machine().dtype == torch.bfloat16):
        logits = model(ids_BT, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten())


def ponder_loss(document_length: int, backend: Backend) -> Loss:
    def loss(model: nn.Module, ids_BT: Tensor, targets_BT: Tensor, stack: TrainingStack | None) -> Tensor:
        assert isinstance(model, Transformer)
        documents_BT = None
        if document_length:
            documents_BT = (torch.arange(ids_BT.shape[1]) // document_length).expand_as(ids_BT)
        return next_token_loss(model, ids_BT, targets_BT, documents_BT=documents_BT, backend=backend, stack=stack)

    return loss


def contenders(config: ModelConfig, names: list[str], document_length: int) -> list[Contender]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    ours = Transformer(config)
    ours.compute_dtype = torch.bfloat16
    weights = ours.state_dict()

    def theirs() -> nn.Module:
        hf = {key: value for key, value in config_to_hf(config).items() if value is not None}
        model = Qwen3ForCausalLM(Qwen3Config(**hf))
        model.load_state_dict(weights, strict=False)
        model.tie_weights()
        return model

    # each is made only when asked for; compiled per model, so that one's cache does not evict the other's
    makers: dict[str, Callable[[], Contender]] = {
        "ponder": lambda: Contender("ponder", ours, ponder_loss(document_length, Backend.KERNELS), kernels=True),
        "torch": lambda: Contender("ponder, torch.compile", ours, ponder_loss(document_length, Backend.COMPILED)),
        "eager": lambda: Contender("transformers, eager", theirs(), transformers_loss),
        "compiled": lambda: Contender(
            "transformers, compiled", theirs(), torch.compile(transformers_loss, dynamic=False)
        ),
    }
    return [makers[name]() for name in names]


def measure(args: argparse.Namespace) -> dict[str, object]:
    config = shape_config(args.shape, args.vocab, args.seq)
    entrants = contenders(config, args.contenders.split(","), args.document_length)
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, args.seq)
    ids_BT, targets_BT = (torch.randint(0, args.vocab, shape, generator=generator) for _ in range(2))
    first, ready = {}, {}
    for entrant in entrants:  # compiles, and warms up
        begun = time.perf_counter()
        first[entrant.name] = entrant.step(ids_BT, targets_BT, args.micro_batch)
        ready[entrant.name] = time.perf_counter() - begun
        entrant.step(ids_BT, targets_BT, args.micro_batch)
        print(
            f"{entrant.name}: first loss {first[entrant.name]:.4f}, first step {ready[entrant.name]:.1f} s", flush=True
        )
    if not args.document_length and max(first.values()) - min(first.values()) > 0.01:
        raise SystemExit(f"the contenders do not compute the same loss: {first}")
    for _ in range(args.rounds):
        for entrant in entrants:
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(args.steps):
                entrant.step(ids_BT, targets_BT, args.micro_batch)
            tokens = args.steps * args.batch * args.seq
            entrant.wall.append(tokens / (time.perf_counter() - wall))
            entrant.cpu.append(tokens / (time.process_time() - cpu))
    return {
        "arguments": vars(args),
        "parameters": config.num_parameters,
        **environment(),
        "tokens_per_second": {entrant.name: entrant.wall for entrant in entrants},
        "tokens_per_cpu_second": {entrant.name: entrant.cpu for entrant in entrants},
        "first_loss": first,
        "first_step_seconds": ready,
    }


def peak_memory(args: argparse.Namespace) -> int:
    """MiB: the largest resident set of this process during a step that compiles nothing (Linux)."""
    (entrant,) = contenders(shape_config(args.shape, args.vocab, args.seq), [args.memory_of], args.document_length)
    ids_BT = torch.zeros(args.batch, args.seq, dtype=torch.long)
    entrant.step(ids_BT, ids_BT, args.micro_batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here on
    entrant.step(ids_BT, ids_BT, args.micro_batch)
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024  # type: ignore[index]


def memories(args: argparse.Namespace) -> dict[str, int]:
    """`peak_memory` of every contender, each in a separate process."""
    peaks = {}
    for name in args.contenders.split(","):
        command = [sys.executable, *sys.argv, "--memory-of", name]
        peaks[name] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        print(f"{name}: at most {peaks[name]:,} MiB", flush=True)
    return peaks


def table(result: dict[str, object]) -> str:
    """Markdown: median and range over rounds; ratios are medians of each round's own ratio."""
    wall: dict[str, list[float]] = result["tokens_per_second"]  # type: ignore[assignment]
    cpu: dict[str, list[float]] = result["tokens_per_cpu_second"]  # type: ignore[assignment]
    first: dict[str, float] = result["first_step_seconds"]  # type: ignore[assignment]
    rows = []
    for name, rates in wall.items():
        faster = ""
        if "ponder" in wall and name != "ponder":
            by_wall, by_cpu = ratio(wall["ponder"], rates), ratio(cpu["ponder"], cpu[name])
            faster = f"{by_wall:.2f}x (CPU time: {by_cpu:.2f}x)"
        rows.append([name, spread(rates), f"{statistics.median(cpu[name]):,.0f}", faster, f"{first[name]:.1f}"])
    head = ["", "tokens/s, median (range)", "tokens per CPU-second", "ponder is faster by", "first step, s"]
    return markdown(head, rows)


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--batch", type=int, default=16, help="sequences in an optimizer step")
    parser.add_argument("--micro-batch", type=int, default=16, help="sequences in a forward pass, for all contenders")
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--document-length", type=int, default=0, help="ponder alone: packed documents of this length")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of each contender in a round")
    parser.add_argument("--contenders", default="ponder,eager,compiled")
    parser.add_argument("--memory", action="store_true", help="peak memory of each contender instead of its speed")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--held-to", choices=list(InstructionSet), help="run as on a processor of this lower class")
    args = parse(parser)
    if args.held_to and any(os.environ.get(name) != value for name, value in held_to(args.held_to).items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | held_to(args.held_to))
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    case = f"{args.shape}, batch {args.batch} x {args.seq}, micro-batch {args.micro_batch}, vocabulary {args.vocab}"
    if args.memory_of:
        print(peak_memory(args))
        return
    if args.memory:
        peaks = memories(args)
        text = markdown(["", "peak memory, MiB"], [[name, f"{peak:,}"] for name, peak in peaks.items()])
        result = {"arguments": vars(args), **environment(), "peak_mib": peaks}
        save(f"train_memory-{args.shape}-vocab{args.vocab}", result, f"{case}:\n\n{text}")
        return
    keep_freed_memory()  # for all of them, as `ponder train` does
    result = measure(args)
    held = f"-{args.held_to}" if args.held_to else ""
    name = f"train_throughput-{args.shape}-micro{args.micro_batch}-threads{result['threads']}{held}"
    save(name, result, f"{case}, {result['threads']} threads, {machine()}:\n\n{table(result)}")


if __name__ == "__main__":
    main()
