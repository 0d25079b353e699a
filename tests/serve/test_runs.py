"""Training runs over HTTP: found, read from a cursor while they grow, forgotten where they were resumed, and nothing of
the machine beside them."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.serve import Served, Settings
from ponder.serve.run_folders import bucketed
from ponder.testing.scripted import ScriptedSampler
from ponder.train.loop.display import MetricsLog
from ponder.types import InvalidRequest

RECIPE = '[run]\nfolder = "x"\nstages = ["sft", "grpo"]\n\n[sft]\ntokens = 9000\n\n[grpo]\nsteps = 40\n'
SAMPLE = {
    "task": "gcd",
    "level": 0.5,
    "question": "gcd of 4 and 6?",
    "gold": "2",
    "thinking": "4 = 2 * 2",
    "answer": "2",
    "reward": 1.0,
    "score": 1.0,
    "status": "graded",
    "why": "",
    "ended": "end",
    "tokens": 9,
}


def record(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "tokens": step * 100, "compute": step * 300, "seconds": step / 2, "loss": 1 / step, **more}


def make_run(folder: Path, steps: int, stage: str = "sft") -> Path:
    own = folder / stage
    own.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (own / "metrics.jsonl").write_text("".join(json.dumps(record(step)) + "\n" for step in range(1, steps + 1)))
    return own


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("all") / "runs"


@pytest.fixture(scope="module")
def live(root: Path) -> Iterator[Live]:
    make_run(root / "one", 30)
    own = make_run(root / "deep" / "two", 5, "grpo")
    (own / "samples").mkdir()
    (own / "samples" / "step_000004.jsonl").write_text((json.dumps(SAMPLE) + "\n") * 3)
    secret = root.parent / "secret"
    make_run(secret, 3)
    (root / "linked").symlink_to(secret)
    (make_run(root / "three", 2) / "metrics.jsonl").unlink()
    (root / "three" / "sft" / "metrics.jsonl").symlink_to(secret / "sft" / "metrics.jsonl")
    with serving([Served(name="said", sampler=ScriptedSampler(()))], Settings(runs=str(root))) as running:
        yield running


def get(live: Live, path: str = "", **query: Any) -> httpx.Response:
    return httpx.get(f"{live.url}/runs{path}", params=query)


def metrics(live: Live, **query: Any) -> dict[str, Any]:
    answer = get(live, "/metrics", **{"run": "one", "stage": "sft", **query})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_runs_are_listed_with_their_stages_and_how_far_they_are(live: Live) -> None:
    found = {run["id"]: run for run in get(live).json()["data"]}
    assert set(found) == {"one", "deep/two", "three"}  # a link is not followed
    (stage,) = found["one"]["stages"]
    assert (stage["name"], stage["step"], stage["target_tokens"], stage["done"]) == ("sft", 30, 9000, False)
    assert stage["latest"]["loss"] == pytest.approx(1 / 30)
    (stage,) = found["deep/two"]["stages"]
    assert (stage["target_steps"], stage["samples"]) == (40, [4])
    assert found["three"]["stages"] == []
    page = get(live, limit=1).json()
    assert ([run["id"] for run in page["data"]], page["has_more"]) == (["deep/two"], True)
    assert [run["id"] for run in get(live, after="deep/two").json()["data"]] == ["one", "three"]


def test_a_run_is_live_while_the_process_that_its_lock_names_lives(live: Live, root: Path) -> None:
    lock = root / "one" / ".lock"
    for process, alive in ((os.getpid(), True), (2**22 - 3, False)):
        lock.write_text(f"process {process} on {platform.node()}, since 2026-01-01 00:00")
        found = {run["id"]: run["live"] for run in get(live).json()["data"]}
        assert found == {"one": alive, "deep/two": False, "three": False}
    lock.unlink()


def test_curves_come_from_a_cursor_and_a_resumed_run_forgets(live: Live, root: Path) -> None:
    first = metrics(live)
    curves = {curve["key"]: curve for curve in first["curves"]}
    assert curves["loss"]["steps"] == [*range(1, 31)]
    assert (first["truncate"], first["last_step"], first["knots"][-1]) == (None, 30, [30, 3000, 9000, 15])
    with (root / "one" / "sft" / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps(record(31)) + "\n" + '{"step": 32, "lo')  # the last one is being written
    cursor = {"after_step": first["last_step"], "mark": first["mark"]}
    more = metrics(live, **cursor)
    assert [curve["steps"] for curve in more["curves"]] == [[31]] * len(more["curves"])
    assert metrics(live, after_step=31, mark=more["mark"])["curves"] == []

    log = MetricsLog(root / "one" / "sft" / "metrics.jsonl", step=20)  # as a resumed run opens it
    again = metrics(live, after_step=31)
    assert (again["truncate"], again["last_step"], again["curves"]) == (20, 20, [])
    for step in range(21, 33):
        log.write(record(step, loss=9.0))
    log.close()
    after = metrics(live, after_step=20, mark=again["mark"])
    assert after["truncate"] is None
    assert {curve["key"]: curve for curve in after["curves"]}["loss"]["values"] == [9] * 12
    behind = metrics(live, after_step=31, mark=more["mark"])  # step 31 is another one now
    assert (behind["truncate"], len(behind["curves"][0]["steps"])) == (-1, 32)


def test_long_curves_keep_their_peaks_and_what_is_not_a_number(live: Live) -> None:
    records = [record(step, loss=math.nan if step == 700 else 50.0 if step == 333 else 1.0) for step in range(1, 9001)]
    drawn = bucketed(records, "loss", 300)
    assert len(drawn) <= 300
    assert (333, 50.0) in drawn
    assert (700, None) in drawn
    assert [step for step, _ in drawn] == sorted({step for step, _ in drawn})
    few = metrics(live, points=6)
    assert all(len(curve["steps"]) <= 6 for curve in few["curves"])


def test_samples_and_recipe_are_read(live: Live) -> None:
    asked = {"run": "deep/two", "stage": "grpo", "step": 4}
    page = get(live, "/samples", **asked, limit=2).json()
    assert (page["data"][0]["answer"], page["has_more"]) == ("2", True)
    assert len(get(live, "/samples", **asked, after=2).json()["data"]) == 1
    assert get(live, "/recipe", run="one").json()["toml"] == RECIPE


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/recipe", {"run": "../secret"}),
        ("/recipe", {"run": "one/../../secret"}),
        ("/recipe", {"run": "linked"}),
        ("/recipe", {"run": "/etc"}),
        ("/recipe", {"run": "deep"}),
        ("/recipe", {"run": "one/"}),
        ("/metrics", {"run": "three", "stage": "sft"}),
        ("/metrics", {"run": "one", "stage": ".."}),
        ("/metrics", {"run": "one", "stage": "../../secret/sft"}),
        ("/samples", {"run": "deep/two", "stage": "grpo", "step": 5}),
    ],
)
def test_nothing_outside_the_folder_is_there(live: Live, path: str, query: dict[str, Any]) -> None:
    answer = get(live, path, **query)
    assert answer.status_code == 404, answer.text
    assert "secret" not in answer.text.replace(query["run"], "").replace(query.get("stage", "?"), "")


def test_what_cannot_be_read_is_said_with_its_line(live: Live, root: Path) -> None:
    own = make_run(root / "zz", 2)
    with (own / "metrics.jsonl").open("a") as stream:
        stream.write("[]\n")
    answer = get(live, "/metrics", run="zz", stage="sft")
    assert answer.status_code == 400
    assert "metrics.jsonl, line 3: is not a JSON object" in answer.json()["error"]["message"]
    (own / "metrics.jsonl").unlink()
    (own / "samples").mkdir()


def test_a_server_without_runs_says_how_to_show_them_and_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with serving([Served(name="said", sampler=ScriptedSampler(()))]) as other:
        answer = get(other)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_runs")
        assert "--runs FOLDER" in answer.json()["error"]["message"]
    with (
        pytest.raises(InvalidRequest, match="is not a folder"),
        serving([Served(name="said", sampler=ScriptedSampler(()))], Settings(runs=str(tmp_path / "no"))),
    ):
        pass
