"""Parameters beside the model (a reward head, a critic) are trained, clipped, saved and resumed as the model's are."""

import math
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import exit_code
from safetensors.torch import load_file
from torch import Tensor, nn

from ponder.model.loss import Backend, head_weight, last_hidden, linear_cross_entropy
from ponder.model.transformer import Transformer
from ponder.testing.tiny import tiny_model
from ponder.train.data.packing import Batch
from ponder.train.loop import state
from ponder.train.loop.display import read_metrics
from ponder.train.loop.fit import Job, Outcome, fit
from ponder.train.loop.learner import Beside, NextToken, on
from ponder.train.recipe.sections import Optimizer, OptimRecipe, Precision, RunRecipe, StageRecipe
from ponder.types import CheckpointError

OPTIM = OptimRecipe(lr=3e-3, muon_lr=3e-3, warmup=0.1)
STEPS = 8


class WithCritic(NextToken):
    """Next-token loss, and a critic that learns to tell a position's own id from the model's last hidden states."""

    def __init__(self, model: Transformer, *, lr: float | None = None, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.critic = nn.Sequential(nn.Linear(model.config.hidden_size, 6), nn.GELU(), nn.Linear(6, 1))
        self.beside = Beside(module=self.critic, lr=lr)

    def losses(self, model: Transformer, batches: Sequence[Batch], backend: Backend) -> Iterator[Tensor]:
        for batch in batches:
            ids, targets, weights, documents, positions = on(torch.device("cpu"), batch)
            x_ND = last_hidden(model, ids, documents, positions, backend=backend)
            share_N = weights.flatten() / weights.sum() / len(batches)
            values_N = self.critic(x_ND.float())[:, 0]
            error = (share_N * (values_N - ids.flatten() / 256) ** 2).sum()
            yield linear_cross_entropy(x_ND, head_weight(model), targets.flatten(), share_N, backend=backend) + error


def batch_of(step: int) -> Batch:
    batch = Batch.empty(2, 12, 0)
    starts = np.random.default_rng([7, step]).integers(0, 200, size=(2, 1))
    batch.ids_BT[:] = starts + np.arange(12)
    batch.targets_BT[:] = batch.ids_BT + 1
    batch.weights_BT[:] = 1.0
    batch.positions_BT[:] = np.arange(12)
    return batch


def job(
    folder: Path, learner: NextToken, optim: OptimRecipe = OPTIM, before: Callable[[int], None] | None = None
) -> Job:
    def batches(step: int) -> Generator[list[Batch], None, None]:
        while True:
            if before:
                before(step)
            yield [batch_of(step)]
            step += 1

    return Job(
        name="test",
        folder=folder,
        run=RunRecipe(
            folder="unused", device="cpu", compile=False, precision=Precision.FP32, checkpoint_minutes=0.0, keep=9
        ),
        stage=StageRecipe(tokens=STEPS * 24, sequence=12, batch=2, optim=optim),
        batches=batches,
        learner=learner,
    )


def copies(*modules: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def newest(folder: Path) -> Path:
    return state.checkpoints(folder / "checkpoints")[-1]


def killed(folder: str, optimizer: str) -> None:
    """Train until step 5, and die there. In a separate process."""

    def die(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    model = tiny_model()
    fit(model, job(Path(folder), WithCritic(model), replace(OPTIM, name=Optimizer(optimizer)), before=die))


@pytest.mark.parametrize("optimizer", Optimizer)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, optimizer: Optimizer) -> None:
    optim = replace(OPTIM, name=optimizer)
    model = tiny_model()
    whole = WithCritic(model)
    before = copies(whole.critic)
    fit(model, job(tmp_path / "whole", whole, optim))
    assert not any(map(torch.equal, before, copies(whole.critic)))

    assert exit_code("test_beside:killed", str(tmp_path / "parts"), optimizer.value) == -signal.SIGKILL
    assert newest(tmp_path / "parts").name == "step_00000005"
    again = tiny_model(seed=9)
    resumed = WithCritic(again, seed=9)
    assert fit(again, job(tmp_path / "parts", resumed, optim)).outcome is Outcome.COMPLETE
    assert same(copies(model, whole.critic), copies(again, resumed.critic))
    one, other = (
        [each["loss"] for each in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("whole", "parts")
    )
    assert one == other
    for name in ("beside.safetensors", "optimizer.safetensors", "model.safetensors"):
        assert (newest(tmp_path / "whole") / name).read_bytes() == (newest(tmp_path / "parts") / name).read_bytes()


def test_a_checkpoint_holds_the_parameters_and_their_optimizer_state(tmp_path: Path) -> None:
    model = tiny_model()
    learner = WithCritic(model)
    fit(model, job(tmp_path, learner))
    stored = load_file(newest(tmp_path) / "beside.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in learner.critic.state_dict().items())
    optimizer = load_file(newest(tmp_path) / "optimizer.safetensors")
    assert {key for key in optimizer if key.startswith("beside.")} == {
        f"beside.{name}|{field}" for name in stored for field in ("step", "exp_avg", "exp_avg_sq")
    }


def test_the_gradient_is_clipped_over_model_and_critic_together(tmp_path: Path) -> None:
    model = tiny_model()
    learner = WithCritic(model)
    (loss,) = learner.losses(model, [batch_of(0)], Backend.TORCH)
    loss.backward()
    theirs, own = (
        math.sqrt(sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None))
        for module in (model, learner.critic)
    )
    assert own > 0.01 * theirs
    again = tiny_model()
    fit(again, job(tmp_path, WithCritic(again)))
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["gradient"] == pytest.approx(math.hypot(theirs, own), rel=1e-5)


def test_its_learning_rate_may_be_its_own(tmp_path: Path) -> None:
    moved = []
    for lr in (None, 0.03, 0.0):
        model = tiny_model()
        learner = WithCritic(model, lr=lr)
        before = copies(learner.critic)
        fit(model, job(tmp_path / str(lr), learner, replace(OPTIM, weight_decay=0.0)))
        moved.append(sum(float((a - b).abs().sum()) for a, b in zip(before, copies(learner.critic), strict=True)))
    assert moved[1] > 3 * moved[0] > moved[2] == 0


def test_a_checkpoint_without_it_or_of_another_shape_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    fit(model, job(tmp_path / "plain", NextToken()))
    with pytest.raises(CheckpointError, match=r"beside\.safetensors: cannot be read"):
        fit(model, job(tmp_path / "plain", WithCritic(model)))
    fit(tiny_model(), job(tmp_path / "critic", WithCritic(model)))
    other = WithCritic(model)
    other.critic[0] = nn.Linear(model.config.hidden_size, 7)
    with pytest.raises(CheckpointError, match=r"beside\.safetensors: does not have the shape"):
        fit(model, job(tmp_path / "critic", other))
