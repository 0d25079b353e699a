"""Weights, gradients and optimizer state divided among the workers, instead of held whole by each (FSDP2).

A worker gathers a block's weights when it computes the block, and hands each other worker its part of the gradients.
All workers compute as many micro-batches, since all take part in every exchange.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ponder.model.loss import next_token_loss
from ponder.model.transformer import Transformer
from ponder.train.data.packing import Batch
from ponder.train.loop.optim import Optim
from ponder.train.loop.world import World, whole, world
from ponder.types import CheckpointError


def shard(model: Transformer) -> None:
    """Divide the parameters of each block, and those around the blocks, among the workers. Gradients are their sums."""
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    for module in (*model.model.layers, model):
        fully_shard(module)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sums
    register_fsdp_forward_method(model, "stream")


def whole_model(model: Transformer) -> Transformer:
    """A copy of a model whose weights are divided, for the first worker; the others are given the model itself. Every
    worker has to call it."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        gathered = whole(tensor.detach())
        if world().first:
            tensors[name] = gathered
    if not world().first:
        return model
    copy = Transformer(model.config)
    copy.load_state_dict(tensors, assign=True)
    copy.compute_dtype = model.compute_dtype
    return copy


def passes(batches: Sequence[Any]) -> int:
    """The largest number of micro-batches, or pieces of them, that any worker has of an update."""
    size = world().size
    if isinstance(batches[0], Batch):
        return max(len(World(rank, size).own_rows(batches)) for rank in range(size))
    return -(-len(batches) // size)


def idle_pass(model: Transformer) -> None:
    """Take part in the exchanges of a micro-batch that other workers compute."""
    ids_BT = torch.zeros(1, 1, dtype=torch.int64, device=next(model.parameters()).device)
    next_token_loss(model, ids_BT, ids_BT, ids_BT, total_weight=1.0).backward()


# Checkpoints: a file of each worker, in the safetensors format, that any other number of workers can read -------------


def save_shards(folder: Path, model: nn.Module, optim: Optim) -> None:
    """Weights and optimizer state. Every worker has to call it, with the same empty folder."""
    import torch.distributed.checkpoint as dcp

    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _alone():
        dcp.save(_state(model, optim.named_state()), storage_writer=writer, no_dist=world().size == 1)


def load_shards(folder: Path, model: nn.Module, optim: Optim) -> None:
    """What `save_shards` wrote, whatever the number of workers then and now. Every worker has to call it. Raises
    CheckpointError for another model's."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    parameters = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    try:
        reader = dcp.HuggingFaceStorageReader(str(folder))
        for key, stored in reader.read_metadata().state_dict_metadata.items():
            name = key.rpartition("|")[0]
            if name in parameters and isinstance(stored, TensorStorageMetadata):
                like = parameters[name].detach()
                found[key] = torch.zeros_like(like) if stored.size == like.shape else torch.zeros(stored.size)
        with _alone():
            dcp.load(_state(model, found), storage_reader=reader, no_dist=world().size == 1)
    except (CheckpointException, SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        said = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{folder}: does not hold the recipe's model ({said}): resume with the recipe that the run began "
            f"with, or remove {folder.parent} to resume from an older checkpoint"
        ) from error
    counts = {key: value.reshape(()) for key, value in found.items() if key.endswith("|step")}
    optim.load_state({**found, **counts}, str(folder))


@contextmanager
def _alone() -> Iterator[None]:
    """One process reads and writes without being told that it is alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _state(model: nn.Module, optimizer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name, without copies; numbers of AdamW become vectors, which the format asks for."""
    beside = {key: value if value.ndim else value.reshape(1) for key, value in optimizer.items()}
    return {**{name: parameter.detach() for name, parameter in model.named_parameters()}, **beside}
