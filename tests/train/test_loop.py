"""The training loop: learns, saves, stops when asked, and goes on as if it had never stopped."""

import json
import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponder.model.config import ModelConfig
from ponder.model.loss import kernel_obstacle
from ponder.model.transformer import Transformer
from ponder.testing.tiny import tiny_model
from ponder.train.data.packing import Batch
from ponder.train.loop import state
from ponder.train.loop.display import read_metrics
from ponder.train.loop.fit import Job, Outcome, TrainingDiverged, fit
from ponder.train.loop.folder import sweep
from ponder.train.recipe.sections import Optimizer, OptimRecipe, Precision, RunRecipe, StageRecipe

OPTIM = OptimRecipe(lr=3e-3, muon_lr=3e-3, warmup=0.1)


def batch_of(step: int, *, rows: int = 2, sequence: int = 12) -> Batch:
    """Rows that count upwards, two documents each: easily learned."""
    rng = np.random.default_rng([7, step])
    batch = Batch.empty(rows, sequence, 0)
    starts = rng.integers(0, 200, size=(rows, 2))
    for row in range(rows):
        for half in range(2):
            place = slice(half * sequence // 2, (half + 1) * sequence // 2)
            batch.ids_BT[row, place] = starts[row, half] + np.arange(sequence // 2)
            batch.documents_BT[row, place] = half
            batch.positions_BT[row, place] = np.arange(sequence // 2)
    batch.targets_BT[:] = batch.ids_BT + 1
    batch.weights_BT[:] = 1.0
    return batch


def job(
    folder: Path,
    steps: int = 12,
    *,
    accumulate: int = 1,
    before: Callable[[int], None] | None = None,
    **more: object,
) -> Job:
    def batches(step: int) -> Generator[list[Batch], None, None]:
        while True:
            if before:
                before(step)
            yield [batch_of(step * accumulate + part) for part in range(accumulate)]
            step += 1

    stage = StageRecipe(tokens=steps * 24 * accumulate, sequence=12, batch=2, accumulate=accumulate, optim=OPTIM)
    run = RunRecipe(folder="unused", device="cpu", compile=False, precision=Precision.FP32)
    settings: dict[str, object] = {"run": run, "stage": stage, "batches": batches}
    return Job(name="test", folder=folder, **{**settings, **more})  # type: ignore[arg-type]


def weights(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl")]


def interrupt_at(step: int) -> Callable[[int], None]:
    def before(now: int) -> None:
        if now == step:
            signal.raise_signal(signal.SIGINT)

    return before


def test_it_learns(tmp_path: Path) -> None:
    result = fit(tiny_model(), job(tmp_path, 60))
    curve = losses(tmp_path)
    assert result.outcome is Outcome.COMPLETE
    assert result.progress.step == len(curve) == 60
    assert np.mean(curve[-5:]) < 0.7 * np.mean(curve[:5])
    assert result.progress.compute == 3 * result.progress.tokens == 3 * 60 * 24
    assert [record["compute"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [72 * n for n in range(1, 61)]


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("optimizer", Optimizer)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, precision: Precision, optimizer: Optimizer
) -> None:
    run = RunRecipe(folder="unused", device="cpu", compile=False, precision=precision)
    stage = replace(job(tmp_path).stage, optim=replace(OPTIM, name=optimizer))
    whole = tiny_model()
    fit(whole, job(tmp_path / "whole", run=run, stage=stage))
    first = fit(tiny_model(), job(tmp_path / "parts", run=run, stage=stage, before=interrupt_at(4)))
    assert first.outcome is Outcome.INTERRUPTED
    assert first.progress.step == 5
    resumed = tiny_model(seed=9)
    second = fit(resumed, job(tmp_path / "parts", run=run, stage=stage))
    assert second.outcome is Outcome.COMPLETE
    assert same(weights(whole), weights(resumed))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.mark.parametrize("optimizer", Optimizer)
def test_on_the_kernels_too_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, optimizer: Optimizer) -> None:
    def model(seed: int = 0) -> Transformer:
        shape = {"hidden_size": 64, "num_heads": 2, "num_kv_heads": 1, "head_dim": 32, "intermediate_size": 96}
        return Transformer(ModelConfig(vocab_size=256, num_layers=2, **shape), seed=seed)

    run = RunRecipe(folder="unused", device="cpu", precision=Precision.BF16)
    stage = replace(job(tmp_path).stage, optim=replace(OPTIM, name=optimizer))
    whole, resumed = model(), model(seed=9)
    whole.compute_dtype = torch.bfloat16
    if obstacle := kernel_obstacle(whole):
        pytest.skip(obstacle)
    fit(whole, job(tmp_path / "whole", run=run, stage=stage, accumulate=2))
    fit(model(), job(tmp_path / "parts", run=run, stage=stage, accumulate=2, before=interrupt_at(4)))
    fit(resumed, job(tmp_path / "parts", run=run, stage=stage, accumulate=2))
    assert same(weights(whole), weights(resumed))
    curve = losses(tmp_path / "whole")
    assert curve == losses(tmp_path / "parts")
    assert curve[-1] < curve[0]
    (checkpoint,) = state.checkpoints(tmp_path / "whole" / "checkpoints")
    assert json.loads((checkpoint / "state.json").read_text())["environment"]["backend"] == "kernels"


def test_the_display_says_what_steps_run_on_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunRecipe(folder="unused", device="cpu", precision=Precision.FP32)
    fit(tiny_model(), job(tmp_path, 1, run=run))
    said = capsys.readouterr().err
    assert "test: cpu, torch (head_dim 8: the kernels take multiples of 32" in said
    assert "processor" not in said, "the recipe asks for float32"


def test_the_display_says_where_bfloat16_is_not_multiplied_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.kernels.machine._found", None)
    monkeypatch.setenv("PONDER_MAX_ISA", "avx2")
    fit(tiny_model(), job(tmp_path, 1, run=RunRecipe(folder="unused", device="cpu")))
    said = capsys.readouterr().err
    assert "; processor avx2, products in float32: PONDER_MAX_ISA is avx2" in said


def test_a_crash_loses_what_came_after_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    whole = tiny_model()
    fit(whole, job(tmp_path / "whole"))

    def crash(step: int) -> None:
        if step == 8:
            raise RuntimeError("power cut")

    run = RunRecipe(folder="unused", device="cpu", compile=False, precision=Precision.FP32, checkpoint_minutes=0.0)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tiny_model(), job(tmp_path / "parts", run=run, before=crash))
    saved = state.checkpoints(tmp_path / "parts" / "checkpoints")
    assert [path.name for path in saved] == ["step_00000007", "step_00000008"]
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 9, "loss": 1.0}\n{"step": 10, "lo')
    resumed = tiny_model()
    fit(resumed, job(tmp_path / "parts"))
    assert same(weights(whole), weights(resumed))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """As at a terminal: a job that a shell starts in the background is born with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_is_the_users_again_after_the_first(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def twice(step: int) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model(), job(tmp_path, before=twice))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def hang_ups_heard() -> Iterator[None]:
    """Tests may run under nohup, which children inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGHUP, signal.SIGHUP]])
@pytest.mark.usefixtures("hang_ups_heard")
def test_the_end_of_a_terminal_or_a_job_saves_as_ctrl_c_does(tmp_path: Path, signals: list[signal.Signals]) -> None:
    def end(step: int) -> None:
        for each in signals if step == 2 else ():
            signal.raise_signal(each)

    before = [signal.getsignal(each) for each in signals]
    assert fit(tiny_model(), job(tmp_path, before=end)).outcome is Outcome.INTERRUPTED
    assert [checkpoint.name for checkpoint in state.checkpoints(tmp_path / "checkpoints")] == ["step_00000003"]
    assert [signal.getsignal(each) for each in signals] == before


def test_nohup_keeps_its_meaning(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = fit(tiny_model(), job(tmp_path, 4, before=lambda step: signal.raise_signal(signal.SIGHUP)))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.outcome is Outcome.COMPLETE


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    one, other = tiny_model(), tiny_model()
    fit(one, job(tmp_path / "a", 4, accumulate=2))

    def large(step: int) -> Generator[list[Batch], None, None]:
        while True:
            parts = [batch_of(2 * step), batch_of(2 * step + 1)]
            names = ("ids_BT", "targets_BT", "weights_BT", "documents_BT", "positions_BT")
            yield [Batch(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})]
            step += 1

    stage = StageRecipe(tokens=4 * 48, sequence=12, batch=4, optim=OPTIM)
    fit(other, job(tmp_path / "b", 4, stage=stage, batches=large))
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], atol=2e-5, rtol=1e-4)


def test_a_checkpoint_is_a_model_folder_with_its_state_beside(tmp_path: Path) -> None:
    model = tiny_model()
    fit(model, job(tmp_path))
    (checkpoint,) = state.checkpoints(tmp_path / "checkpoints")
    stored = json.loads((checkpoint / "state.json").read_text())
    assert stored["progress"]["step"] == 12
    assert stored["environment"]["threads"] == "1"
    assert {"model.safetensors", "config.json", "optimizer.safetensors"} <= {p.name for p in checkpoint.iterdir()}


def test_resuming_on_another_setting_says_that_it_is_not_exact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tiny_model(), job(tmp_path, before=interrupt_at(4)))
    torch.set_num_threads(2)
    fit(tiny_model(), job(tmp_path))
    assert "not bit for bit, because threads was 1, is 2" in capsys.readouterr().err


def test_the_time_limit_ends_a_stage_as_complete(tmp_path: Path) -> None:
    stage = replace(job(tmp_path).stage, minutes=1e-9)
    result = fit(tiny_model(), job(tmp_path, stage=stage))
    assert result.outcome is Outcome.COMPLETE
    assert result.progress.step == 1


def test_the_watcher_sees_the_model_and_its_numbers_are_kept(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def watch(step: int, model: Transformer) -> dict[str, float]:
        seen.append((step, model.training))
        torch.randn(3)
        return {"score": step / 2}

    stage = replace(job(tmp_path).stage, eval_every=5)
    model, unwatched = tiny_model(), tiny_model()
    fit(model, job(tmp_path / "a", stage=stage, watch=watch))
    fit(unwatched, job(tmp_path / "b"))
    assert seen == [(5, False), (10, False), (12, False)]
    records = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert {record["step"]: record["score"] for record in records if "score" in record} == {5: 2.5, 10: 5.0, 12: 6.0}
    assert same(weights(model), weights(unwatched))


def test_a_loss_that_is_no_number_stops_the_run_with_advice(tmp_path: Path) -> None:
    model = tiny_model()
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"loss is nan, .*at step 0.*test\.optim\.lr"):
        fit(model, job(tmp_path))
    assert not state.checkpoints(tmp_path / "checkpoints")


def test_only_what_was_half_written_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".step_00000004.abc_12.tmp").mkdir(parents=True)
    for name in (".done.json.123.tmp", ".model.x8y.old", ".mine.tmp", ".notes.old", "plain.1.tmp"):
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        ".mine.tmp",
        ".notes.old",
        "checkpoints",
        "plain.1.tmp",
    ]


def test_a_batch_without_anything_to_learn_is_harmless(tmp_path: Path) -> None:
    def nothing(step: int) -> Generator[list[Batch], None, None]:
        while True:
            batch = batch_of(step)
            batch.weights_BT[:] = 0.0
            yield [batch]

    result = fit(tiny_model(), job(tmp_path, 2, batches=nothing))
    assert losses(tmp_path) == [0.0, 0.0]
    assert result.outcome is Outcome.COMPLETE
