"""Jobs: handed over, listed, counted, followed, cancelled, deleted, each with its owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest
from job_client import KEYS, Jobs, cleared
from live import Live, serving

from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler


def script(conversation, index):
    """What is asked says how it is answered: "slow" takes long, "fail" fails, "vote" splits the samples."""
    asked = conversation[-1].text
    if "fail" in asked:
        return Say("", calls=("not a call",))  # no line that can be said
    if "vote" in asked:
        return Say(str(41 + index % 2), reasoning=f"hm {index}")
    return Say(f"answer to {asked}", reasoning="hm hm", seconds=30 if "slow" in asked else 0)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving([Served(name="said", sampler=ScriptedSampler(script))], Settings(samples=8), KEYS) as running:
        yield running


@pytest.fixture
def jobs(live: Live) -> Iterator[Jobs]:
    with cleared(live.root) as client:
        yield client


def test_a_job_is_answered_and_billed(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("six times seven", batch="tonight", defaults={"labels": ["sums"]})
    assert (job["state"], job["revision"], job["attempt"], job["answer"]) == ("queued", 1, 1, None)
    done = jobs.until(job["id"], "completed")
    assert done["answer"] == "answer to six times seven"
    assert done["title"] == "six times seven"
    assert (done["batch"], done["labels"], done["seen"]) == ("tonight", ["sums"], False)
    assert done["revision"] == 3, "queued, in progress, completed"
    assert done["usage"]["output_tokens"] > done["usage"]["reasoning_tokens"] > 0
    assert done["attempts"][0]["usage"] == done["usage"]
    assert [(line["role"], line["output_tokens"]) for line in done["bill"]] == [
        ("sample", done["usage"]["output_tokens"])
    ]
    assert done["output"][-1]["content"][0]["text"] == done["answer"]
    assert "content" not in done["output"][0], "reasoning is hidden"
    shown = jobs.get(f"/{job['id']}", include="reasoning.content")
    assert shown["output"][0]["content"][0]["text"] == "hm hm"
    (response,) = [each["response_id"] for each in done["attempts"]]
    for included in (False, True):
        query = {"include": "reasoning.content"} if included else {}
        alone = jobs.http.get(f"/v1/responses/{response}", params=query).json()
        assert ("content" in alone["output"][0]) == included
    (end,) = [each for each in jobs.get(f"/{job['id']}/trace")["data"] if each["type"] == "done"]
    assert end["usage"] == {**done["usage"], "refilled_tokens": 0}


def test_its_response_is_a_background_response(live: Live, jobs: Jobs) -> None:
    (job,) = jobs.hand_over("one")
    done = jobs.until(job["id"], "completed")
    with live.client("key-a") as client:
        response = client.responses.retrieve(done["response_id"])
        assert (response.output_text, response.background) == (done["answer"], True)
        assert [event.type for event in client.responses.retrieve(done["response_id"], stream=True)][-1] == (
            "response.completed"
        )


def test_pages_neither_repeat_nor_hide(jobs: Jobs) -> None:
    made = [job["id"] for job in jobs.hand_over(*(f"question {number}" for number in range(7)))]
    seen, after = [], None
    while True:
        page = jobs.get(limit=3, sort="created", **({} if after is None else {"after": after}))
        seen += [job["id"] for job in page["data"]]
        after = page["next"]
        assert page["has_more"] == (after is not None)
        if after is None:
            break
        if len(seen) == 3:  # jobs that come and go meanwhile
            jobs.http.delete(f"/v1/jobs/{made[0]}")
            (late,) = jobs.hand_over("late")
    assert seen == [*made, late["id"]]
    assert [job["id"] for job in jobs.get(sort="-created", limit=2)["data"]] == [late["id"], made[-1]]
    assert jobs.http.get("/v1/jobs", params={"after": "-changed:1", "sort": "created"}).status_code == 400


def test_filters_search_and_counts(jobs: Jobs) -> None:
    jobs.hand_over("Ärger über 41", batch="x", defaults={"labels": ["red", "round"]})
    jobs.hand_over("fish", "slow fish", batch="y", defaults={"labels": ["red"]})
    for job in jobs.get(q="fish")["data"]:
        jobs.until(job["id"], "completed", "in_progress")
    assert [job["title"] for job in jobs.get(q="ärger ÜBER")["data"]] == ["Ärger über 41"]
    assert len(jobs.get(q="answer to fish")["data"]) == 1, "answers are searched"
    assert len(jobs.get(label="red")["data"]) == 3
    assert len(jobs.get(label=["round", "none"])["data"]) == 1
    assert len(jobs.get(batch="y", state="completed")["data"]) == 1
    counts = jobs.get("/counts", batch="y")
    assert (counts["total"], counts["states"]["completed"], counts["states"]["in_progress"]) == (2, 1, 1)
    assert {each["batch"]: each["total"] for each in counts["batches"]} == {"x": 1, "y": 2}


def test_a_bad_job_refuses_all_or_is_left_out(jobs: Jobs) -> None:
    body = {"defaults": {"model": "said"}, "jobs": [{"input": "a"}, {"input": "b", "strategy": "nothing"}, {"in": "c"}]}
    refused = jobs.post(body=body, status=400)["error"]
    assert refused["param"] == "jobs[1].strategy"
    assert refused["message"].startswith("jobs[1]: ")
    assert jobs.get("/counts")["total"] == 0
    skipped = jobs.post(body={**body, "on_error": "skip"})
    assert [job["title"] for job in skipped["data"]] == ["a"]
    assert [(each["index"], each["param"]) for each in skipped["errors"]] == [
        (1, "jobs[1].strategy"),
        (2, "jobs[2].input"),
    ]
    none = jobs.post(body={"jobs": [{"input": "a"}, {"input": "b", "model": "nobody"}]}, status=400)["error"]
    assert none["param"] == "jobs[0].model"


def test_a_running_job_is_cancelled_and_billed(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("slow and slow and slow and slow")
    running = jobs.until(job["id"], "in_progress")
    assert running["progress"]["phase"] in ("prefill", "think", "answer")
    stale = jobs.post(f"/{job['id']}/cancel", {"revision": 1}, status=409)["error"]
    assert stale["code"] == "revision_conflict"
    ended = jobs.post(f"/{job['id']}/cancel", {"revision": running["revision"]})
    assert (ended["state"], ended["attempts"][0]["status"]) == ("cancelled", "cancelled")
    assert ended["usage"]["input_tokens"] > 0
    assert jobs.post(f"/{job['id']}/cancel", status=409)["error"]["code"] == "wrong_state"


def test_a_failed_job_says_why(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("fail")
    assert jobs.until(job["id"], "failed")["error"]["code"] == "server_error"


def test_a_response_that_is_cancelled_or_deleted_by_itself_ends_its_job(live: Live, jobs: Jobs) -> None:
    for job in jobs.hand_over("slow one", "slow two"):
        running = jobs.until(job["id"], "in_progress")
        with live.client("key-a") as client:
            if job["title"] == "slow one":
                client.responses.cancel(running["response_id"])
            else:
                client.responses.delete(running["response_id"])
        jobs.until(job["id"], "cancelled")


def test_the_feed_tells_each_change_and_resumes(jobs: Jobs) -> None:
    start = jobs.get("/counts")["last_event"]
    feed = jobs.events(after=start)
    assert next(feed)["data"] == {"last_event": start}
    (job,) = jobs.hand_over("one")
    states, last = [], start
    for event in feed:
        if event["event"] == "job":
            assert int(event["id"]) > last
            last = int(event["id"])
            states.append(event["data"]["state"])
            if states[-1] == "completed":
                break
    assert states[-1] == "completed"
    assert states == [state for state in ("queued", "in_progress", "completed") if state in states]
    feed.close()
    again = list(islice(jobs.events(after=start), 2))
    assert again[1]["data"] == jobs.get(q="one")["data"][0], "what was missed comes as one event, the latest"
    jobs.http.delete(f"/v1/jobs/{job['id']}")
    again = list(islice(jobs.events(after=last), 2))
    assert (again[1]["event"], again[1]["data"]) == ("deleted", {"id": job["id"]})
    beyond = list(islice(jobs.events(after=10**9), 2))
    assert beyond[1]["event"] == "reset"


def test_live_jobs_tell_their_figures(jobs: Jobs) -> None:
    feed = jobs.events()
    next(feed)
    jobs.hand_over("slow " * 100)
    figures = next(event["data"] for event in feed if event["event"] == "progress" and event["data"][0]["used"])
    feed.close()
    assert figures[0]["samples"] == {"begun": 1, "done": 0, "planned": 1}
    assert figures[0]["phase"] in ("think", "answer")


def test_owners_know_nothing_of_each_other(live: Live, jobs: Jobs) -> None:
    (job,) = jobs.hand_over("a secret", batch="secret")
    jobs.until(job["id"], "completed")
    other = Jobs(live.root, "b")
    with other.http:
        assert other.get()["data"] == []
        assert other.get("/counts") | {"states": None} == {
            "object": "job.counts",
            "total": 0,
            "states": None,
            "unseen_incomplete": 0,
            "batches": [],
            "last_event": 0,
        }
        for method, path, body in (
            ("GET", "", None),
            ("DELETE", "", None),
            ("POST", "/cancel", {}),
            ("POST", "/seen", {}),
        ):
            answer = other.http.request(method, f"/v1/jobs/{job['id']}{path}", json=body)
            assert answer.status_code == 404, path
        heard = []
        feed = other.events(after=0)
        thread = threading.Thread(target=lambda: heard.extend(next(feed) for _ in range(2)), daemon=True)
        thread.start()
        jobs.hand_over("another secret")
        other.hand_over("mine")
        thread.join(10)
        assert [event["event"] for event in heard] == ["open", "job"]
        assert heard[1]["data"]["title"] == "mine"
        feed.close()
    assert jobs.get(f"/{job['id']}")["answer"] == "answer to a secret"


def test_many_jobs_run_a_few_at_a_time_and_none_is_lost(jobs: Jobs) -> None:
    made = jobs.hand_over(*(f"question {number}" for number in range(60)))
    for _ in range(3000):
        if jobs.get("/counts")["states"]["completed"] == 60:
            break
        time.sleep(0.02)
    answers = {job["id"]: job["answer"] for job in jobs.get(limit=200)["data"]}
    assert all(answers[job["id"]] == f"answer to {job['title']}" for job in made if job["id"] in answers)


def test_the_same_request_again_gives_the_same_jobs(jobs: Jobs) -> None:
    body = {"defaults": {"model": "said"}, "jobs": [{"input": "a"}, {"in": "b"}, {"input": "c"}], "on_error": "skip"}
    first, again = (jobs.http.post("/v1/jobs", json=body, headers={"idempotency-key": "k"}).json() for _ in range(2))
    assert [job["id"] for job in again["data"]] == [job["id"] for job in first["data"]]
    assert again["errors"] == first["errors"]
    assert jobs.get("/counts")["total"] == 2
    other = jobs.http.post("/v1/jobs", json={**body, "batch": "x"}, headers={"idempotency-key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
