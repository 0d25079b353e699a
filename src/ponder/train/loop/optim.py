"""Optimizers over float32 master weights, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ponder.train.loop.learner import Beside
from ponder.train.loop.world import divided_as
from ponder.train.recipe.sections import Optimizer, OptimRecipe, Precision, Schedule
from ponder.types import CheckpointError


class Optim:
    """One or two torch optimizers stepped as one, with a flat state of named tensors (no pickle).

    parameters: everything that trains, in the order of the model, then of what stands beside it.
    """

    def __init__(self, model: nn.Module, recipe: OptimRecipe, beside: Beside | None = None) -> None:
        """beside: trained by AdamW, whatever the recipe's optimizer."""
        assert recipe.lr is not None, "resolve() the recipe first"
        assert recipe.muon_lr is not None, "resolve() the recipe first"
        named = _trained(model)
        muon = {name for name, p in named.items() if recipe.name is Optimizer.MUON and _is_block_matrix(name, p)}
        groups = _groups([p for name, p in named.items() if name not in muon], recipe.weight_decay, recipe.lr)
        if beside is not None:
            own = _trained(beside.module)
            groups += _groups(own.values(), recipe.weight_decay, recipe.lr if beside.lr is None else beside.lr)
            named |= {f"beside.{name}": p for name, p in own.items()}
        self.parameters = list(named.values())
        self._names: dict[Tensor, str] = {p: name for name, p in named.items()}
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, betas=(recipe.beta1, recipe.beta2), fused=True)
        ]
        if muon:
            matrices = [named[name] for name in sorted(muon)]
            kind = torch.optim.Muon if recipe.muon_precision is Precision.BF16 else MuonFloat32
            optimizer = kind(
                matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            self._optimizers.append(optimizer)
        self._full = [(group, group["lr"]) for optimizer in self._optimizers for group in optimizer.param_groups]

    def step(self, scale: float) -> None:
        """One update at `scale` (from `lr_scale`) of the full learning rates; clears the gradients."""
        for group, lr in self._full:
            group["lr"] = lr * scale
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """`parameter name|key` → tensor, for every tensor of optimizer state."""
        return {name: value.cpu().contiguous() for name, value in self.named_state().items()}

    def named_state(self) -> dict[str, Tensor]:
        """As `state`, where it is and without copies."""
        return {
            f"{self._names[parameter]}|{key}": torch.as_tensor(value).detach()
            for optimizer in self._optimizers
            for parameter, state in optimizer.state.items()
            for key, value in state.items()
        }

    def load_state(self, stored: dict[str, Tensor], source: str) -> None:
        """Take up the state that `state` gave. `CheckpointError` when it is another model's."""
        parameters = {name: parameter for parameter, name in self._names.items()}
        owner = {p: o for o in self._optimizers for group in o.param_groups for p in group["params"]}
        for key, value in stored.items():
            name, _, field = key.rpartition("|")
            parameter = parameters.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                raise CheckpointError(
                    f"{source}: key {key!r} does not belong to this model: resume with the recipe that the "
                    "run began with"
                )
            # AdamW counts its steps in a 0-d float tensor, which its fused kernels want beside the parameter.
            owner[parameter].state[parameter][field] = divided_as(value, parameter).to(parameter.device)


class MuonFloat32(torch.optim.Muon):
    """Muon with its iteration in float32 instead of bfloat16, which turns the last bits of a gradient into another
    update: 1e-5 of a weight in one step. It takes twice the memory for that, and longer on processors with bf16
    products."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # the loop has no closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = _orthogonal(
                    parameter.grad.lerp(buffer, group["momentum"]), group["ns_coefficients"], group["ns_steps"]
                )
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape)))


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """U V^T of U S V^T, nearly: Newton and Schulz's iteration, in the matrix's dtype (arXiv 2502.16982)."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _groups(parameters: Iterable[nn.Parameter], weight_decay: float, lr: float) -> list[dict[str, Any]]:
    """Vectors (norms and biases) do not decay."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay, "lr": lr},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "lr": lr},
    ]


def _is_block_matrix(name: str, parameter: Tensor) -> bool:
    """The matrices inside the blocks: what Muon orthogonalises (arXiv 2502.16982)."""
    return parameter.ndim == 2 and ".layers." in name


def lr_scale(step: int, steps: int, recipe: OptimRecipe) -> float:
    """The share of the full learning rate at `step` of `steps` (0-based): linear warm-up, then the schedule."""
    warmup = math.ceil(recipe.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    left = steps - warmup
    match recipe.schedule:
        case Schedule.COSINE:
            down = 0.5 * (1 + math.cos(math.pi * (step - warmup) / left))
        case Schedule.LINEAR:
            down = 1 - (step - warmup) / left
        case Schedule.WSD:
            decay = max(1, math.ceil(recipe.decay * steps))
            down = min(1.0, (steps - step) / decay)
    return recipe.final + (1 - recipe.final) * down
