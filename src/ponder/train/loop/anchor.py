"""Elastic weight consolidation: weights that old tasks depend on are held near where they were.

The penalty is weight / 2 x the sum over parameters of F x (w - w0)^2 (EWC, arXiv 1612.00796, equation 3); F is the
empirical Fisher information: the mean squared gradient of the log-likelihood of worked examples of the old tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated

import torch
from torch import Tensor

from ponder.dialogue import load_format
from ponder.model.loss import Backend, next_token_loss
from ponder.model.transformer import Transformer
from ponder.tokenizer import Tokenizer
from ponder.train.data.packing import Batch, Example, fill
from ponder.train.examples import Examples, check_mix
from ponder.train.loop.learner import NextToken, StepReport, on
from ponder.train.loop.world import world
from ponder.train.recipe.ranges import Count, Range
from ponder.train.recipe.sections import MixRecipe


@dataclass(frozen=True, kw_only=True)
class AnchorRecipe:
    """What is held, and how firmly.

    weight: of the penalty; 0: none.
    mix: tasks or dialogues that the start model knows.
    examples: how many of them the importance of each weight is taken from.
    """

    weight: Annotated[float, Range(0, 1e12)] = 0.0
    mix: tuple[MixRecipe, ...] = ()
    examples: Count = 256

    def check_data(self) -> None:
        """Raise now what drawing from the mix would raise later."""
        check_mix(self.mix)


def fisher(model: Transformer, examples: Sequence[Example]) -> dict[str, Tensor]:
    """The empirical Fisher information of each parameter that trains, in the parameters' dtype.

    It is computed example by example in float32, so it is the same at every start of a stage.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: torch.zeros_like(p) for name, p in trained.items()}
    device, dtype = next(model.parameters()).device, model.compute_dtype
    model.compute_dtype = None
    for example in examples:
        batch = Batch.empty(1, len(example.ids) - 1, pad=0)
        fill(batch, 0, [example])
        loss = next_token_loss(model, *on(device, batch), total_weight=1.0)
        gradients = torch.autograd.grad(loss, [*trained.values()], allow_unused=True)
        for name, gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                found[name] += gradient.detach().square() / len(examples)
    model.compute_dtype = dtype
    return found


class Anchored(NextToken):
    """Next-token loss, and the penalty for moving what old tasks depend on."""

    def __init__(self, model: Transformer, importance: Mapping[str, Tensor], weight: float) -> None:
        """model: where the weights are held."""
        self.weight, self.importance = weight, importance
        self.held = {name: p.detach().clone() for name, p in model.named_parameters() if name in importance}
        self._penalty = 0.0

    @classmethod
    def to(
        cls, recipe: AnchorRecipe, model: Transformer, tokenizer: Tokenizer, *, sequence: int, seed: int
    ) -> Anchored:
        """Held to the model as it is, by examples of the recipe's mix. Raises DataError for one longer than a row."""
        source = Examples(recipe.mix, load_format(tokenizer), tokenizer=tokenizer, sequence=sequence)
        drawn = [source.draw(Random(f"anchor/{seed}/{number}"))[0] for number in range(recipe.examples)]
        return cls(model, fisher(model, drawn), recipe.weight)

    def losses(self, model: Transformer, batches: Sequence[Batch], backend: Backend) -> Iterator[Tensor]:
        yield from super().losses(model, batches, backend)
        penalty = self.penalty(model)
        self._penalty = float(penalty.detach())
        if world().first:  # it counts once
            yield penalty

    def penalty(self, model: Transformer) -> Tensor:
        named = dict(model.named_parameters())
        parts = [(self.importance[name] * (named[name] - held).square()).sum() for name, held in self.held.items()]
        return self.weight / 2 * torch.stack(parts).sum()

    def report(self) -> StepReport:
        return StepReport(metrics={"anchor": self._penalty})
