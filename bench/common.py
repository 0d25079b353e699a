"""What the benchmarks share: options, models, the machine they ran on, medians with ranges, results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ponder.model.config import ModelConfig
from ponder.model.transformer import Transformer

RESULTS = Path(__file__).parent / "results"

SHAPES = {
    "256x6": {"hidden_size": 256, "num_layers": 6, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 704},
    "384x8": {"hidden_size": 384, "num_layers": 8, "num_heads": 6, "num_kv_heads": 3, "intermediate_size": 1056},
    "512x8": {"hidden_size": 512, "num_layers": 8, "num_heads": 8, "num_kv_heads": 4, "intermediate_size": 1408},
    "1024x16": {"hidden_size": 1024, "num_layers": 16, "num_heads": 16, "num_kv_heads": 8, "intermediate_size": 2816},
    "135m": {"hidden_size": 576, "num_layers": 30, "num_heads": 9, "num_kv_heads": 3, "intermediate_size": 1536},
    "0.6b": {
        "hidden_size": 1024,
        "num_layers": 28,
        "num_heads": 16,
        "num_kv_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    },
}


# Llama 3.2 1B's sizes: large enough that a GPU is busy with one stream.
SHAPES["1b"] = {"hidden_size": 2048, "num_layers": 16, "num_heads": 32, "num_kv_heads": 8, "intermediate_size": 8192}


def options(doc: str | None, *, rounds: int, shapes: Sequence[str] = tuple(SHAPES)) -> argparse.ArgumentParser:
    """A parser that knows the options of every benchmark."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=shapes, default="256x6", help="width x layers")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=rounds, help="of all contenders, one after the other")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; torch has its threads."""
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def shape_config(shape: str, vocab: int, max_positions: int) -> ModelConfig:
    return ModelConfig(vocab_size=vocab, max_positions=max_positions, **{"head_dim": 64, **SHAPES[shape]})


def random_model(shape: str, vocab: int, max_positions: int, dtype: torch.dtype) -> Transformer:
    """Random weights, the same on every call, spread so that what is generated varies (a freshly made model repeats its
    last token)."""
    model = Transformer(shape_config(shape, vocab, max_positions))
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.to(dtype)


def random_ids(count: int, vocab: int, generator: torch.Generator) -> list[int]:
    """Ids 2 to vocab - 1: what a benchmark uses as control tokens is never among them."""
    return torch.randint(2, vocab, (count,), generator=generator).tolist()


def environment() -> dict[str, object]:
    """Where a result comes from. load: processes that wanted a core in the last minute, this one included."""
    return {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def spread(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """Median and range."""
    middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle}{unit} ({low}-{high})"


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median over rounds of each round's own ratio a / b: a machine that drifts slows both alike."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values lie below."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def save(name: str, result: Mapping[str, object], text: str | None = None) -> None:
    """Write results/NAME.json and, with a text, results/NAME.md; print the text and where it is."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if text is not None:
        print(f"\n{text}")
        path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")
