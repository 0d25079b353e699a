"""Jobs over `kill -9`, and what a deletion leaves."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from child import free_port
from job_client import Jobs
from live import serving
from scripted_server import forked_server

from ponder.serve import Served, Settings
from ponder.serve.store import Store
from ponder.serve.store.job_records import JobState, StoredJob
from ponder.serve.store.jobs import begun_jobs, insert_jobs, put_job, the_job
from ponder.testing.scripted import Say, ScriptedSampler

pytestmark = pytest.mark.fault


def hand_over(jobs: Jobs, number: int, at_once: int) -> bool:
    """Hand over jobs with numbers as their names, each request under another key. False: the server is gone."""
    for start in range(0, number, at_once):
        body = {"defaults": {"model": "said"}, "jobs": []}
        body["jobs"] = [{"input": f"question {each}", "custom_id": str(each)} for each in range(start, start + at_once)]
        try:
            answer = jobs.http.post("/v1/jobs", json=body, headers={"idempotency-key": str(start)})
        except Exception:
            return False
        assert answer.status_code == 200, answer.text
    return True


def kill(path: Path, number: int, times: int) -> None:
    for life in range(times + 1):
        port = free_port()
        with forked_server(port, path / "store.db") as process:
            jobs = Jobs(f"http://127.0.0.1:{port}", "")
            with jobs.http:
                whole = hand_over(jobs, number, 50)
                if life < times:
                    _until_done(jobs, number * (life + 1) // (times + 2))
                    process.kill()
                    continue
                assert whole
                counts = _at_rest(jobs)
                assert counts == {"completed": number}, "none lost, none failed"
                _check(jobs, number)
    with closing(sqlite3.connect(path / "store.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def _until_done(jobs: Jobs, number: int) -> None:
    while jobs.get("/counts")["states"]["completed"] < number:
        time.sleep(0.01)


def _at_rest(jobs: Jobs) -> dict[str, int]:
    while True:
        states = {state: count for state, count in jobs.get("/counts")["states"].items() if count}
        if not states.keys() & {"queued", "in_progress"}:
            return states
        time.sleep(0.05)


def _check(jobs: Jobs, number: int) -> None:
    """Each job is there once, with its answer; what a killed attempt had cost is billed."""
    seen: list[dict[str, Any]] = []
    after = None
    while True:
        page = jobs.get(limit=200, sort="created", **({"after": after} if after else {}))
        seen += page["data"]
        if (after := page["next"]) is None:
            break
    assert [job["custom_id"] for job in seen] == [str(each) for each in range(number)]
    assert {job["answer"] for job in seen} == {"Four of them."}
    assert max(job["attempt"] for job in seen) > 1, "no kill met a running job"
    for job in [job for job in seen if job["attempt"] > 1][:20]:
        whole = jobs.get(f"/{job['id']}")
        assert [each["kind"] for each in whole["attempts"]] == ["first", *["restart"] * (job["attempt"] - 1)]
        assert whole["attempts"][-1]["status"] == "completed"
        assert job["usage"]["output_tokens"] >= whole["attempts"][-1]["usage"]["output_tokens"]


def test_500_jobs_over_3_kills_none_lost_and_none_twice(tmp_path: Path) -> None:
    kill(tmp_path, 500, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_5000_jobs_over_50_kills_none_lost_and_none_twice(tmp_path: Path) -> None:
    kill(tmp_path, 5000, 50)


def served(seconds: float = 0.0) -> list[Served]:
    return [Served(name="said", sampler=ScriptedSampler(lambda _, index: Say("Four.", seconds=seconds)))]


def test_a_job_is_resumed_three_times_and_then_fails(tmp_path: Path) -> None:
    """Each time it had begun, and had cost something."""
    settings = Settings(store=str(tmp_path / "store.db"), drain=0)
    for life in range(5):
        with serving(served(30), settings) as live:
            jobs = Jobs(live.root, "")
            with jobs.http:
                if life == 0:
                    (job,) = jobs.hand_over("one", defaults={"needs": []})
                found = jobs.until(job["id"], "in_progress", "failed")
                assert found["attempt"] == min(life + 1, 4)
    assert found["state"] == "failed"
    assert found["error"]["code"] == "server_restarted"
    assert [each["kind"] for each in found["attempts"]] == ["first", "restart", "restart", "restart"]


def test_what_waits_is_kept_as_it_is(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "store.db"))
    with serving(served(), settings) as live:
        jobs = Jobs(live.root, "")
        with jobs.http:
            (job,) = jobs.hand_over("one", defaults={"needs": ["review"]})
            before = jobs.until(job["id"], "needs_input")
    with serving(served(), settings) as live:
        jobs = Jobs(live.root, "")
        with jobs.http:
            assert jobs.get(f"/{job['id']}") == before
            assert jobs.post(f"/{job['id']}/answer", {"need": before["need"]["id"]})["state"] == "completed"


def test_a_deleted_job_leaves_no_byte(tmp_path: Path) -> None:
    """Question, thought, answer, label, name, batch, note and trace, in the file and in its log."""
    words = ["Xylophon", "Quetzal", "Zwiebel", "Wolpertinger", "Rumpelstilz", "Klabauter"]
    question, thought, answer, label, batch, note = words

    def script(conversation: Any, index: int) -> Say:
        return Say(f"{answer} {index}", reasoning=f"{thought} {index}")

    settings = Settings(store=str(tmp_path / "store.db"))
    with serving([Served(name="said", sampler=ScriptedSampler(script))], settings) as live:
        jobs = Jobs(live.root, "")
        with jobs.http:
            (job,) = jobs.hand_over(question, batch=batch, defaults={"labels": [label]})
            (other,) = jobs.hand_over("another", "and more")[:1]
            jobs.until(job["id"], "completed")
            jobs.post(f"/{job['id']}/steer", {"text": note, "when": "after"})
            jobs.until(job["id"], "completed")
            jobs.until(other["id"], "completed")
            held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
            assert all(word.encode() in held for word in (question, thought, answer, label, batch, note))
            for each in jobs.get()["data"]:
                jobs.http.delete(f"/v1/jobs/{each['id']}")
            left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
            for word in words:
                assert word.encode() not in left, word
                assert word.casefold().encode() not in left, word
            assert jobs.get(q=question)["data"] == []


def test_statements_keep_owners_apart(tmp_path: Path) -> None:
    """The same id asked for by another owner is not found, and changes of one owner do not move the other's clock."""

    def job(id: str, owner: str) -> StoredJob:
        return StoredJob(id=id, owner=owner, state=JobState.IN_PROGRESS, model="m", title="t", created_at=1.0)

    store = Store(tmp_path / "store.db")
    try:

        async def steps() -> None:
            (first,) = await store.write(lambda c: insert_jobs(c, [job("job_1", "a")], None))
            (second,) = await store.write(lambda c: insert_jobs(c, [job("job_2", "b")], None))
            assert (first.number, second.number) == (1, 1)
            assert (await store.write(lambda c: put_job(c, first))).changed == 2
            assert (await store.read(lambda c: the_job(c, "b", "job_2"))).changed == 1
            with pytest.raises(Exception, match="does not exist"):
                await store.read(lambda c: the_job(c, "b", "job_1"))
            assert [each.owner for each in await store.read(begun_jobs)] == ["a", "b"]

        asyncio.run(steps())
    finally:
        store.close()
