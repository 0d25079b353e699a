"""Checkpoints of a training stage: weights, optimizer state and counters, written whole or not at all.

A checkpoint is a model folder (float32, loadable by `load_model`), or the adapters alone where nothing else trains,
with two files more: `optimizer.safetensors` and `state.json`. Data needs no state: every batch is a function of
(seed, step).
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ponder.model.checkpoint import atomic_folder, load_model, read_json, write_json, write_model
from ponder.model.lora import has_lora, restore_lora, write_lora
from ponder.model.transformer import Transformer
from ponder.train.loop.optim import Optim
from ponder.types import CheckpointError

_NAME = re.compile(r"step_(\d{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is. tokens: positions trained on, padding included. compute: tokens generated + prefilled +
    3 x trained on, which times the parameters and 2 is in operations. seconds: of training. All over all resumes."""

    step: int = 0
    tokens: int = 0
    compute: int = 0
    seconds: float = 0.0


def environment(device: torch.device, *, backend: str) -> dict[str, str]:
    """What must be equal for a resumed run to equal an uninterrupted one bit for bit."""
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": str(torch.get_num_threads()),
        "backend": str(backend),
    }


def save(
    folder: Path,
    model: Transformer,
    optim: Optim,
    progress: Progress,
    setting: dict[str, str],
    learner: Mapping[str, Any],
    *,
    keep: int,
) -> Path:
    """Write `folder/step_N`, then remove all but the last `keep` checkpoints. learner: its state, as JSON.

    One that is there already holds these very weights; replacing it would leave the run without it for a moment.
    """
    target = folder / f"step_{progress.step:08d}"
    if target.is_dir():
        return target
    with atomic_folder(target) as temporary:
        write_lora(model, temporary) if has_lora(model) else write_model(model, temporary)
        save_file(optim.state(), temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", {"progress": asdict(progress), "environment": setting, "learner": learner})
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name))


def restore(checkpoint: Path, model: Transformer, optim: Optim) -> tuple[Progress, dict[str, str], Mapping[str, Any]]:
    """Load weights and optimizer state in place; gives the progress and the environment of the run that wrote them, and
    its learner's state."""
    if has_lora(model):
        restore_lora(model, checkpoint)
    else:
        stored = load_model(checkpoint, dtype=torch.float32)
        try:
            model.load_state_dict(stored.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint}: is of another shape than the recipe's model: {error}") from error
    path = checkpoint / "optimizer.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); remove {checkpoint} to resume from an older one"
        ) from error
    optim.load_state(tensors, str(path))
    raw = read_json(checkpoint / "state.json")
    try:
        return Progress(**raw["progress"]), dict(raw["environment"]), dict(raw.get("learner", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint / 'state.json'}: lacks its progress or environment ({error})") from error
