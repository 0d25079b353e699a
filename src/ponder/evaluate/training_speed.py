"""How fast a model trains here, on what a training stage would run on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ponder.evaluate.speed import step_weights
from ponder.kernels.ceilings import matmul_flops
from ponder.model.loss import Backend, can_compile, kernel_obstacle, next_token_loss, training_stack
from ponder.model.transformer import Transformer


@dataclass(frozen=True)
class TrainingSpeed:
    """Tokens per second of whole optimizer steps, in each round.

    rows, tokens: of a step, rows of that many tokens.
    rates: by what the blocks run on.
    obstacle: why they do not run on the kernels; "" if they do.
    weights: how many a token meets, the head's included.
    matmul: operations per second of a matrix product, measured between the rounds; empty on a GPU.
    """

    rows: int
    tokens: int
    rates: Mapping[Backend, list[float]]
    obstacle: str
    weights: int
    matmul: list[float]

    def of_matmul(self, backend: Backend) -> float:
        """Share of the matrix-product ceiling that a step takes: 6 operations a weight and token, attention not
        counted."""
        return statistics.median(self.rates[backend]) * 6 * self.weights / statistics.median(self.matmul)


def measure_training(model: Transformer, *, rows: int = 4, tokens: int = 512, rounds: int) -> TrainingSpeed:
    """Optimizer steps of AdamW on random ids, full rows, products in bfloat16 where the processor has them.

    Rows are cut to the model's window. A first step builds and compiles, and is dropped. The model is float32, and is
    changed: its weights move.
    """
    model.compute_dtype = torch.bfloat16
    device = model.model.embed_tokens.weight.device
    obstacle = kernel_obstacle(model)
    elsewhere = [Backend.TORCH, *([Backend.COMPILED] if can_compile(model) else [])]
    tokens = min(tokens, model.config.max_positions)
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.vocab_size
    ids, targets = (torch.randint(0, vocabulary, (rows, tokens), generator=generator).to(device) for _ in range(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    rates: dict[Backend, list[float]] = {backend: [] for backend in (elsewhere if obstacle else [Backend.KERNELS])}
    matmul: list[float] = []
    for number in range(1 + rounds):
        for backend, found in rates.items():
            began = time.perf_counter()
            stack = training_stack(model) if backend is Backend.KERNELS else None
            next_token_loss(model, ids, targets, backend=backend, stack=stack).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            found.append(rows * tokens / (time.perf_counter() - began))
        if number and device.type == "cpu":
            matmul.append(matmul_flops())
    return TrainingSpeed(
        rows=rows,
        tokens=tokens,
        rates={backend: found[1:] for backend, found in rates.items()},
        obstacle=obstacle,
        weights=sum(step_weights(model.config).values()),
        matmul=matmul,
    )
