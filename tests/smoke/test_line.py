"""The whole line on real parts, small: raw text → tokenizer → pre-training → tuning → a folder that answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ponder.dialogue import Message
from ponder.sampler.local import load_sampler
from ponder.sampler.protocol import Request
from ponder.sampler.threads import run_sync
from ponder.train import Outcome, RunResult, run
from ponder.train.loop.display import read_metrics
from ponder.train.loop.folder import read_questions
from ponder.types import SamplingParams, ThinkingLimits

pytestmark = pytest.mark.smoke

STAGES = ("pretrain", "sft", "grpo")
RECIPE = Path(__file__).parents[2] / "recipes" / "smoke" / "all.toml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("smoke") / "run"
    return run(RECIPE, [f"run.folder={folder}", "sft.eval_every=15", "sft.watch_problems=2"])


def test_the_smoke_recipe_runs_to_a_model_that_can_be_asked(finished: RunResult) -> None:
    assert finished.outcome is Outcome.COMPLETE
    assert finished.model is not None
    sampler = load_sampler(finished.model)
    params = SamplingParams(max_tokens=24, temperature=0.0, thinking=ThinkingLimits(cap=8))
    (completion,) = run_sync(sampler.sample(Request(prompt=(Message.user("What is 3 times 4?"),), params=params)))
    run_sync(sampler.close())
    assert 1 <= completion.usage.reasoning_tokens <= 8
    assert completion.usage.completion_tokens <= 24


def test_the_run_folder_holds_what_a_person_looks_for(finished: RunResult) -> None:
    files = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    stages = {f"{stage}/{name}" for stage in STAGES for name in ("metrics.jsonl", "loss.png", "done.json")}
    assert stages | {"recipe.toml", "tokenizer/tokenizer.json", "model/model.safetensors"} <= files
    assert {"pretrain/neighbours.txt", "grpo/grades.jsonl", "grpo/samples/step_000003.jsonl"} <= files
    assert not [name for name in files if ".tmp" in name]
    records = [json.loads(line) for line in (finished.folder / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["loss"] < 0.7 * records[0]["loss"]
    assert "solved/products" in records[-1]
    learned = read_metrics(finished.folder / "grpo" / "metrics.jsonl")
    assert all(each["gradient"] > 0 and each["engine_difference"] < 0.2 for each in learned)
    questions = read_questions(finished.folder / "sft" / "questions.bin")
    assert len(questions) > 100
    assert (questions[1:] > questions[:-1]).all()


def test_complete_stages_are_skipped(finished: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    again = run(RECIPE, [f"run.folder={finished.folder}", "sft.eval_every=15", "sft.watch_problems=2"], resume=True)
    assert again.outcome is Outcome.COMPLETE
    assert again.stages == {}
    assert capsys.readouterr().out.count("complete already") == 4


def test_ctrl_c_saves_and_resume_ends_in_the_very_same_model(finished: RunResult, tmp_path: Path) -> None:
    """In a separate process, as a person would: Ctrl-C goes to the whole process group, the data worker included."""
    folder = tmp_path / "run"
    code = f"from ponder.train import run; print(run({str(RECIPE)!r}, ['run.folder={folder}']).outcome)"
    trainer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = folder / "sft" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.is_file() or metrics.read_text().count("\n") < 5:
        assert trainer.poll() is None, trainer.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(trainer.pid, signal.SIGINT)
    out, error = trainer.communicate(timeout=60)
    assert trainer.returncode == 0, error
    assert out.endswith("interrupted\n")
    assert "Traceback" not in error
    resumed = run(RECIPE, [f"run.folder={folder}"], resume=True)
    assert resumed.outcome is Outcome.COMPLETE
    for name in ("sft/model/model.safetensors", "model/model.safetensors", "sft/questions.bin", "grpo/questions.bin"):
        assert (folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
