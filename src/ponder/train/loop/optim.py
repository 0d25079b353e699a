"""Optimizers over float32 master weights, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ponder.train.recipe.sections import Optimizer, OptimRecipe, Schedule
from ponder.types import CheckpointError


class Optim:
    """One or two torch optimizers stepped as one, with a flat state of named tensors (no pickle)."""

    def __init__(self, model: nn.Module, recipe: OptimRecipe) -> None:
        self.recipe = recipe
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        muon = {name for name, p in named.items() if recipe.name is Optimizer.MUON and _is_block_matrix(name, p)}
        assert recipe.lr is not None, "resolve() the recipe first"
        assert recipe.muon_lr is not None, "resolve() the recipe first"
        adamw = [(name, p) for name, p in named.items() if name not in muon]
        groups = [
            {"params": [p for _, p in adamw if p.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [p for _, p in adamw if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._names: dict[Tensor, str] = {p: name for name, p in named.items()}
        betas = (recipe.beta1, recipe.beta2)
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, fused=True), recipe.lr)
        ]
        if muon:
            matrices = [named[name] for name in sorted(muon)]
            optimizer = torch.optim.Muon(
                matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            self._optimizers.append((optimizer, recipe.muon_lr))

    def step(self, scale: float) -> None:
        """One update at `scale` (from `lr_scale`) of the full learning rates; clears the gradients."""
        for optimizer, lr in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """`parameter name|key` → tensor, for every tensor of optimizer state."""
        return dict(self._state())

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for optimizer, _ in self._optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    yield f"{self._names[parameter]}|{key}", torch.as_tensor(value).detach().cpu().contiguous()

    def load_state(self, stored: dict[str, Tensor], source: str) -> None:
        """Take up the state that `state` gave. `CheckpointError` when it is another model's."""
        parameters = {name: parameter for parameter, name in self._names.items()}
        owner = {p: o for o, _ in self._optimizers for group in o.param_groups for p in group["params"]}
        for key, value in stored.items():
            name, _, field = key.rpartition("|")
            parameter = parameters.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                raise CheckpointError(f"{source}: key {key!r} does not belong to this model; was the recipe changed?")
            # AdamW counts its steps in a 0-d float tensor, which its fused kernels want beside the parameter.
            owner[parameter].state[parameter][field] = value.to(parameter.device)


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
