"""The learning rate by step, and optimizer state that survives being stored."""

from itertools import pairwise

import pytest
import torch

from ponder.testing.tiny import tiny_model
from ponder.train.loop.optim import Optim, lr_scale
from ponder.train.recipe.sections import Optimizer, OptimRecipe, Precision, Schedule
from ponder.types import CheckpointError


def scales(steps: int = 100, **settings: object) -> list[float]:
    recipe = OptimRecipe(**settings)  # type: ignore[arg-type]
    return [lr_scale(step, steps, recipe) for step in range(steps)]


@pytest.mark.parametrize("schedule", Schedule)
def test_every_schedule_warms_up_to_one_and_comes_down_to_almost_nothing(schedule: Schedule) -> None:
    curve = scales(schedule=schedule, warmup=0.1)
    assert curve[:10] == [pytest.approx((i + 1) / 10) for i in range(10)]
    assert curve[10] == pytest.approx(1.0)
    assert all(later <= earlier for earlier, later in pairwise(curve[10:]))
    assert 0 < curve[-1] < 0.03


def test_wsd_stays_until_its_decay_and_final_is_a_floor() -> None:
    curve = scales(schedule=Schedule.WSD, warmup=0.0, decay=0.25, final=0.1)
    assert curve[:76] == [1.0] * 76
    assert curve[76] < 1.0
    assert curve[-1] == pytest.approx(0.1 + 0.9 * 1 / 25)


def train(model: torch.nn.Module, optim: Optim, steps: int) -> None:
    for step in range(steps):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.sin(parameter.detach() * 3 + step + number)
        optim.step(0.5)


@pytest.mark.parametrize("name", Optimizer)
def test_stored_state_continues_bit_for_bit(name: Optimizer) -> None:
    recipe = OptimRecipe(name=name, lr=1e-2, muon_lr=1e-2)
    model, other = tiny_model(0), tiny_model(1)
    optim = Optim(model, recipe)
    train(model, optim, 3)
    resumed = Optim(other, recipe)
    other.load_state_dict(model.state_dict())
    resumed.load_state({key: value.clone() for key, value in optim.state().items()}, "here")
    train(model, optim, 2)
    train(other, resumed, 2)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = tiny_model()
    optim = Optim(model, OptimRecipe(name=Optimizer.MUON, lr=1e-3, muon_lr=1e-3))
    train(model, optim, 1)
    kinds: dict[str, set[str]] = {}
    for key in optim.state():
        name, _, field = key.rpartition("|")
        kinds.setdefault(field, set()).add(name)
    assert "model.layers.0.mlp.up_proj.weight" in kinds["momentum_buffer"]
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= kinds["exp_avg"]
    assert not kinds["momentum_buffer"] & kinds["exp_avg"]


def test_norms_do_not_decay() -> None:
    model = tiny_model()
    optim = Optim(model, OptimRecipe(lr=1e-2, muon_lr=1e-2, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optim.step(1.0)
    assert torch.equal(model.model.norm.weight, before["model.norm.weight"])
    assert (model.model.embed_tokens.weight.abs().sum() < before["model.embed_tokens.weight"].abs().sum()).item()


def test_the_state_of_another_model_is_refused_by_name() -> None:
    recipe = OptimRecipe(lr=1e-2, muon_lr=1e-2)
    model = tiny_model(num_layers=2)
    optim = Optim(model, recipe)
    train(model, optim, 1)
    with pytest.raises(CheckpointError, match=r"stored: key 'model\.layers\.1\..*does not belong"):
        Optim(tiny_model(num_layers=1), recipe).load_state(optim.state(), "stored")


def muon_step(precision: Precision, *, noise: float = 0.0) -> dict[str, torch.Tensor]:
    """The change of the blocks' matrices in one step, with that much noise in the gradients."""
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = OptimRecipe(name=Optimizer.MUON, lr=1e-2, muon_lr=1e-2, muon_precision=precision)
    optim = Optim(model, recipe)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape)
        parameter.grad *= 1 + noise * torch.randn(parameter.shape)
    optim.step(1.0)
    return {n: p.detach() - before[n] for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n}


def test_muon_in_float32_is_muon_and_does_not_magnify_last_bits() -> None:
    rough, exact = muon_step(Precision.BF16), muon_step(Precision.FP32)
    for name, change in exact.items():
        assert (rough[name] - change).norm() < 0.03 * change.norm()
    moved = {each: muon_step(each, noise=1e-5) for each in Precision}
    jumps = {
        precision: max(float((moved[precision][name] - whole[name]).abs().max()) for name in whole)
        for precision, whole in ((Precision.BF16, rough), (Precision.FP32, exact))
    }
    assert 0 < 10 * jumps[Precision.FP32] < jumps[Precision.BF16]
