"""Adapters in one batch: tokens per second with no adapter, with one for all streams, and with another for each stream.

All three run over one copy of the model, in interleaved rounds on the same engine. Rank 16 beside every projection,
random. Rates by CPU time depend least on neighbours.

    python bench/adapters.py MODEL                         # a folder, or a GGUF file
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import environment, random_ids, ratio, save, spread, table

from ponder.engine import Engine
from ponder.engine.kernel import load_to_run
from ponder.model.config import PROJECTIONS
from ponder.model.lora import Adapter
from ponder.model.transformer import Linear, Transformer
from ponder.types import PhaseTokens, SamplingParams

PROMPT = 32  # tokens


def random_adapter(model: Transformer, rank: int, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear) and name.rpartition(".")[2] in PROJECTIONS:
            down = torch.randn(rank, module.in_features, generator=generator) / module.in_features**0.5
            up = torch.randn(module.out_features, rank, generator=generator) * 0.02
            pairs[name] = down.bfloat16(), up.bfloat16()
    return Adapter(pairs)


def run(engine: Engine, names: list[str], prompts: list[list[int]], tokens: int) -> tuple[float, float]:
    """(tokens per second, tokens per CPU-second) of decoding; the prompts are computed before the clock starts."""
    params = SamplingParams(max_tokens=tokens, seed=1)
    for name, prompt in zip(names, prompts, strict=True):
        engine.submit(prompt, params, adapter=name)
    engine.step()
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while engine.has_work:
        count += len(engine.step())
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--name", default="adapters", help="of the result in bench/results")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = load_to_run(args.model)
    window = PROMPT + args.tokens + 16
    engine = Engine(model, PhaseTokens(), max_batch=args.streams, window=window, share_prefixes=False)
    for number in range(args.streams):
        engine.add_adapter(str(number), random_adapter(model, args.rank, number))
    generator = torch.Generator().manual_seed(0)
    prompts = [random_ids(PROMPT, model.config.vocab_size, generator) for _ in range(args.streams)]
    arms = {
        "no adapter": [""] * args.streams,
        "one adapter": ["0"] * args.streams,
        f"{args.streams} adapters": [str(number) for number in range(args.streams)],
    }
    for names in arms.values():
        run(engine, names, prompts, 2)  # packs what it names
    rounds = [
        {arm: run(engine, names, prompts, args.tokens) for arm, names in arms.items()} for _ in range(args.rounds)
    ]
    columns = {arm: [[each[arm][clock] for each in rounds] for clock in (0, 1)] for arm in arms}
    rows = [
        [arm, spread(wall), spread(cpu), f"{ratio(cpu, columns['one adapter'][1]):.2f}"]
        for arm, (wall, cpu) in columns.items()
    ]
    text = table([f"{args.streams} streams, rank {args.rank}", "tokens/s", "tokens/CPU-s", "of one adapter"], rows)
    result = {
        **environment(),
        **vars(args),
        "model": Path(args.model).name,
        "kernel": engine.computes,
        "rates": columns,
    }
    save(args.name, result, f"{engine.computes}\n\n{text}")


if __name__ == "__main__":
    main()
