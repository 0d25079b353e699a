"""`kill -9` at random moments of a run: it resumes from the newest whole checkpoint, and ends as if never killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from ponder.train.loop import state
from ponder.train.loop.display import read_metrics

pytestmark = pytest.mark.fault

RECIPE = """
[run]
folder = "{folder}"
stages = ["tokenizer", "pretrain", "sft", "grpo"]
threads = 1
compile = false
checkpoint_minutes = 0.0
[model]
size = 64
layers = 1
[tokenizer]
vocab_size = 320
text = [{{ source = "task:products", samples = 50 }}]
[pretrain]
tokens = 2_560
sequence = 64
batch = 4
held_out = 0.1
eval_every = 3
neighbours = 2
text = [{{ source = "task:products", samples = 100 }}]
[sft]
tokens = 5_120
sequence = 256
batch = 2
chunk_steps = 3
mix = [{{ task = "products", max_level = 0.0 }}]
[grpo]
steps = 8
sequence = 256
prompts = 2
samples = 3
max_tokens = 12
levels = "adaptive"
redraws = 1
weighting = "trajectory"
overlong = 11
mix = [{{ task = "products", max_level = 0.0 }}]
"""
STAGES = ("pretrain", "sft", "grpo")
TIMINGS = {"seconds", "tokens_per_second", "rollout_seconds", "update_seconds"}

# Imports once and forks for every run, so that a kill costs a fraction of a second.
FORK_SERVER = """
import contextlib, importlib, json, os, sys, traceback
from ponder.train import run
for slow in ("torch._dynamo", "ponder.tasks.families", "matplotlib.pyplot"):
    with contextlib.suppress(ImportError):
        importlib.import_module(slow)
for line in sys.stdin:
    recipe, log = json.loads(line)
    child = os.fork()
    if not child:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1), os.dup2(stream, 2)
        try:
            run(recipe, resume=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Home:
    """A run folder, and the fork server that starts its runs."""

    path: Path
    fork_server: subprocess.Popen[str]
    lives: int = 0
    hits: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.path.mkdir()
        self.recipe.write_text(RECIPE.format(folder=self.run))

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def recipe(self) -> Path:
        return self.path / "r.toml"

    @property
    def log(self) -> Path:
        return self.path / f"life{self.lives}.log"

    def live(self, until: Callable[[int], None] | None = None) -> int:
        """Run or resume; `until(pid)` may end it. Gives the exit code, negative for a signal."""
        assert self.fork_server.stdin
        assert self.fork_server.stdout
        self.lives += 1
        self.fork_server.stdin.write(json.dumps([str(self.recipe), str(self.log)]) + "\n")
        self.fork_server.stdin.flush()
        pid = int(self.fork_server.stdout.readline())
        if until:
            until(pid)
        return int(self.fork_server.stdout.readline())

    def steps(self) -> int:
        """Lines of metrics so far, all stages."""
        files = (self.run / stage / "metrics.jsonl" for stage in STAGES)
        return sum(file.read_bytes().count(b"\n") for file in files if file.exists())

    def newest(self) -> dict[str, int]:
        """The step of the newest checkpoint of every stage that is not complete and has one."""
        found = {}
        for stage in STAGES:
            saved = state.checkpoints(self.run / stage / "checkpoints")
            if saved and not (self.run / stage / "done.json").exists():
                found[stage] = int(saved[-1].name.removeprefix("step_"))
        return found

    def kill_at_random(self, rng: Random, steps: int) -> bool:
        """One life ended by SIGKILL after at most this number of steps; False where it ended by itself before."""
        more, pause = rng.randint(0, steps), rng.uniform(0, 0.04)
        if more == 0:  # somewhere in taking up the run
            pause = rng.uniform(0, 0.6)
        begun = self.steps()

        def until(pid: int) -> None:
            deadline = time.monotonic() + 600  # a busy machine is slow
            while self.steps() < begun + more and not ended(pid):
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.01)
            time.sleep(pause)
            if not ended(pid):
                os.kill(pid, signal.SIGKILL)

        before = self.newest()
        code = self.live(until)
        said = self.log.read_text()
        assert code in (0, -signal.SIGKILL), said
        for stage, step in before.items():
            if f"{stage}: resumed" in said:  # else it had not come as far
                assert f"{stage}: resumed exactly at step {step:,}\n" in said
        for stage in STAGES:
            self.check_metrics(stage)
        if code:
            self.hits[next((s for s in reversed(STAGES) if (self.run / s).exists()), "before")] += 1
        return code != 0

    def check_metrics(self, stage: str) -> None:
        """Every step once, in order, at least up to the newest checkpoint."""
        steps = [record["step"] for record in read_metrics(self.run / stage / "metrics.jsonl")]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= self.newest().get(stage, 0)

    def result(self) -> dict[str, object]:
        """All that a run leaves and that does not depend on time."""
        found: dict[str, object] = {
            str(path.relative_to(self.run)): path.read_bytes()
            for pattern in (
                "model/*",
                "*/model/*",
                "*/checkpoints/*/*.safetensors",
                "*/questions.bin",
                "*/*.jsonl",
                "*/samples/*",
            )
            for path in self.run.glob(pattern)
            if path.name != "metrics.jsonl"
        }
        for stage in STAGES:
            records = read_metrics(self.run / stage / "metrics.jsonl")
            found[f"{stage} metrics"] = [{k: v for k, v in r.items() if k not in TIMINGS} for r in records]
        return found


def ended(pid: int) -> bool:
    """Gone, or waited for by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def fork_server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FORK_SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_killed_run_resumes_to_the_very_same_end(tmp_path: Path, kills: int) -> None:
    rng, hits = Random(kills), Counter[str]()
    with fork_server() as process:
        whole = Home(tmp_path / "whole", process)
        assert whole.live() == 0, whole.log.read_text()
        expected = whole.result()
        apart = 2 * whole.steps() // (min(kills, 16) + 1)
        while hits.total() < kills:
            killed = Home(tmp_path / f"killed{hits.total()}", process)
            while hits.total() + killed.hits.total() < kills and killed.kill_at_random(rng, apart):
                pass
            assert killed.live() == 0, killed.log.read_text()
            found = killed.result()
            assert found.keys() == expected.keys()
            assert [name for name in expected if found[name] != expected[name]] == []
            assert not [path for path in killed.run.rglob(".*") if path.suffix in (".tmp", ".old")]
            hits += killed.hits
    print(f"kills: {dict(hits)}")
    if kills >= 50:
        assert all(hits[stage] >= kills // 10 for stage in STAGES), hits
