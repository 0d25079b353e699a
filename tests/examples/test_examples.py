"""The examples run as they stand."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ponder.cli.main import main
from ponder.testing.scripted import ScriptedSampler
from ponder.think import Reasoner

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, folder: Path | None = None) -> list[str]:
    """What an example prints, line by line."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=240, cwd=folder
    ).stdout.splitlines()


@pytest.fixture
def server() -> Iterator[str]:
    """`serve.py` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, EXAMPLES / "serve.py", "--port", str(port)])
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except urllib.error.URLError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [file.name for file in EXAMPLES.glob("*.py") if file.name not in tests] == []


def test_ask() -> None:
    lines = run("ask.py")
    assert lines[0].startswith("3995 ")
    assert "votes: 3995: 4" in lines[1]
    assert "2 Started" in lines[2]


def test_stream() -> None:
    text = "\n".join(run("stream.py"))
    assert "3995\nUsage(" in text
    assert "the first piece: '4'" in text
    assert "408\n4368\n" in text
    assert "discarded: True" in text


def test_grammar() -> None:
    lines = run("grammar.py")
    assert lines[0].startswith("3995 ")
    assert lines[1] == "{'product': 3995, 'even': True}"
    assert lines[2].startswith("multiply {'a': ")


@pytest.mark.parametrize(("said", "text", "samples"), [(["1", "1.0", "3"], "1", 2), (["1", "2", "3"], "3", 3)])
def test_escalate_thinks_for_longer_where_quick_answers_disagree(said: list[str], text: str, samples: int) -> None:
    sampler = ScriptedSampler(said)
    answer = Reasoner(sampler).ask("x", strategy=f"{EXAMPLES / 'escalate.py'}:escalate(quick='minimal')")
    assert answer.text == text
    assert sum(request.n for request in sampler.requests) == samples
    efforts = [request.params.thinking.cap for request in sampler.requests]
    assert efforts == sorted(efforts)


def test_initials_is_a_sound_task(capsys: pytest.CaptureFixture[str]) -> None:
    task = f"{EXAMPLES / 'initials.py'}:Initials"
    assert main(["tasks", task, "-n", "1"]) == 0
    assert "the grader accepts every demonstration and no empty answer" in capsys.readouterr().out
    assert main(["eval", "mini", "--suite", task, "-n", "2", "--modes", "direct", "--samples", "1"]) == 0
    assert "| initials |" in capsys.readouterr().out


def test_reinforce_trains(tmp_path: Path) -> None:
    smaller = ("steps=1", "prompts=2", "samples=2", "max_tokens=64", "watch_problems=0")
    overrides = [part for key in smaller for part in ("--set", f"reinforce.{key}")]
    run("reinforce.py", *overrides, "--set", "run.threads=1", folder=tmp_path)
    (step,) = (tmp_path / "runs" / "reinforce" / "reinforce" / "metrics.jsonl").read_text().splitlines()
    assert 0 <= json.loads(step)["reward"] <= 1
    assert (tmp_path / "runs" / "reinforce" / "model" / "model.safetensors").is_file()


def test_client_and_server(server: str) -> None:
    lines = run("client.py", server)
    assert re.fullmatch(r"\d+   \(\d+ of \d+ tokens thinking\)", lines[0])  # sampled, as the API's default is
    assert "3995   (" in lines[-2]
    assert lines[-1] == "408 4368"
    with urllib.request.urlopen(f"{server}/models", timeout=10) as listed:
        assert [each["id"] for each in json.load(listed)["data"]] == ["mini", "careful"]
