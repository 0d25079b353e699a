"""Training tokens per second: Ponder's model against transformers' Qwen3, in one loop, in one interleaved run.

Each contender starts from the same weights and takes the same steps: batch x seq tokens, bfloat16 products over float32
weights, mean cross entropy, AdamW (fused). Rounds are interleaved, so that a machine that drifts or is shared slows all
alike; the median and the spread over rounds are shown, and tokens per CPU-second, which depends less on neighbours.

    python bench/train_throughput.py --shape 256x6
    python bench/train_throughput.py --shape 512x8 --rounds 5 --steps 1
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from common import environment, options, parse, ratio, save, shape_config, spread
from common import table as markdown
from torch import Tensor, nn
from torch.nn import functional as F

from ponder.model.config import ModelConfig
from ponder.model.loss import Backend, next_token_loss
from ponder.model.transformer import Transformer

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass
class Contender:
    """One way to train: its own copy of the weights, its own optimizer."""

    name: str
    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer = field(init=False)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)

    def step(self, ids_BT: Tensor, targets_BT: Tensor, micro_batch: int) -> float:
        """One optimizer step over the batch, in micro-batches. Returns the mean loss."""
        pieces = list(zip(ids_BT.split(micro_batch), targets_BT.split(micro_batch), strict=True))
        total = 0.0
        for ids, targets in pieces:
            loss = self.loss(self.model, ids, targets) / len(pieces)
            loss.backward()
            total += loss.detach().item()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total


def transformers_loss(model: nn.Module, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids_BT, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten())


def ponder_loss(document_length: int, backend: Backend) -> Loss:
    def loss(model: nn.Module, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        assert isinstance(model, Transformer)
        documents_BT = None
        if document_length:
            documents_BT = (torch.arange(ids_BT.shape[1]) // document_length).expand_as(ids_BT)
        return next_token_loss(model, ids_BT, targets_BT, documents_BT=documents_BT, backend=backend)

    return loss


def contenders(config: ModelConfig, names: list[str], document_length: int) -> list[Contender]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    ours = Transformer(config)
    ours.compute_dtype = torch.bfloat16
    weights = ours.state_dict()

    def theirs() -> nn.Module:
        hf = {key: value for key, value in config.to_hf().items() if value is not None}
        model = Qwen3ForCausalLM(Qwen3Config(**hf))
        model.load_state_dict(weights, strict=False)
        model.tie_weights()
        return model

    # each is made only when asked for; compiled per model, so that one's cache does not evict the other's
    makers: dict[str, Callable[[], Contender]] = {
        "ponder": lambda: Contender("ponder", ours, ponder_loss(document_length, Backend.KERNELS)),
        "torchcompile": lambda: Contender("ponder, torch.compile", ours, ponder_loss(document_length, Backend.COMPILED)),
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
    first = {}
    for entrant in entrants:  # compiles, and warms up
        begun = time.perf_counter()
        first[entrant.name] = entrant.step(ids_BT, targets_BT, args.micro_batch)
        entrant.step(ids_BT, targets_BT, args.micro_batch)
        print(f"{entrant.name}: first loss {first[entrant.name]:.4f}, warm after {time.perf_counter() - begun:.0f} s")
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
    }


def table(result: dict[str, object]) -> str:
    """Markdown: median and range over rounds; ratios are medians of each round's own ratio."""
    wall: dict[str, list[float]] = result["tokens_per_second"]  # type: ignore[assignment]
    cpu: dict[str, list[float]] = result["tokens_per_cpu_second"]  # type: ignore[assignment]
    rows = []
    for name, rates in wall.items():
        faster = ""
        if "ponder" in wall and name != "ponder":
            by_wall, by_cpu = ratio(wall["ponder"], rates), ratio(cpu["ponder"], cpu[name])
            faster = f"{by_wall:.2f}x (CPU time: {by_cpu:.2f}x)"
        rows.append([name, spread(rates), f"{statistics.median(cpu[name]):,.0f}", faster])
    return markdown(["", "tokens/s, median (range)", "tokens per CPU-second", "ponder is faster by"], rows)


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--batch", type=int, default=16, help="sequences in an optimizer step")
    parser.add_argument("--micro-batch", type=int, default=16, help="sequences in a forward pass, for all contenders")
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--document-length", type=int, default=0, help="ponder alone: packed documents of this length")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of each contender in a round")
    parser.add_argument("--contenders", default="ponder,eager,compiled")
    args = parse(parser)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    result = measure(args)
    print(
        f"\n{args.shape}, batch {args.batch} x {args.seq}, micro-batch {args.micro_batch}, vocabulary {args.vocab}:\n"
    )
    print(table(result))
    save(f"train_throughput-{args.shape}-micro{args.micro_batch}-threads{result['threads']}", result)


if __name__ == "__main__":
    main()
