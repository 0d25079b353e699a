"""Checkpoints of a training stage: weights, optimizer state and counters, written whole or not at all.

A checkpoint is a model folder (float32, loadable by `load_model`), or the adapters alone where the model is frozen, and
more files: `optimizer.safetensors`, `state.json`, and `beside.safetensors` for what a learner trains beside the model.
Where weights are divided among workers, each writes its own, with its optimizer state, into the folder `shards`.
Data needs no state: every batch is a function of (seed, step).
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ponder.kernels.machine import machine
from ponder.model.checkpoint import atomic_folder, load_model, read_json, save_tensors, write_json, write_model
from ponder.model.lora import has_lora, restore_lora, write_lora
from ponder.model.transformer import Transformer
from ponder.train.loop.learner import Learner
from ponder.train.loop.optim import Optim
from ponder.train.loop.shard import load_shards, save_shards
from ponder.train.loop.world import divided_as, world
from ponder.types import CheckpointError

_NAME = re.compile(r"step_(\d{8})")
_OPTIMIZER, _BESIDE, _SHARDS = "optimizer.safetensors", "beside.safetensors", "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is.

    tokens: positions trained on, padding included.
    compute: tokens generated + prefilled + 3 x trained on, which times the parameters and 2 is in operations.
    seconds: of training.

    All of them are summed over all resumes.
    """

    step: int = 0
    tokens: int = 0
    compute: int = 0
    seconds: float = 0.0


def environment(device: torch.device, *, backend: str) -> dict[str, str]:
    """What must be equal for a resumed run to equal an uninterrupted one bit for bit."""
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu": f"{machine().instructions}, torch {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": str(torch.get_num_threads()),
        "backend": str(backend),
        **world().setting(),
    }


def save(
    folder: Path,
    model: Transformer,
    optim: Optim,
    learner: Learner,
    progress: Progress,
    setting: dict[str, str],
    *,
    keep: int,
) -> Path:
    """Write `folder/step_N`, then remove all but the last `keep` checkpoints.

    One that is there already holds these very weights; replacing it would leave the run without it for a moment.
    """
    target = folder / f"step_{progress.step:08d}"
    if target.is_dir():
        return target
    with atomic_folder(target) as temporary:
        write_lora(model, temporary) if has_lora(model) else write_model(model, temporary)
        save_tensors(optim.state(), temporary / _OPTIMIZER)
        if learner.beside:
            save_tensors(learner.beside.module.state_dict(), temporary / _BESIDE)
        _write_record(temporary, learner, progress, setting)
    _prune(folder, keep)
    return target


def save_divided(
    folder: Path,
    model: Transformer,
    optim: Optim,
    learner: Learner,
    progress: Progress,
    setting: dict[str, str],
    *,
    keep: int,
) -> None:
    """As `save`, for weights that are divided among the workers, each of which writes its own. All call it."""
    target = folder / f"step_{progress.step:08d}"
    if world().agree(target.is_dir()):
        return
    with ExitStack() as held:
        with world().together():
            made = str(held.enter_context(atomic_folder(target))) if world().first else ""
        temporary = Path(world().agree(made))
        save_shards(temporary / _SHARDS, model, optim)
        with world().together():
            if world().first:
                _write_record(temporary, learner, progress, setting)
    if world().first:
        _prune(folder, keep)


def _write_record(temporary: Path, learner: Learner, progress: Progress, setting: dict[str, str]) -> None:
    record = {"progress": asdict(progress), "environment": setting, "learner": learner.state()}
    write_json(temporary / "state.json", record)


def _prune(folder: Path, keep: int) -> None:
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name))


def restore(checkpoint: Path, model: Transformer, optim: Optim, learner: Learner) -> tuple[Progress, dict[str, str]]:
    """Load the state of model, optimizer and learner in place; gives the progress and the environment of the run that
    wrote it. Raises CheckpointError for files that cannot be read, and for another recipe's checkpoint."""
    divided = (checkpoint / _SHARDS).is_dir()
    if divided:
        load_shards(checkpoint / _SHARDS, model, optim)
    elif has_lora(model):
        restore_lora(model, checkpoint)
    else:
        _fill(model, load_model(checkpoint, dtype=torch.float32).state_dict(), checkpoint, "the recipe's model")
    if learner.beside:
        tensors = _tensors(checkpoint, _BESIDE)
        _fill(learner.beside.module, tensors, checkpoint / _BESIDE, "what trains beside the model")
    if not divided:
        optim.load_state(_tensors(checkpoint, _OPTIMIZER), str(checkpoint / _OPTIMIZER))
    raw = read_json(checkpoint / "state.json")
    try:
        progress, setting = Progress(**raw["progress"]), dict(raw["environment"])
        learned = dict(raw.get("learner", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint / 'state.json'}: lacks its progress or environment ({error}): remove {checkpoint} "
            "to resume from an older one"
        ) from error
    learner.restore(learned)
    return progress, setting


def _tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    path = checkpoint / name
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}): remove {checkpoint} to resume from an older one"
        ) from error


def _fill(module: nn.Module, stored: Mapping[str, Tensor], source: Path, what: str) -> None:
    like = module.state_dict()
    try:
        module.load_state_dict({name: divided_as(each, like.get(name, each)) for name, each in stored.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{source}: does not have the shape of {what}: {error}") from error
