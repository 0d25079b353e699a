"""What a person does to jobs, and what jobs wait for."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator

import pytest
from job_client import KEYS, Jobs, cleared
from live import Live, serving

from ponder.dialogue.messages import ToolCall
from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler

ADD = {"type": "function", "name": "add", "parameters": {"type": "object"}}


def script(conversation, index):
    """The last words say how they are answered."""
    asked, before = conversation[-1].text, [message.text for message in conversation[:-1]]
    if conversation[-1].role == "tool":
        return Say(f"it gave {conversation[-1].parts[0].content}")
    if asked == "add":
        return Say("", calls=(ToolCall("add", "{}"), ToolCall("add", '{"b": 1}')))
    if asked == "ask me":
        return Say("", calls=(ToolCall("ask_person", '{"question": "Which one?"}'),))
    if asked == "contradict":
        return Say("42", reasoning="6 * 7\nso 41\n")
    if asked == "fitting":
        return Say("The answer is 42.", reasoning="6 * 7\nThe answer is 4 2.\n")
    if asked.startswith("vote"):
        return Say(str(41 + index % 2), reasoning=f"hm {index}", seconds=30 if index > 5 else 0)
    if asked.startswith("tie"):
        return Say(str(41 + index % 2))
    return Say(f"{asked} after {len(before)}", reasoning="hm hm hm hm", seconds=20 if asked.startswith("slow") else 0)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    models = [
        Served(name="said", sampler=ScriptedSampler(script)),
        Served(name="tiny", sampler=tiny_sampler(max_positions=4096)),
    ]
    with serving(models, Settings(samples=8), KEYS) as running:
        yield running


@pytest.fixture
def jobs(live: Live) -> Iterator[Jobs]:
    with cleared(live.root) as client:
        yield client


def waiting(jobs: Jobs, text: str, **defaults: object) -> tuple[str, dict]:
    """A job that waits for a person: its id and its need."""
    (job,) = jobs.hand_over(text, defaults=defaults)
    return job["id"], jobs.until(job["id"], "needs_input")["need"]


def thinking(jobs: Jobs, id: str) -> None:
    """Waits until something is thought: a note that comes before that goes into the question."""
    while not (jobs.until(id, "in_progress")["progress"] or {"used": 0})["used"]:
        time.sleep(0.02)


def test_a_spent_budget_asks_and_more_is_given(jobs: Jobs) -> None:
    id, need = waiting(jobs, "one two three four five", budget=8)
    assert (need["reason"], need["default"]) == ("budget", "accept")
    assert [each["id"] for each in need["choices"]] == ["accept", "extend"]
    spent = jobs.get(f"/{id}")["usage"]["output_tokens"]
    assert spent == 8
    extended = jobs.post(f"/{id}/answer", {"need": need["id"], "choice": "extend"})
    assert (extended["budget"], extended["attempt"]) == (16, 2)
    done = jobs.until(id, "completed")
    assert [each["kind"] for each in done["attempts"]] == ["first", "extend"]
    assert done["usage"]["output_tokens"] == spent + done["attempts"][1]["usage"]["output_tokens"]


def test_what_there_is_is_taken_or_a_person_answers(jobs: Jobs) -> None:
    id, need = waiting(jobs, "one two three four five", budget=8)
    stale = jobs.post(f"/{id}/answer", {"need": "need_1"}, status=409)
    assert stale["error"]["code"] == "revision_conflict"
    assert jobs.post(f"/{id}/answer", {"need": need["id"], "choice": "what"}, status=400)["error"]["param"] == "choice"
    assert jobs.post(f"/{id}/answer", {"need": need["id"]})["state"] == "incomplete"
    id, need = waiting(jobs, "one two three four five", budget=8)
    done = jobs.post(f"/{id}/answer", {"need": need["id"], "text": "five"})
    assert (done["state"], done["answer"], done["need"]) == ("completed", "five", None)
    id = jobs.hand_over("one two three four five", defaults={"budget": 8, "needs": []})[0]["id"]
    assert jobs.until(id, "incomplete")["seen"] is False
    assert jobs.post(f"/{id}/seen")["seen"] is True
    assert jobs.post(f"/{id}/extend", {"tokens": 8})["budget"] == 16
    jobs.until(id, "completed")


def test_a_tie_asks(jobs: Jobs) -> None:
    id, need = waiting(jobs, "tie", strategy="consensus(samples=4)")
    assert (need["reason"], [each["id"] for each in need["choices"]]) == ("tie", ["41", "42"])
    done = jobs.post(f"/{id}/answer", {"need": need["id"], "choice": "42"})
    assert (done["state"], done["answer"], done["votes"]) == ("completed", "42", {"agree": 2, "of": 4, "margin": 0.0})


def test_each_call_of_a_tool_is_answered(jobs: Jobs) -> None:
    id, need = waiting(jobs, "add", tools=[ADD])
    assert (need["reason"], need["call"]["name"], need["call"]["arguments"]) == ("tool", "add", "{}")
    second = jobs.post(f"/{id}/answer", {"need": need["id"], "text": "5"})
    assert (second["state"], second["need"]["call"]["arguments"]) == ("needs_input", '{"b": 1}')
    assert "_left" not in second["need"]
    jobs.post(f"/{id}/answer", {"need": second["need"]["id"], "choice": "decline"})
    assert jobs.until(id, "completed")["answer"] == "it gave 5"


def test_the_model_asks_a_question(jobs: Jobs) -> None:
    id, need = waiting(jobs, "ask me", needs=["question"])
    assert (need["reason"], need["text"], need["default"]) == ("question", "Which one?", "decide")
    jobs.post(f"/{id}/answer", {"need": need["id"], "text": "the red one"})
    assert jobs.until(id, "completed")["answer"] == "it gave the red one"
    id, need = waiting(jobs, "ask me", needs=["question"])
    jobs.post(f"/{id}/answer", {"need": need["id"]})
    assert "decide it yourself" in jobs.until(id, "completed")["answer"]
    body = {"jobs": [{"input": "a", "model": "said", "needs": ["question"], "strategy": "consensus(samples=2)"}]}
    refused = jobs.post(body=body, status=400)["error"]
    assert refused["param"] == "jobs[0].needs"
    assert refused["message"].startswith("jobs[0]: needs: question is asked by a call of a tool.")


def test_an_answer_that_contradicts_its_thought_is_shown(jobs: Jobs) -> None:
    id, need = waiting(jobs, "contradict", needs=["contradiction"])
    assert need["reason"] == "contradiction"
    assert need["text"] == "the thought ends with “so 41”, the answer is “42”"
    done = jobs.post(f"/{id}/answer", {"need": need["id"], "choice": "accept"})
    assert (done["state"], done["answer"]) == ("completed", "42")
    id, need = waiting(jobs, "contradict", needs=["contradiction"])
    jobs.post(f"/{id}/answer", {"need": need["id"], "choice": "again"})
    assert "do not say the same" in jobs.until(id, "needs_input", "completed")["attempts"][1]["text"]
    (fitting,) = jobs.hand_over("fitting", defaults={"needs": ["contradiction"]})
    assert jobs.until(fitting["id"], "needs_input", "completed")["state"] == "completed"


def test_an_answer_is_reviewed(jobs: Jobs) -> None:
    id, need = waiting(jobs, "one", needs=["review"])
    jobs.post(f"/{id}/answer", {"need": need["id"], "text": "again"})
    again = jobs.until(id, "needs_input")
    assert again["answer"] == "again after 2"
    assert jobs.post(f"/{id}/answer", {"need": again["need"]["id"]})["state"] == "completed"


def test_a_thought_is_steered(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("slow one")
    thinking(jobs, job["id"])
    steered = jobs.post(f"/{job['id']}/steer", {"text": "the other way"})
    assert steered["attempt"] == 2
    done = jobs.until(job["id"], "completed")
    assert done["answer"] == "the other way after 2", "question, thought, note"
    assert [each["kind"] for each in done["attempts"]] == ["first", "steer"]
    trace = jobs.get(f"/{job['id']}/trace")["data"]
    (note,) = [each for each in trace if each["type"] == "steered"]
    assert (note["text"], note["used"] > 0) == ("the other way", True)


def test_a_steered_thought_of_a_model_stands_in_the_next_prompt(jobs: Jobs) -> None:
    for seed in range(20):  # some have ended before the note comes
        (job,) = jobs.hand_over("count", defaults={"model": "tiny", "budget": 2000, "needs": [], "seed": seed})
        while (jobs.get(f"/{job['id']}")["progress"] or {"used": 0})["used"] < 20:
            if jobs.get(f"/{job['id']}")["ended_at"]:
                break
        if jobs.http.post(f"/v1/jobs/{job['id']}/steer", json={"text": "stop"}).status_code == 200:
            break
    done = jobs.until(job["id"], "incomplete", "completed")
    first, second = done["attempts"]
    assert second["kind"] == "steer"
    assert second["usage"]["input_tokens"] > first["usage"]["output_tokens"] + first["usage"]["input_tokens"]


def test_follow_ups_are_answered_in_turn(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("slow one two")
    thinking(jobs, job["id"])
    jobs.post(f"/{job['id']}/steer", {"text": "second", "when": "after"})
    waits = jobs.post(f"/{job['id']}/steer", {"text": "third", "when": "after"})
    assert waits["follow_ups"] == ["second", "third"]
    jobs.post(f"/{job['id']}/steer", {"text": "never mind"})
    third = jobs.until(job["id"], "completed")
    assert third["answer"].startswith("third after")
    assert [each["kind"] for each in third["attempts"]] == ["first", "steer", "follow_up", "follow_up"]
    jobs.post(f"/{job['id']}/steer", {"text": "fourth", "when": "after"})
    assert jobs.until(job["id"], "completed")["answer"].startswith("fourth after")


def test_a_vote_is_ended_with_the_best_so_far(jobs: Jobs) -> None:
    settings = {"strategy": "consensus(samples=8, until='all')"}
    (job,) = jobs.hand_over("vote", defaults=settings)
    while (jobs.until(job["id"], "in_progress")["progress"] or {"samples": {"done": 0}})["samples"]["done"] < 5:
        time.sleep(0.02)
    done = jobs.post(f"/{job['id']}/finish")
    assert (done["state"], done["votes"]["of"]) == ("needs_input", 6), "three say 41, three say 42"
    assert jobs.post(f"/{job['id']}/answer", {"need": done["need"]["id"]})["answer"] == "41"


def test_a_thought_is_ended_with_an_answer(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("slow one", defaults={"strategy": "direct", "effort": "high"})
    while (jobs.until(job["id"], "in_progress")["progress"] or {"phase": "prefill"})["phase"] != "think":
        time.sleep(0.02)
    jobs.post(f"/{job['id']}/finish")
    done = jobs.until(job["id"], "completed")
    assert [each["kind"] for each in done["attempts"]] == ["first", "finish"]
    assert done["answer"] == "Answer now. after 2", "question, thought"
    assert done["attempts"][1]["usage"]["reasoning_tokens"] == 0


def test_a_retry_changes_what_it_names(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("one")
    jobs.until(job["id"], "completed")
    assert jobs.post(f"/{job['id']}/retry", {"strategy": "nothing"}, status=400)["error"]["param"] == "strategy"
    jobs.post(f"/{job['id']}/retry", {"strategy": "consensus(samples=2)", "effort": "high"})
    done = jobs.until(job["id"], "completed")
    assert (done["attempt"], done["effort"], done["votes"]["agree"]) == (2, "high", 2)
    assert {line["strategy"] for line in done["bill"]} == {"direct", "consensus@2"}


def test_many_at_once_by_the_number_that_was_seen(jobs: Jobs) -> None:
    made = jobs.hand_over(*(f"slow {number}" for number in range(4)), batch="x")
    body = {"action": "cancel", "filter": {"batch": "x"}, "expected_count": 3}
    assert jobs.post("/actions", body, status=409)["error"]["code"] == "count_conflict"
    jobs.post(f"/{made[0]['id']}/cancel")
    done = jobs.post("/actions", {**body, "expected_count": 4})
    assert (done["changed"], [each["code"] for each in done["failed"]]) == (3, ["wrong_state"])
    assert jobs.get("/counts", batch="x")["states"]["cancelled"] == 4
    assert jobs.post("/actions", {**body, "tokens": 5}, status=400)["error"]["param"] == "tokens"
    ids = [job["id"] for job in made]
    assert jobs.post("/actions", {"action": "delete", "ids": ids, "expected_count": 4})["changed"] == 4
    assert jobs.get("/counts")["total"] == 0


def test_a_trace_tells_the_strategy(jobs: Jobs) -> None:
    (job,) = jobs.hand_over("one", defaults={"strategy": "consensus(samples=2, until='all')"})
    jobs.until(job["id"], "completed")
    page = jobs.get(f"/{job['id']}/trace", limit=3)
    assert ([each["type"] for each in page["data"]], page["has_more"]) == (["asked", "started", "started"], True)
    rest = jobs.get(f"/{job['id']}/trace", after=page["next"])
    assert [each["type"] for each in rest["data"]] == ["done", "done", "voted", "answered"]
    assert [each["n"] for each in (*page["data"], *rest["data"])] == [*range(1, 8)]
    assert rest["data"][2]["votes"] == [{"answer": "one after 0", "samples": [0, 1], "weight": None}]
    assert "hm" not in json.dumps(rest)
    assert "hm" in json.dumps(jobs.get(f"/{job['id']}/trace", include="reasoning.content"))


def test_an_export_runs_in_no_spreadsheet(jobs: Jobs) -> None:
    texts = ["=1+1", "@x", "plain", 'a "quoted", text\nof two lines']
    for job in jobs.hand_over(*texts, batch="+b"):
        jobs.until(job["id"], "completed")
    lines = [json.loads(line) for line in jobs.http.get("/v1/jobs/export").text.splitlines()]
    assert [line["input"] for line in lines] == texts
    rows = list(
        csv.DictReader(io.StringIO(jobs.http.get("/v1/jobs/export", params={"format": "csv"}).text, newline=""))
    )
    assert [row["input"] for row in rows] == ["'=1+1", "'@x", *texts[2:]]
    assert {row["batch"] for row in rows} == {"'+b"}
    assert rows[2]["answer"] == "plain after 0"
