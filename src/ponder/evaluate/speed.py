"""How fast an engine is here, and how much of what the machine could do that is."""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ponder.engine import Engine, TokenEvent
from ponder.kernels.ceilings import dram_read_bytes_per_second, matmul_flops
from ponder.kernels.fused import packed_bytes
from ponder.model.config import ModelConfig
from ponder.types import SamplingParams


@dataclass(frozen=True)
class Speed:
    """Tokens per second in each round: `decode` by the number of streams, all steps sampled at temperature 1.

    weights: how many a token meets, the head's included.
    weight_bytes: what one decoding step must read of them.
    dram, matmul: the machine's ceilings, in bytes and operations per second, measured between the rounds; empty where
        the model is not on the CPU.
    peak_bytes: the most that the process had taken, before the ceilings were measured; 0 where the system does not say.
    """

    prompt: int
    prefill: list[float]
    decode: dict[int, list[float]]
    weights: int
    weight_bytes: int
    dram: list[float]
    matmul: list[float]
    peak_bytes: int

    def of_dram(self, streams: int) -> float:
        """Share of the DRAM ceiling that reading the weights takes at this rate; beyond 1 they lie in a cache."""
        return statistics.median(self.decode[streams]) / streams * self.weight_bytes / statistics.median(self.dram)

    def of_matmul(self) -> float:
        """Share of the matrix-product ceiling that prefill takes, attention not counted."""
        return statistics.median(self.prefill) * 2 * self.weights / statistics.median(self.matmul)


def measure_speed(engine: Engine, streams: Sequence[int], *, prompt: int, new: int, rounds: int) -> Speed:
    """Prefill of one prompt and decoding of `new` tokens after it, for each number of streams.

    The engine is idle, of a bfloat16 model, and holds streams x (prompt + new) tokens. Prompts are random ids, none
    twice; a first round, of fewer tokens, warms up and is dropped.
    """
    config = engine.model.config
    rng = random.Random(0)
    prefill: list[float] = []
    decode: dict[int, list[float]] = {count: [] for count in streams}
    dram: list[float] = []
    matmul: list[float] = []
    threads, peak = torch.get_num_threads(), 0
    for round in range(1 + rounds):
        prompts = [[rng.randrange(config.vocab_size) for _ in range(prompt)] for _ in range(1 + max(streams))]
        prefill.append(prompt / prefill_seconds(engine, prompts.pop()))
        for count in streams:
            decode[count].append(decode_rate(engine, prompts[:count], new if round else min(new, 8)))
            rng.shuffle(prompts)
        peak = peak or peak_bytes()
        if round and engine.model.model.embed_tokens.weight.device.type == "cpu":
            dram.append(dram_read_bytes_per_second(threads))
            matmul.append(matmul_flops())
    weights, weight_bytes = _weights_of(engine)
    return Speed(
        prompt=prompt,
        prefill=prefill[1:],
        decode={count: rates[1:] for count, rates in decode.items()},
        weights=weights,
        weight_bytes=weight_bytes,
        dram=dram,
        matmul=matmul,
        peak_bytes=peak,
    )


def _weights_of(engine: Engine) -> tuple[int, int]:
    """(weights that a step reads, the head included; their bytes as they are packed)."""
    model, config = engine.model, engine.model.config
    rounded = {None: 2.0, "int8": 1.0, "int4": 0.625}[engine.quantize]
    total = 0.0
    for name, count in step_weights(config).items():
        total += count * (packed_bytes(model.block_types[name]) if name in model.block_types else rounded)
    return sum(step_weights(config).values()), round(total)


def step_weights(config: ModelConfig) -> dict[str, int]:
    """How many weights of each parameter a token meets: those of the blocks, and the head's."""
    head = "model.embed_tokens.weight" if config.tie_embeddings else "lm_head.weight"
    shapes = config.parameter_shapes().items()
    return {name: math.prod(shape) for name, shape in shapes if name == head or ".layers." in name}


def decode_rate(engine: Engine, prompts: Sequence[Sequence[int]], new: int) -> float:
    """Tokens per second, all streams together, from the moment when each has its first to its `new`-th."""
    waiting = {engine.submit(prompt, SamplingParams(max_tokens=new)) for prompt in prompts}
    while waiting:
        waiting -= {event.request for event in engine.step() if isinstance(event, TokenEvent)}
    began, tokens = time.perf_counter(), 0
    while engine.has_work:
        tokens += sum(isinstance(event, TokenEvent) for event in engine.step())
    return tokens / (time.perf_counter() - began)


def prefill_seconds(engine: Engine, prompt: Sequence[int]) -> float:
    """Seconds until the first token after the prompt."""
    began = time.perf_counter()
    engine.generate([prompt], SamplingParams(max_tokens=1))
    return time.perf_counter() - began


def peak_bytes() -> int:
    """The most memory that this process has had; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
