"""The learner of reinforcement learning: sampled answers with advantages in, the gradient of a policy loss out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor

from ponder.kernels.training import TrainingStack
from ponder.model.loss import (
    Backend,
    head_weight,
    last_hidden,
    linear_cross_entropy,
    linear_logprobs,
    training_stack,
)
from ponder.model.transformer import Transformer
from ponder.train.loop.learner import on
from ponder.train.policy.lessons import Experience
from ponder.train.policy.losses import policy_loss
from ponder.train.recipe.sections import GrpoRecipe, Objective


class PolicyGradient:
    """The losses of one step's updates, and what they tell. reference: frozen; None where no penalty holds it close."""

    def __init__(self, recipe: GrpoRecipe, model: Transformer) -> None:
        """model: as the stage starts from it; copied when the recipe has a penalty for leaving it."""
        self.recipe = recipe
        self.reference = deepcopy(model).requires_grad_(False).eval() if recipe.kl else None
        self._stack: TrainingStack | None = None  # of the reference, which never changes
        self._policy = recipe.objective is Objective.POLICY
        self.begin_step()

    def begin_step(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._updates = 0
        self._difference: Tensor | None = None
        self.reference_positions = 0  # that the reference has read since the step began

    def losses(self, model: Transformer, batches: Sequence[Experience], backend: Backend) -> Iterator[Tensor]:
        """As `Learner.losses`."""
        stack = training_stack(model) if backend is Backend.KERNELS else None
        for each in batches:
            yield self._loss(model, each, backend, stack)
        self._updates += 1

    def metrics(self) -> dict[str, float]:
        """Means over the tokens that the step's updates learned from, as they weigh in the loss (answers without
        advantage, which are left out, would only thin them). engine_difference: the largest difference of a token's
        log-probability between the engine that sampled it and the weights before the step's first update: what is left
        is rounding."""
        weight = float(self._sums.pop("weight", 1.0))
        told = {name: float(total) / weight for name, total in self._sums.items()}
        if self._difference is not None:
            told["engine_difference"] = float(self._difference)
        return told

    def _loss(self, model: Transformer, each: Experience, backend: Backend, stack: TrainingStack | None) -> Tensor:
        """The loss of a micro-batch, whose gradient comes from `linear_cross_entropy`: it is given what the loss's
        derivative by each log-probability is, so that logits never exist all at once."""
        device = next(model.parameters()).device
        ids, targets, weights, documents, positions = on(device, each.batch)
        x_ND = last_hidden(model, ids, documents, positions, backend=backend, stack=stack)
        at_N = weights.flatten().nonzero()[:, 0]
        if backend is Backend.COMPILED:  # for one shape of the rows
            at_N = torch.arange(weights.numel(), device=device)
        x_ND = self._scaled(x_ND.index_select(0, at_N))
        targets_N, weights_N = targets.flatten()[at_N], weights.flatten()[at_N]
        arrays = (each.old_BT, each.advantages_BT, each.trajectories_BT)
        old_N, advantages_N, trajectories_N = (torch.from_numpy(a).to(device).flatten()[at_N] for a in arrays)
        new_N, _ = linear_logprobs(x_ND.detach(), head_weight(model).detach(), targets_N)
        self._compare(new_N, old_N, weights_N)
        if self._policy:
            reference_N = self._reference_logprobs(model, each, at_N, backend)
            loss, derivative_N = self._policy_loss(
                new_N, old_N, advantages_N, weights_N, trajectories_N.long(), reference_N
            )
        else:
            loss, derivative_N = -(weights_N * new_N).sum(), -weights_N
        through = linear_cross_entropy(x_ND, head_weight(model), targets_N, -derivative_N, backend=backend)
        return loss + (through - through.detach())

    def _policy_loss(
        self,
        new_N: Tensor,
        old_N: Tensor,
        advantages_N: Tensor,
        weights_N: Tensor,
        trajectories_N: Tensor,
        reference_N: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """(loss, its derivative by new_N)."""
        recipe = self.recipe
        new_N.requires_grad_()
        loss, stats = policy_loss(
            *(new_N, old_N, advantages_N, weights_N),
            clip_low=recipe.clip_low,
            clip_high=recipe.clip_high,
            ratio=recipe.ratio,
            trajectories_N=trajectories_N,
            reference_N=reference_N,
            kl=recipe.kl,
        )
        (derivative_N,) = torch.autograd.grad(loss, new_N)
        self._add("weight", weights_N.sum())
        self._add("clipped", stats.clipped)
        self._add("kl", stats.kl)
        if reference_N is not None:
            self._add("reference_kl", stats.reference_kl)
        return loss.detach(), derivative_N

    @torch.no_grad()
    def _reference_logprobs(
        self, model: Transformer, each: Experience, at_N: Tensor, backend: Backend
    ) -> Tensor | None:
        if self.reference is None:
            return None
        self.reference.compute_dtype = model.compute_dtype
        if backend is Backend.KERNELS and self._stack is None:
            self._stack = training_stack(self.reference)
        self.reference_positions += each.num_positions
        ids, targets, _, documents, positions = on(at_N.device, each.batch)
        x_ND = last_hidden(self.reference, ids, documents, positions, backend=backend, stack=self._stack)
        logprobs_N, _ = linear_logprobs(self._scaled(x_ND[at_N]), head_weight(self.reference), targets.flatten()[at_N])
        return logprobs_N

    def _scaled(self, x_ND: Tensor) -> Tensor:
        """Logits over the temperature that the answers were sampled at. Tuning on solved ones has none."""
        return x_ND / self.recipe.temperature if self._policy and self.recipe.temperature != 1 else x_ND

    def _compare(self, new_N: Tensor, old_N: Tensor, weights_N: Tensor) -> None:
        """Before the first update of a step only: the weights are still those that sampled."""
        if self._updates or not (self._policy or self.recipe.temperature == 1):
            return
        largest = ((new_N - old_N).abs() * (weights_N != 0)).max()
        self._difference = largest if self._difference is None else torch.maximum(self._difference, largest)

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value
