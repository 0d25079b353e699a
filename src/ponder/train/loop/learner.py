"""What a stage learns from its micro-batches: the part of the training loop that differs from stage to stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ponder.model.loss import Backend, next_token_loss, training_stack
from ponder.model.transformer import Transformer
from ponder.train.data.packing import Batch
from ponder.train.loop.world import world


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What is to be said of a step beside its loss.

    headline: for the progress line, instead of the loss.
    inference: tokens that the step put through a model without learning from them: generated, prefilled, read by a
        reference.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    inference: int = 0
    headline: str = ""
    alarms: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Parameters that train beside the model's: a reward head, a critic.

    module: float32, on the model's device. Its state is in every checkpoint.
    lr: its full learning rate, AdamW's; None: the stage's. The schedule and the rest of the optimizer are the stage's.
    """

    module: nn.Module
    lr: float | None = None


class Learner(Protocol):
    """How the micro-batches of a step change the weights. A micro-batch has `num_positions`."""

    @property
    def beside(self) -> Beside | None:
        """What trains beside the model; None: nothing."""
        ...

    def updates(self, batches: Any) -> Sequence[Sequence[Any]]:
        """The micro-batches of each update of the step, in order; none of them is empty."""
        ...

    def losses(self, model: Transformer, batches: Sequence[Any], backend: Backend) -> Iterator[Tensor]:
        """The loss of each micro-batch of one update. They add up; each is differentiated before the next is made.

        Every worker is given all of the update, to know what its losses are shares of. It yields its own alone.
        """
        ...

    def updating(self) -> AbstractContextManager[None]:
        """Entered around every change of the weights."""
        ...

    def report(self) -> StepReport:
        """Called once after each step."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint must hold beside weights and optimizer, as JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        ...


class NextToken:
    """Next-token loss; every learned token of an update counts the same, whichever micro-batch it is in."""

    beside: Beside | None = None

    def updates(self, batches: Sequence[Batch]) -> Sequence[Sequence[Batch]]:
        return [batches]

    def losses(self, model: Transformer, batches: Sequence[Batch], backend: Backend) -> Iterator[Tensor]:
        total = max(1.0, sum(float(batch.weights_BT.sum()) for batch in batches))
        stack = training_stack(model) if backend is Backend.KERNELS else None
        device = next(model.parameters()).device
        for batch in world().own_rows(batches):
            yield next_token_loss(model, *on(device, batch), total_weight=total, backend=backend, stack=stack)

    def updating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def report(self) -> StepReport:
        return StepReport()

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def on(device: torch.device, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """ids_BT, targets_BT, weights_BT, documents_BT, positions_BT as tensors there."""
    arrays = (batch.ids_BT, batch.targets_BT, batch.weights_BT, batch.documents_BT, batch.positions_BT)
    ids, targets, weights, documents, positions = (torch.from_numpy(a).to(device) for a in arrays)
    return ids.long(), targets.long(), weights, documents, positions
