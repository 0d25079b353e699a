"""`ponder bench`: how fast a model runs, or trains, on this machine, and what stands in the way of more."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import add_quantize, positive
from ponder.sampler.opening import BUNDLED, find_model
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.engine import Engine
    from ponder.evaluate.speed import Speed
    from ponder.evaluate.training_speed import TrainingSpeed
    from ponder.model.transformer import Transformer

NAME = "bench"
HELP = "measure prefill and decoding, or training, on this machine, beside the machine's ceilings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", default=BUNDLED, metavar="MODEL", help="a bundled model, a folder or a GGUF file"
    )
    parser.add_argument("--train", action="store_true", help="training steps of 4 x 512 tokens instead")
    parser.add_argument("--streams", type=counts, default=(1, 8, 64), metavar="N,N", help="default: 1,8,64")
    parser.add_argument("--prompt", type=positive, default=128, metavar="N", help="tokens of a prompt (default: 128)")
    parser.add_argument("--new", type=positive, default=64, metavar="N", help="tokens of an answer (default: 64)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="measured rounds (default: 3)")
    parser.add_argument("--kernel", choices=("auto", "torch", "fused"), default="auto", help="default: auto")
    add_quantize(parser)
    parser.add_argument("--device", default="cpu", metavar="D", help="such as cuda (default: cpu)")
    parser.add_argument("--threads", type=positive, metavar="N", help="of the processor (default: torch's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1 with commas between, for argparse."""
    return tuple(positive(part) for part in text.split(","))


def run(args: argparse.Namespace) -> int:
    import torch

    from ponder.engine import Engine
    from ponder.engine.kernel import load_to_run
    from ponder.evaluate.speed import measure_speed
    from ponder.model.storage import write_text
    from ponder.types import PhaseTokens

    if args.new < 2:
        raise InvalidRequest("--new must be at least 2 (got 1): decoding is timed from the first token to the last")
    if args.json and not args.json.absolute().parent.is_dir():
        raise InvalidRequest(
            f"--json {args.json}: the folder {args.json.absolute().parent} does not exist: make it first"
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    path = find_model(args.model)
    if args.train:
        return train(args, path)
    dtype = None if path.is_file() else torch.bfloat16
    model = load_to_run(path, dtype=dtype, device=device(args.device), kernel=args.kernel, quantize=args.quantize)
    engine = Engine(
        model,
        PhaseTokens(),
        max_batch=max(args.streams),
        window=args.prompt + args.new,
        share_prefixes=False,
        kernel=args.kernel,
        quantize=args.quantize,
    )
    speed = measure_speed(engine, args.streams, prompt=args.prompt, new=args.new, rounds=args.rounds)
    print(speed_text(engine, speed))
    if args.json:
        write_text(args.json, json.dumps(speed_numbers(engine, speed), indent=1) + "\n")
    return 0


def train(args: argparse.Namespace, path: Path) -> int:
    import torch

    from ponder.evaluate.training_speed import measure_training
    from ponder.model.checkpoint import load_model
    from ponder.model.storage import write_text

    if args.quantize or args.kernel != "auto":
        option = f"--quantize {args.quantize}" if args.quantize else f"--kernel {args.kernel}"
        raise InvalidRequest(
            f"--train does not go with {option}: weights train in float32, on what a stage would choose"
        )
    model = load_model(path, dtype=torch.float32, device=device(args.device))
    speed = measure_training(model, rounds=args.rounds)
    print(training_text(model, speed))
    if args.json:
        write_text(args.json, json.dumps(training_numbers(model, speed), indent=1) + "\n")
    return 0


def training_text(model: Transformer, speed: TrainingSpeed) -> str:
    from ponder.kernels.machine import machine

    product = f"{machine().products} matrix product"
    lines = [
        f"{model.config.num_parameters:,} parameters, {threads()} threads, "
        f"AdamW, steps of {speed.rows} x {speed.tokens} tokens",
        *([f"processor: {machine()}"] if speed.matmul else []),
        *([f"not on the training kernels: {speed.obstacle}"] if speed.obstacle else []),
    ]
    for backend, rates in speed.rates.items():
        reached = share(speed.of_matmul(backend), product) if speed.matmul else ""
        lines.append(f"training, {backend}: {middle(rates)} tokens/s{reached}")
    best = max(statistics.median(rates) for rates in speed.rates.values())
    lines.append(f"an hour trains on {best * 3600 / 1e6:,.1f} million tokens")
    if speed.matmul:
        lines.append(f"ceiling measured beside it: {product} {statistics.median(speed.matmul) / 1e12:.2f} TFLOP/s")
    return "\n".join(lines)


def training_numbers(model: Transformer, speed: TrainingSpeed) -> dict[str, object]:
    """What `--json` writes. processor: null where the model is not on the CPU."""
    from ponder.kernels.machine import machine

    return {
        "parameters": model.config.num_parameters,
        "processor": str(machine()) if speed.matmul else None,
        "obstacle": speed.obstacle,
        "threads": threads(),
        "rows": speed.rows,
        "tokens": speed.tokens,
        "training_tokens_per_second": {str(backend): rates for backend, rates in speed.rates.items()},
        "matmul_flops": speed.matmul,
    }


def weights_text(engine: Engine) -> str:
    """What the weights are kept in."""
    stored = sorted({type.name for type in engine.model.block_types.values()})
    return engine.quantize or (f"as stored ({', '.join(stored)})" if stored else "bfloat16")


def device(name: str) -> str:
    """Raises InvalidRequest for a device that is not here."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InvalidRequest(f"--device {name}: {str(error).splitlines()[0]}") from None
    return name


def speed_text(engine: Engine, speed: Speed) -> str:
    from ponder.kernels.machine import machine

    kernel, reason = engine.kernel
    product = f"{machine().products} matrix product"
    lines = [
        f"{engine.model.config.num_parameters:,} parameters, {weights_text(engine)}, {threads()} threads",
        *([f"processor: {machine()}"] if speed.matmul else []),
        f"kernel: {kernel}" + (f" ({reason})" if reason else ""),
        *([f"weights meet: {engine.products.kernel} ({engine.products.reason})"] if engine.products else []),
        f"prefill of {speed.prompt:,} tokens: {middle(speed.prefill)} tokens/s"
        + (share(speed.of_matmul(), product) if speed.matmul else ""),
    ]
    for streams, rates in speed.decode.items():
        name = f"decoding, {streams} {'stream' if streams == 1 else 'streams'}: {middle(rates)} tokens/s"
        lines.append(name + (share(speed.of_dram(streams), "DRAM read, weights alone") if speed.dram else ""))
    if speed.dram:
        lines.append(
            f"ceilings measured beside it: DRAM read {statistics.median(speed.dram) / 1e9:.1f} GB/s, {product} "
            f"{statistics.median(speed.matmul) / 1e12:.2f} TFLOP/s"
        )
    if speed.peak_bytes:
        lines.append(f"most memory taken: {speed.peak_bytes / 2**20:,.0f} MiB")
    return "\n".join(lines)


def speed_numbers(engine: Engine, speed: Speed) -> dict[str, object]:
    """What `--json` writes. processor: null where the model is not on the CPU."""
    from ponder.kernels.machine import machine

    return {
        "parameters": engine.model.config.num_parameters,
        "processor": str(machine()) if speed.matmul else None,
        "kernel": engine.kernel.kernel,
        "reason": engine.kernel.reason,
        "quantize": engine.quantize,
        "products": engine.products.kernel if engine.products else None,
        "threads": threads(),
        "prompt": speed.prompt,
        "prefill_tokens_per_second": speed.prefill,
        "decode_tokens_per_second": {str(streams): rates for streams, rates in speed.decode.items()},
        "weight_bytes": speed.weight_bytes,
        "dram_bytes_per_second": speed.dram,
        "matmul_flops": speed.matmul,
        "peak_bytes": speed.peak_bytes,
    }


def middle(rates: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"


def share(part: float, of: str) -> str:
    return f", {part:.0%} of the ceiling ({of})" if part <= 1 else f" (faster than {of}: out of the caches)"


def threads() -> int:
    import torch

    return torch.get_num_threads()
