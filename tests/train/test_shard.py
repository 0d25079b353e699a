"""Checkpoints in shards: what was saved is read again to the bit, and another model's is refused."""

from pathlib import Path

import pytest
import torch

from ponder.testing.tiny import tiny_model
from ponder.train.loop.optim import Optim
from ponder.train.loop.shard import load_shards, save_shards
from ponder.train.recipe.sections import OptimRecipe
from ponder.types import CheckpointError


def trained(steps: int, seed: int = 0, **sizes: int) -> tuple[torch.nn.Module, Optim]:
    torch.manual_seed(seed)
    model = tiny_model(seed, **sizes)
    optim = Optim(model, OptimRecipe(lr=1e-3, muon_lr=1e-3))
    for _ in range(steps):
        for parameter in optim.parameters:
            parameter.grad = torch.randn_like(parameter)
        optim.step(1.0)
    return model, optim


def test_weights_and_optimizer_come_back_to_the_bit(tmp_path: Path) -> None:
    model, optim = trained(2)
    save_shards(tmp_path / "shards", model, optim)
    other, other_optim = trained(0, seed=1)
    load_shards(tmp_path / "shards", other, other_optim)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    mine, theirs = optim.state(), other_optim.state()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) and mine[key].shape == theirs[key].shape for key in mine)
    assert {file.suffix for file in (tmp_path / "shards").iterdir()} <= {".safetensors", ".json"}, "no pickles"


def test_another_model_s_and_damaged_files_are_refused(tmp_path: Path) -> None:
    save_shards(tmp_path / "shards", *trained(1))
    for sizes in ({"num_layers": 3}, {"head_dim": 16}):
        with pytest.raises(CheckpointError, match="does not hold the recipe's model"):
            load_shards(tmp_path / "shards", *trained(0, **sizes))
    (file,) = (tmp_path / "shards").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="does not hold the recipe's model"):
        load_shards(tmp_path / "shards", *trained(0))
