"""The gradient of a loss of the sampled tokens' log-probabilities; logits never exist all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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


class PolicyGradient:
    """The losses of one step's updates, and the metrics that come with them."""

    def __init__(
        self,
        loss: LogprobLoss,
        *,
        temperature: float = 1.0,
        sampled_at: float | None = None,
        reference: Transformer | None = None,
    ) -> None:
        """temperature: what logits are divided by. sampled_at: the temperature of the answers, where it is another.
        reference: a frozen model whose log-probabilities the loss reads; None: none."""
        self.loss = loss
        self.temperature = temperature
        self.reference = reference
        self._comparable = sampled_at in (None, temperature)
        self._stack: TrainingStack | None = None  # of the reference, which never changes
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
        """What the loss reports, as means over the tokens that the step's updates learned from, with their weights in
        it. Answers without advantage are left out: they would only thin the means.

        engine_difference: the largest difference of a token's log-probability between the engine that sampled it and
        the weights before the step's first update: what is left is rounding.
        """
        weight = float(self._sums.pop("weight", 1.0))
        means = {name: float(total) / weight for name, total in self._sums.items()}
        if self._difference is not None:
            means["engine_difference"] = float(self._difference)
        return means

    def _loss(self, model: Transformer, each: Experience, backend: Backend, stack: TrainingStack | None) -> Tensor:
        """The loss of a micro-batch. Its gradient comes from `linear_cross_entropy`, whose weights are the loss's
        derivatives by the log-probabilities."""
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
        tokens = SampledTokens(
            old_N=old_N,
            advantages_N=advantages_N,
            weights_N=weights_N,
            trajectories_N=trajectories_N.long(),
            reference_N=self._reference_logprobs(model, each, at_N, backend),
        )
        loss, sums = self.loss(new_N.requires_grad_(), tokens)
        (derivative_N,) = torch.autograd.grad(loss, new_N)
        for name, value in {"weight": weights_N.sum(), **sums}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        through = linear_cross_entropy(x_ND, head_weight(model), targets_N, -derivative_N, backend=backend)
        return loss.detach() + (through - through.detach())

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
        return x_ND / self.temperature if self.temperature != 1 else x_ND

    def _compare(self, new_N: Tensor, old_N: Tensor, weights_N: Tensor) -> None:
        """Before the first update of a step only: the weights are still those that sampled."""
        if self._updates or not self._comparable:
            return
        largest = ((new_N - old_N).abs() * (weights_N != 0)).max()
        self._difference = largest if self._difference is None else torch.maximum(self._difference, largest)
