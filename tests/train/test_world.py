"""Several workers that train one model: they learn what one process does, stop together, and fail together."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import several
import torch
from safetensors.torch import load_file

from ponder.train.algorithms.dpo import DpoRecipe
from ponder.train.algorithms.pretrain import PretrainRecipe
from ponder.train.algorithms.reward import RewardRecipe
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.data.packing import Batch
from ponder.train.loop import state
from ponder.train.loop.anchor import AnchorRecipe
from ponder.train.loop.display import read_metrics
from ponder.train.loop.world import World, world
from ponder.train.policy.lessons import Experience, pack_updates, unpack_updates
from ponder.train.recipe.sections import LoraRecipe, Optimizer, OptimRecipe, StageRecipe

ALL = ("pretrain", "muon", "sft", "reward", "dpo", "grpo", "ppo")
CLOSE = 2e-6


def launched(workers: int, folder: Path, *cases: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    paths = os.pathsep.join([*sys.path, str(several.HERE)])
    done = subprocess.run(
        [*command, str(several.HERE / "several.py"), str(folder), *cases],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def records(folder: Path, case: str) -> list[dict[str, float]]:
    return read_metrics(folder / case / several.STAGES.get(case, case) / "metrics.jsonl")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "runs"
    several.prepare(folder)
    for case in (*ALL, "short"):
        several.train(folder, case)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "runs"
    several.prepare(folder)
    launched(2, folder, *ALL, "stopped", "broken", *several.DIVIDED, "digest")
    return folder


@pytest.fixture(scope="module")
def three(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Also goes on with what two workers were stopped at."""
    folder = tmp_path_factory.mktemp("three") / "runs"
    several.prepare(folder)
    (two / "stopped").rename(folder / "stopped")
    for name in ("divided_short", "divided_short.toml"):
        copy = shutil.copytree if (two / name).is_dir() else shutil.copy
        copy(two / name, folder / name)
    launched(3, folder, "pretrain", "muon", "sft", "dpo", "stopped", "digest", "divided", "divided_short")
    return folder


def assert_equal(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        counted = {name for name in a if "second" not in name and name != "compute"}
        assert counted == {name for name in b if "second" not in name and name != "compute"}
        assert a["loss"] == pytest.approx(b["loss"], abs=CLOSE)
        assert {name: a[name] for name in counted} == pytest.approx({name: b[name] for name in counted}, abs=1e-4)


@pytest.mark.cluster
@pytest.mark.parametrize("case", ALL)
def test_two_workers_learn_what_one_does(alone: Path, two: Path, case: str) -> None:
    assert_equal(records(alone, case), records(two, case))


@pytest.mark.cluster
def test_so_do_three_which_cut_micro_batches(alone: Path, three: Path) -> None:
    for case in ("pretrain", "sft", "dpo"):
        assert_equal(records(alone, case), records(three, case))


@pytest.mark.cluster
def test_fifty_steps_leave_the_weights_of_one_process(alone: Path, two: Path, three: Path) -> None:
    one, *others = (load_file(each / "pretrain/pretrain/model/model.safetensors") for each in (alone, two, three))
    assert len(records(alone, "pretrain")) == 50
    for other in others:
        assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


@pytest.mark.cluster
def test_muon_in_float32_leaves_the_weights_of_one_process(alone: Path, three: Path) -> None:
    one, other = (load_file(each / "muon/pretrain/model/model.safetensors") for each in (alone, three))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


@pytest.mark.cluster
def test_a_signal_to_one_worker_stops_all_after_the_same_step_and_others_go_on(alone: Path, three: Path) -> None:
    assert not list(three.glob("stopped.*.txt"))
    assert_equal(records(alone, "short"), records(three, "stopped"))
    (last,) = state.checkpoints(three / "stopped/pretrain/checkpoints")[-1:]
    assert json.loads((last / "state.json").read_text())["environment"]["workers"] == "3"


@pytest.mark.cluster
def test_an_error_on_one_worker_is_raised_on_all(two: Path) -> None:
    said = [(two / f"broken.{rank}.txt").read_text() for rank in range(2)]
    assert said[1] == "DataError: the data of this worker is broken"
    assert said[0] == "WorkerFailed: worker 1 of 2: the data of this worker is broken"
    assert len(records(two, "broken")) == 2


@pytest.mark.cluster
@pytest.mark.parametrize(("name", "case"), [("divided", "pretrain"), ("divided_sft", "sft"), ("divided_dpo", "dpo")])
def test_workers_that_divide_the_weights_learn_what_one_process_does(
    alone: Path, two: Path, name: str, case: str
) -> None:
    assert not list(two.glob(f"{name}.*.txt"))
    assert_equal(records(alone, case), records(two, name))
    own, other = (load_file(each / "model/model.safetensors") for each in (alone / case, two / name))
    assert {name: tensor.shape for name, tensor in own.items()} == {k: v.shape for k, v in other.items()}


@pytest.mark.cluster
def test_so_do_three_of_which_some_have_less_to_compute(alone: Path, three: Path) -> None:
    assert_equal(records(alone, "pretrain"), records(three, "divided"))


@pytest.mark.cluster
def test_what_two_workers_divided_is_read_by_any_number(alone: Path, two: Path, three: Path) -> None:
    """To the bit. And a run goes on with it: three workers after two, and one process after those two."""
    read = {
        (each / f"digest.{size}.{rank}").read_text() for each, size in ((two, 2), (three, 3)) for rank in range(size)
    }
    assert read == {several.digest(two / "divided_short")}
    assert_equal(records(alone, "short"), records(three, "divided_short"))
    assert len(records(two, "divided_short")) < len(records(alone, "short"))
    several.train(two, "divided_short")
    assert_equal(records(alone, "short"), records(two, "divided_short"))


@pytest.mark.cluster
def test_a_stage_that_needs_whole_weights_refuses_to_divide_them(two: Path) -> None:
    said = [(two / f"divided_grpo.{rank}.txt").read_text() for rank in range(2)]
    assert 'but the stage grpo reads all of them: set it to "replicate"' in said[0]
    assert said[0].startswith("RecipeError")


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (PretrainRecipe(), ""),
        (DpoRecipe(), ""),
        (PretrainRecipe(optim=OptimRecipe(name=Optimizer.MUON)), "whole matrices"),
        (SftRecipe(lora=LoraRecipe(rank=2)), "small part"),
        (SftRecipe(anchor=AnchorRecipe(weight=1.0)), "anchor"),
        (RewardRecipe(), "reads all"),
    ],
)
def test_stages_say_why_they_need_whole_weights(section: StageRecipe, why: str) -> None:
    assert bool(section.needs_whole) == bool(why)
    assert why in section.needs_whole


def batch(rows: int, first: int) -> Batch:
    made = Batch.empty(rows, 4, 0)
    made.ids_BT[:, 0] = range(first, first + rows)
    return made


@pytest.mark.parametrize("sizes", [(5, 5), (1,), (8,), (3, 1, 4)])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rows_are_shared_out_evenly_and_each_once(sizes: tuple[int, ...], size: int) -> None:
    batches = [batch(rows, sum(sizes[:at])) for at, rows in enumerate(sizes)]
    shares = [
        [int(row) for piece in World(rank, size).own_rows(batches) for row in piece.ids_BT[:, 0]]
        for rank in range(size)
    ]
    assert [row for share in shares for row in share] == list(range(sum(sizes)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_every_micro_batch_is_one_worker_s() -> None:
    assert sorted(each for rank in range(3) for each in World(rank, 3).own(range(7))) == list(range(7))


def test_each_worker_has_a_gpu_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    cuda, cpu, named = (torch.device(name) for name in ("cuda", "cpu", "cuda:0"))
    assert World(3, 4).device(cuda) == torch.device("cuda:1")
    assert [World(3, 4).device(each) for each in (cpu, named)] == [cpu, named]
    assert World().device(cuda) == cuda


def test_a_process_that_nothing_launched_is_alone() -> None:
    assert world() == World()
    assert world().sums({"a": 1.0}) == {"a": 1.0}
    assert world().agree("x") == "x"


def test_updates_survive_the_way_to_another_worker() -> None:
    def experience(rows: int) -> Experience:
        floats = torch.rand(4, rows, 4).numpy()
        numbers = batch(rows, 3).ids_BT
        return Experience(
            batch=batch(rows, 0),
            old_BT=floats[0],
            advantages_BT=floats[1],
            values_BT=floats[2],
            returns_BT=floats[3],
            trajectories_BT=numbers,
        )

    updates = [[experience(2), experience(1)], [experience(3)]]
    again, said = unpack_updates(pack_updates(updates, {"metrics": {"reward": 0.5}}))
    assert said == {"metrics": {"reward": 0.5}}
    assert pack_updates(again, said) == pack_updates(updates, said)
