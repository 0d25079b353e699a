"""A run folder says by which version it was written: older ones are resumed exactly, newer ones refused."""

import shutil
from pathlib import Path

import pytest
import torch

from ponder.model.checkpoint import write_model
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.train import Outcome, run
from ponder.train.loop import state
from ponder.types import RecipeError

WRITTEN_BY_VERSION_0 = (Path(__file__).parent / "version_0.toml").read_text()
RECIPE = """
[run]
folder = "{home}/{folder}"
stages = ["{stage}"]
threads = 1
compile = false
device = "cpu"
precision = "fp32"
checkpoint_minutes = 0.0
[{stage}]
start = "{home}/start"
steps = 4
prompts = 2
samples = 4
max_tokens = 8
thinking = 0
sequence = 64
batch = 2
mix = [{{ task = "{home}/letters.py:Letters" }}]
"""
LETTERS = '''
from ponder.tasks.protocol import Grade, Problem


class Letters:
    """Solved by an answer that begins with an even code: something that random weights can be rewarded for."""

    name = "letters"

    def sample(self, rng, level):
        return Problem(task=self.name, question=f"Say something, {rng.randint(1, 99)}.", answer="")

    def grade(self, problem, answer):
        return Grade(score=float(bool(answer) and ord(answer[0]) % 2 == 0))

    def same(self, a, b):
        return a == b
'''


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "start").mkdir()
    write_model(tiny_model(), tmp_path / "start")
    ByteTokenizer().save(tmp_path / "start")
    (tmp_path / "letters.py").write_text(LETTERS)
    return tmp_path


def recipe(home: Path, stage: str, folder: str) -> Path:
    path = home / f"{folder}.toml"
    path.write_text(RECIPE.format(home=home, stage=stage, folder=folder))
    return path


@pytest.mark.parametrize(("stage", "objective"), [("grpo", "policy"), ("rejection", "rejection")])
def test_a_folder_of_version_0_is_resumed_exactly(home: Path, stage: str, objective: str) -> None:
    """There rejection sampling was `grpo.objective`, in the folder of the stage `grpo`."""
    threads = torch.get_num_threads()
    try:
        run(recipe(home, stage, "whole"))
        whole, parts = home / "whole", home / "parts"
        shutil.copytree(whole, parts)
        shutil.rmtree(parts / "model")
        shutil.rmtree(parts / stage / "model")
        (parts / stage / "done.json").unlink()
        *_, last = state.checkpoints(parts / stage / "checkpoints")
        shutil.rmtree(last)
        (parts / stage).rename(parts / "grpo")
        given = {"{home}": str(home), "{objective}": objective}
        text = WRITTEN_BY_VERSION_0
        for name, value in given.items():
            text = text.replace(name, value)
        (parts / "recipe.toml").write_text(text)
        result = run(recipe(home, stage, "parts"), resume=True)
    finally:
        torch.set_num_threads(threads)
    assert result.outcome is Outcome.COMPLETE
    assert result.stages[stage].progress.step == 4
    assert (parts / "recipe.toml").read_text().startswith("version = 1\n")
    for name in ("model.safetensors", "optimizer.safetensors"):
        file = f"{stage}/checkpoints/step_00000004/{name}"
        assert (parts / file).read_bytes() == (whole / file).read_bytes()
    assert not (parts / "grpo").exists() or stage == "grpo"


def test_a_folder_of_a_newer_version_is_refused(home: Path) -> None:
    (home / "new").mkdir()
    (home / "new" / "recipe.toml").write_text("version = 99\n[run]\nunheard_of = 1\n")
    with pytest.raises(
        RecipeError, match=r"new/recipe\.toml: written by a newer Ponder \(version 99, this Ponder reads up to 1\)"
    ):
        run(recipe(home, "grpo", "new"), resume=True)
    assert "99" in (home / "new" / "recipe.toml").read_text()


@pytest.mark.parametrize("key", ["objective = 'rejection'", "per_prompt = 2"])
def test_the_former_flag_in_a_recipe_names_the_section_that_has_taken_its_place(home: Path, key: str) -> None:
    path = recipe(home, "grpo", "old")
    with pytest.raises(RecipeError, match=r"grpo\.\w+ is no longer a key: .*section \[rejection\]"):
        run(path, [f"grpo.{key}"])
