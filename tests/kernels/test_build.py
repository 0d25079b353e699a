"""Building the fused step where things go wrong: the reason is told, and torch takes over."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ponder.engine import Engine
from ponder.kernels import build
from ponder.kernels.build import BuildError, library
from ponder.model.config import ModelConfig
from ponder.model.transformer import Transformer
from ponder.types import PhaseTokens, SamplingParams

CONFIG = ModelConfig(
    vocab_size=32, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16, intermediate_size=32
)

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fused step is for Linux"),
]


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """Nothing is built yet."""
    monkeypatch.setenv("PONDER_CACHE", str(tmp_path))
    build._library.cache_clear()
    yield tmp_path
    build._library.cache_clear()


def fake_compiler(monkeypatch, folder, script):
    compiler = folder / "g++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def kernel_of_a_bfloat16_model():
    engine = Engine(Transformer(CONFIG).to(torch.bfloat16), PhaseTokens())
    assert len(engine.generate([[1, 2, 3]], SamplingParams(max_tokens=4))[0].ids) == 4
    return engine.kernel


def test_without_a_compiler_torch_takes_over(empty, monkeypatch):
    monkeypatch.setenv("PATH", str(empty))
    assert kernel_of_a_bfloat16_model() == ("torch", "the fused step needs a compiler: g++ is not installed")


def test_what_the_compiler_says_is_told_and_nothing_is_left_behind(empty, monkeypatch):
    fake_compiler(monkeypatch, empty, "echo no such instruction >&2; exit 1")
    choice = kernel_of_a_bfloat16_model()
    assert choice.kernel == "torch"
    assert "failed on the fused step: no such instruction" in choice.reason
    assert [path.suffix for path in (empty / "kernels").iterdir()] == [".lock"]


def test_a_library_that_does_not_load_is_not_used(empty, monkeypatch):
    fake_compiler(monkeypatch, empty, 'for last; do :; done; echo garbage > "$last"')
    choice = kernel_of_a_bfloat16_model()
    assert choice.kernel == "torch"
    assert "built but cannot be used" in choice.reason


def test_a_cache_that_cannot_be_written_is_told(empty, monkeypatch):
    (empty / "file").touch()
    monkeypatch.setenv("PONDER_CACHE", str(empty / "file"))
    with pytest.raises(BuildError, match="cannot be kept in"):
        library()


def test_processes_that_start_together_build_once(empty, monkeypatch):
    """A compiler that notes each call, and copies what the real one has made before."""
    monkeypatch.delenv("PONDER_CACHE")
    try:
        real = build._built("native")
    except BuildError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PONDER_CACHE", str(empty))
    fake_compiler(monkeypatch, empty, f'echo called >> {empty}/calls; sleep 1; for last; do :; done; cp {real} "$last"')
    code = "from ponder.kernels.build import library; print(library().ponder_kernels())"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=120)[0] for process in started}
    assert len(answers) == 1
    assert int(answers.pop()) & 1
    assert Path(empty / "calls").read_text() == "called\n"
    assert len(list((empty / "kernels").glob("*.so"))) == 1


def test_libraries_that_nobody_opened_for_a_month_go(empty, monkeypatch):
    """Another version's is kept while it is used: opening it, which rebuilds nothing, makes it young again."""
    fake_compiler(monkeypatch, empty, 'for last; do :; done; echo garbage > "$last"')
    folder = empty / "kernels"

    def age(path, days):
        then = time.time() - 86_400 * days
        os.utime(path, (then, then))

    made = build._built("native")
    age(made, 40)
    assert build._built("native") == made
    for name, days in (("step-old.so", 40), ("step-young.so", 20), ("other.so", 40)):
        (folder / name).touch()
        (folder / name).with_suffix(".lock").touch()
        age(folder / name, days)
    build._built("x86-64")
    kept = {path.name for path in folder.glob("*.so")}
    assert kept == {made.name, build._built("x86-64").name, "step-young.so", "other.so"}
    assert not (folder / "step-old.lock").exists()
    assert (folder / "step-young.lock").exists()


def test_a_user_without_a_home_is_told_where_else_the_library_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PONDER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(BuildError, match=r"cannot be kept: Could not determine home directory.*set PONDER_CACHE"):
        build.cache_folder()
