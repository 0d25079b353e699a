"""The walk in docs/training.md from a task in one file to a model that answers: its file, its commands, its Python."""

import json
import re
import shlex
from pathlib import Path

import pytest

from ponder.cli.main import main
from ponder.train.loop.display import read_metrics

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[2]
WALK = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").split("## Your own task\n")[1].split("\n## ")[0]
TASK, SNIPPET = re.findall(r"^```python\n(.*?)^```", WALK, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```\n(ponder .*)\n```", WALK, re.MULTILINE)
SMALLER = {  # seconds instead of minutes
    "train": """--set run.threads=1 --set run.compile=false --set model.size=64 --set model.layers=1
        --set sft.tokens=60_000 --set sft.eval_every=10 --set sft.watch_problems=1
        --set grpo.steps=2 --set grpo.prompts=2 --set grpo.samples=2
        --set grpo.max_tokens=32 --set grpo.eval_every=0""",
    "eval": "-n 2 --samples 1 --effort minimal",
}


def test_the_file_is_shown_as_it_is() -> None:
    assert (ROOT / "recipes" / "own" / "check_digit.py").read_text(encoding="utf-8") == TASK


def test_the_walk_leads_to_a_model_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    said = {}
    for command in COMMANDS:
        _, *arguments = shlex.split(command)
        assert main([*arguments, *shlex.split(SMALLER.get(arguments[0], ""))]) == 0, capsys.readouterr().err
        said[arguments[0]] = capsys.readouterr().out
    assert list(said) == ["tasks", "train", "eval", "ask"]
    (shown,) = re.findall(r"^```\n(level .*?)```", WALK, re.MULTILINE | re.DOTALL)
    assert shown in said["tasks"]
    assert "| check_digit |" in said["eval"]
    assert said["ask"].strip()

    run = tmp_path / "runs" / "own"
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"recipe.toml", "tokenizer/tokenizer.json", "model/model.safetensors", "grpo/grades.jsonl"} <= files
    assert {"sft/metrics.jsonl", "sft/questions.bin", "grpo/metrics.jsonl", "grpo/samples/step_000002.jsonl"} <= files
    tuned = read_metrics(run / "sft" / "metrics.jsonl")
    assert tuned[-1]["loss"] < 0.7 * tuned[0]["loss"]
    assert "solved/check_digit" in tuned[-1]
    learned = read_metrics(run / "grpo" / "metrics.jsonl")
    assert {"pass/check_digit", "share/check_digit", "level/check_digit"} <= learned[-1].keys()
    (sample, *_) = (run / "grpo" / "samples" / "step_000002.jsonl").read_text().splitlines()
    assert json.loads(sample)["question"].startswith("What is the check digit of ")

    exec(SNIPPET, {})
    assert capsys.readouterr().out.strip()
