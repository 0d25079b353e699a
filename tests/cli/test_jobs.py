"""`ponder jobs` against a server that runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live, serving

from ponder.cli import main as cli
from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler


def script(conversation, index):
    asked = conversation[-1].text
    return Say(f"answer to {asked}", reasoning="hm", seconds=30 if "slow" in asked else 0)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving([Served(name="said", sampler=ScriptedSampler(script))], Settings()) as running:
        yield running


def test_a_file_is_handed_over_watched_shown_and_exported(
    live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        assert cli.main(["jobs", "--url", live.root, *words]) == 0
        return capsys.readouterr().out

    (tmp_path / "q.txt").write_text("one\n\n two \n")
    watched = run("add", str(tmp_path / "q.txt"), "--batch", "b", "--label", "x", "--watch").splitlines()
    assert sorted(line.split("  ->  ")[1] for line in watched if "->" in line) == ["answer to one", "answer to two"]
    (tmp_path / "q.jsonl").write_text(json.dumps({"input": "slow\x1b[2J", "custom_id": "c"}))
    (id,) = run("add", str(tmp_path / "q.jsonl")).split()
    listed = run("list").splitlines()
    assert len(listed) == 3
    assert listed[0].startswith(id)
    assert "\x1b" not in listed[0], "what was asked cannot steer the terminal"
    assert len(run("list", "--batch", "b", "--search", "TWO").splitlines()) == 1
    shown = run("show", listed[1].split()[0], "--reasoning").splitlines()
    assert shown[1:3] == ["hm", "answer to two"]
    assert run("cancel", id) == "1 cancelled\n"
    rows = list(csv.DictReader(io.StringIO(run("export", "--format", "csv"))))
    assert [(row["input"], row["state"]) for row in rows[:2]] == [("one", "completed"), ("two", "completed")]
    assert run("watch") == "no job is queued or runs\n"


def test_what_is_wrong_is_one_line(live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.jsonl").write_text('{"input": "a"}\nnot json\n')
    assert cli.main(["jobs", "--url", live.root, "add", str(tmp_path / "q.jsonl")]) == 2
    assert "q.jsonl, line 2: is not JSON" in capsys.readouterr().err
    assert cli.main(["jobs", "--url", live.root, "show", "job_x"]) == 1
    assert "the server refuses (404): job 'job_x' does not exist" in capsys.readouterr().err
    assert cli.main(["jobs", "--url", "http://127.0.0.1:9", "list"]) == 1
    assert "start one with `ponder serve`" in capsys.readouterr().err
