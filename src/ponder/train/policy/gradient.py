"""The gradient of a loss of the sampled tokens' log-probabilities; logits never exist all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from ponder.kernels.training import TrainingStack
from ponder.model.loss import (
    Backend,
    head_weight,
    kernel_obstacle,
    last_hidden,
    linear_cross_entropy,
    linear_logprobs,
    training_stack,
)
from ponder.model.transformer import Transformer
from ponder.train.data.packing import Batch
from ponder.train.loop.learner import on
from ponder.train.loop.world import world
from ponder.train.policy.lessons import Experience


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTokens:
    """What a loss reads of N sampled tokens beside their log-probabilities under the weights that train.

    old_N: log-probabilities under the weights that sampled.
    advantages_N, weights_N: as the lessons give them; a weight of 0 marks a token that does not count.
    trajectories_N: the number of each token's trajectory, from 0; all tokens of a trajectory are here.
    reference_N: log-probabilities under a frozen model, or None.
    """

    old_N: Tensor
    advantages_N: Tensor
    weights_N: Tensor
    trajectories_N: Tensor
    reference_N: Tensor | None


LogprobLoss = Callable[[Tensor, SampledTokens], tuple[Tensor, Mapping[str, Tensor]]]
"""(new_N with gradient, the tokens) → (the loss, a scalar; sums over the tokens' weights, to be reported as means)."""


def learned_rows(
    model: Transformer, batch: Batch, backend: Backend, stack: TrainingStack | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_ND, at_N, targets_N, weights_N of the positions whose weight is not 0: what the head reads there, their place
    among all B x T, the ids that follow, and the weights. Under COMPILED they are all positions, for one shape."""
    device = next(model.parameters()).device
    ids, targets, weights, documents, positions = on(device, batch)
    x_ND = last_hidden(model, ids, documents, positions, backend=backend, stack=stack)
    at_N = weights.flatten().nonzero()[:, 0]
    if backend is Backend.COMPILED:
        at_N = torch.arange(weights.numel(), device=device)
    return x_ND.index_select(0, at_N), at_N, targets.flatten()[at_N], weights.flatten()[at_N]


def through_head(
    model: Transformer, x_ND: Tensor, targets_N: Tensor, logprobs_N: Tensor, loss: Tensor, backend: Backend
) -> Tensor:
    """The loss with its gradient in the model's weights.

    loss: a function of logprobs_N, those of the targets, which have a gradient apart from x_ND.
    `linear_cross_entropy` takes the derivatives, negated, as weights.
    """
    (derivative_N,) = torch.autograd.grad(loss, logprobs_N)
    through = linear_cross_entropy(x_ND, head_weight(model), targets_N, -derivative_N, backend=backend)
    return loss.detach() + (through - through.detach())


class FrozenModel:
    """A model that is read and never changes: a reference, a teacher.

    positions: that it has read.
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model.requires_grad_(False).eval()
        self.positions = 0
        self._stack: TrainingStack | None = None

    @classmethod
    def of(cls, model: Transformer) -> FrozenModel:
        """A copy of the model as it is. Weights that do not train are shared, not copied: of an adapter the base."""
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        return cls(deepcopy(model, dict(shared)))

    @torch.no_grad()
    def rows(self, batch: Batch, backend: Backend, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `learned_rows`. It computes in what the model that trains computes in, and on the same
        backend where that covers it.

        dtype: the other model's `compute_dtype`.
        """
        self.model.compute_dtype = dtype
        if backend is Backend.KERNELS and kernel_obstacle(self.model):
            backend = Backend.TORCH
        if backend is Backend.KERNELS and self._stack is None:
            self._stack = training_stack(self.model)
        self.positions += batch.num_positions
        return learned_rows(self.model, batch, backend, self._stack)

    def logprobs(self, batch: Batch, backend: Backend, dtype: torch.dtype | None, temperature: float = 1.0) -> Tensor:
        """logprobs_N of the targets."""
        x_ND, _, targets_N, _ = self.rows(batch, backend, dtype)
        return linear_logprobs(scaled(x_ND, temperature), head_weight(self.model), targets_N)[0]


def scaled(x_ND: Tensor, temperature: float) -> Tensor:
    """What the head reads, so that its logits are divided by the temperature."""
    return x_ND / temperature if temperature != 1 else x_ND


class PolicyGradient:
    """The losses of one step's updates, and the metrics that come with them."""

    def __init__(
        self,
        loss: LogprobLoss,
        *,
        temperature: float = 1.0,
        sampled_at: float | None = None,
        stale: bool = False,
        reference: FrozenModel | None = None,
        together: int = 1,
    ) -> None:
        """temperature: what logits are divided by.
        sampled_at: the temperature of the answers, where it is another.
        stale: whether older weights may have sampled them.
        reference: whose log-probabilities the loss reads; None: none.
        together: how many lessons the loss compares with each other, every that many in one micro-batch.
        """
        self.loss = loss
        self.temperature = temperature
        self.reference, self.together = reference, together
        self._comparable = sampled_at in (None, temperature) and not stale
        self.begin_step()

    def begin_step(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._updates = 0
        self._difference: Tensor | None = None
        self._read_before = self.reference.positions if self.reference else 0

    @property
    def reference_positions(self) -> int:
        """That the reference has read since the step began."""
        return self.reference.positions - self._read_before if self.reference else 0

    def losses(self, model: Transformer, batches: Sequence[Experience], backend: Backend) -> Iterator[Tensor]:
        """As `Learner.losses`."""
        stack = training_stack(model) if backend is Backend.KERNELS else None
        for each in world().own(batches):
            yield self._loss(model, each, backend, stack)
        self._updates += 1

    def metrics(self) -> dict[str, float]:
        """What the loss reports, as means over the tokens that the step's updates learned from, with their weights in
        it. Answers without advantage are left out: they would only thin the means.

        engine_difference: the largest difference of a token's log-probability between the engine that sampled it and
        the weights before the step's first update: what is left is rounding.
        """
        sums = world().sums({name: float(total) for name, total in self._sums.items()})
        weight = sums.pop("weight", 1.0)
        means = {name: total / weight for name, total in sums.items()}
        difference = world().largest(None if self._difference is None else float(self._difference))
        return means if difference is None else {**means, "engine_difference": difference}

    def _loss(self, model: Transformer, each: Experience, backend: Backend, stack: TrainingStack | None) -> Tensor:
        """The loss of a micro-batch. Its gradient comes from `linear_cross_entropy`, whose weights are the loss's
        derivatives by the log-probabilities."""
        x_ND, at_N, targets_N, weights_N = learned_rows(model, each.batch, backend, stack)
        x_ND = scaled(x_ND, self.temperature)
        arrays = (each.old_BT, each.advantages_BT, each.trajectories_BT)
        old_N, advantages_N, trajectories_N = (torch.from_numpy(a).to(at_N.device).flatten()[at_N] for a in arrays)
        new_N, _ = linear_logprobs(x_ND.detach(), head_weight(model).detach(), targets_N)
        self._compare(new_N, old_N, weights_N)
        reference_N = None
        if self.reference is not None:
            reference_N = self.reference.logprobs(each.batch, backend, model.compute_dtype, self.temperature)
        tokens = SampledTokens(
            old_N=old_N,
            advantages_N=advantages_N,
            weights_N=weights_N,
            trajectories_N=trajectories_N.long(),
            reference_N=reference_N,
        )
        loss, sums = self.loss(new_N.requires_grad_(), tokens)
        self._add({"weight": weights_N.sum(), **sums})
        return through_head(model, x_ND, targets_N, new_N, loss, backend)

    def _add(self, sums: Mapping[str, Tensor]) -> None:
        """To what the step reports. "weight" is what the others are divided by."""
        for name, value in sums.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _compare(self, new_N: Tensor, old_N: Tensor, weights_N: Tensor) -> None:
        """Before the first update of a step only: the weights are still those that sampled."""
        if self._updates or not self._comparable:
            return
        largest = ((new_N - old_N).abs() * (weights_N != 0)).max()
        self._difference = largest if self._difference is None else torch.maximum(self._difference, largest)
