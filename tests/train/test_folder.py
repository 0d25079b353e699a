"""A run folder belongs to one process, and a start that made no step leaves it as it was."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ponder.train.loop.folder import RunFolder, RunInUse

HOLD = """
import sys
from pathlib import Path
from ponder.train.loop.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_process_is_refused_until_the_first_has_ended_however_it_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert first.stdout.readline() == "held\n"
        with pytest.raises(RunInUse, match=rf"run is in use \(process {first.pid} on .*, since 20"), folder.locked():
            pass
        os.kill(first.pid, signal.SIGKILL)
    with folder.locked():
        assert f"process {os.getpid()} " in (folder.path / ".lock").read_text()


def test_two_runs_in_one_process_are_two(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(RunInUse, match=f"process {os.getpid()}"), folder.locked():
        pass
    with folder.locked():
        pass


def test_a_lock_leaves_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "many" / "folders" / "run").locked():
        pass
    assert list(tmp_path.iterdir()) == []
    with RunFolder(tmp_path / "run").locked():
        (tmp_path / "run" / "recipe.toml").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.toml"]


@pytest.mark.parametrize("recipe", [None, "the first"])
def test_a_start_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, recipe: str | None) -> None:
    folder = RunFolder(tmp_path)
    if recipe:
        folder.recipe.write_text(recipe)
    before = contents(tmp_path)

    def fail() -> None:
        assert folder.recipe.read_text() == "the second"
        (tmp_path / "sft").mkdir()
        (tmp_path / "sft" / "metrics.jsonl").touch()
        (tmp_path / "sft" / "grades.jsonl").write_text("a grade that nothing was learned from\n")
        raise RuntimeError

    with pytest.raises(RuntimeError), folder.starting("sft", "the second"):
        fail()
    assert contents(tmp_path) == before
    assert not (tmp_path / "sft").exists()


def test_what_a_killed_start_left_does_not_count(tmp_path: Path) -> None:
    folder, own = RunFolder(tmp_path), tmp_path / "grpo"
    own.mkdir()
    (own / "metrics.jsonl").touch()
    (own / "grades.jsonl").write_text("of a grader that was mended since\n")
    assert not folder.begun("grpo")
    with folder.starting("grpo", ""):
        assert not (own / "grades.jsonl").exists()


def test_what_has_made_a_step_is_kept(tmp_path: Path) -> None:
    folder, own = RunFolder(tmp_path), tmp_path / "sft"
    own.mkdir()
    (own / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert folder.begun("sft")
    with pytest.raises(RuntimeError), folder.starting("sft", ""):
        raise RuntimeError
    assert (own / "metrics.jsonl").read_text()
