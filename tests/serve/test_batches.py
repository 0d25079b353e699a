"""Files and batches through the official client, over the rows of `/v1/jobs`."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx2 as httpx
import openai
import pytest
from job_client import KEYS, Jobs, cleared
from live import Live, serving

from ponder.serve import Served, Settings
from ponder.serve.batches.service import BatchService
from ponder.testing.scripted import Say, ScriptedSampler

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def script(conversation, index):
    asked = conversation[-1].text
    return Say(f"answer to {asked}", reasoning="hm", seconds=30 if "slow" in asked else 0)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving([Served(name="said", sampler=ScriptedSampler(script))], Settings(), KEYS) as running:
        yield running


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    with cleared(live.root), live.client("key-a") as client:
        yield client


def line(custom_id: str, text: str, url: str = CHAT, **more: object) -> dict:
    asked = {"messages": [{"role": "user", "content": text}]} if url == CHAT else {"input": text}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "said", **asked, **more}}


def upload(client: openai.OpenAI, *lines: dict) -> str:
    content = "\n".join(map(json.dumps, lines)).encode()
    return client.files.create(file=("lines.jsonl", content), purpose="batch").id


def run(client: openai.OpenAI, url: str, *lines: dict) -> openai.types.Batch:
    batch = client.batches.create(
        input_file_id=upload(client, *lines), endpoint=url, completion_window="24h", metadata={"a": "b"}
    )
    for _ in range(600):
        if batch.status not in ("in_progress", "cancelling"):
            return batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    raise AssertionError(batch)


def lines_of(client: openai.OpenAI, id: str) -> list[dict]:
    return [json.loads(text) for text in client.files.content(id).text.splitlines()]


@pytest.mark.parametrize("url", [CHAT, RESPONSES])
def test_the_official_calls_work(live: Live, client: openai.OpenAI, url: str) -> None:
    batch = run(client, url, line("a", "one", url), line("b", "two", url, nothing=1), line("c", "three", url, seed=3))
    assert (batch.status, batch.metadata, batch.completion_window) == ("completed", {"a": "b"}, "24h")
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    output = {each["custom_id"]: each for each in lines_of(client, batch.output_file_id)}
    assert output.keys() == {"a", "c"}
    body = output["a"]["response"]["body"]
    if url == CHAT:
        said = openai.types.chat.ChatCompletion.model_validate(body)
        assert said.choices[0].message.content == "answer to one"
        assert said.usage.completion_tokens_details.reasoning_tokens > 0
    else:
        assert openai.types.responses.Response.model_validate(body).output_text == "answer to one"
    (error,) = lines_of(client, batch.error_file_id)
    assert (error["custom_id"], error["error"]["code"]) == ("b", "unsupported_parameter")
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"
    jobs = Jobs(live.root, "a")
    with jobs.http:
        states = {job["custom_id"]: job["state"] for job in jobs.get(batch=batch.id)["data"]}
    assert states == {"a": "completed", "b": "failed", "c": "completed"}


def test_a_file_with_a_line_that_is_no_request_fails_whole(client: openai.OpenAI) -> None:
    batch = run(client, CHAT, line("a", "one"), line("a", "two"), line("c", "x", RESPONSES), {"custom_id": "d"})
    assert batch.status == "failed"
    assert [(each.line, each.param) for each in batch.errors.data] == [(2, "custom_id"), (3, "url"), (4, "method")]
    assert batch.request_counts.total == 0


def test_a_batch_is_cancelled(client: openai.OpenAI) -> None:
    made = client.batches.create(
        input_file_id=upload(client, line("a", "slow"), line("b", "slow")), endpoint=CHAT, completion_window="24h"
    )
    batch = client.batches.cancel(made.id)
    assert (batch.status, batch.request_counts.failed) == ("cancelled", 2)
    assert [each["error"]["code"] for each in lines_of(client, batch.error_file_id)] == ["batch_cancelled"] * 2
    assert client.batches.list(limit=1).data[0].id == made.id


def test_a_job_that_begins_while_its_batch_is_cancelled_is_cancelled_too(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.batches.create(
        input_file_id=upload(client, line("a", "slow"), line("b", "slow")), endpoint=CHAT, completion_window="24h"
    )
    look, looks = BatchService.batch, []

    async def before_they_began(service: BatchService, owner: str, id: str):
        batch, tally = await look(service, owner, id)
        if looks:
            return batch, tally
        while "in_progress" not in tally.states:
            await asyncio.sleep(0.01)
            batch, tally = await look(service, owner, id)
        looks.append(tally)
        return batch, replace(tally, states={"queued": 2})

    monkeypatch.setattr(BatchService, "batch", before_they_began)
    batch = client.batches.cancel(made.id)
    assert (batch.status, batch.request_counts.failed) == ("cancelled", 2)


def test_files_are_listed_read_and_deleted_by_their_owner(live: Live, client: openai.OpenAI) -> None:
    first, second = upload(client, line("a", "one")), upload(client, line("b", "two"))
    assert [each.id for each in client.files.list(limit=1)][:2] == [second, first], "in pages"
    assert json.loads(client.files.content(first).text) == line("a", "one")
    with live.client("key-b") as other:
        assert other.files.list().data == []
        for ask in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(first)
        with pytest.raises(openai.BadRequestError):
            other.batches.create(input_file_id=first, endpoint=CHAT, completion_window="24h")
    assert client.files.delete(first).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(first)


def test_other_forms_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose must be 'batch'"):
        client.files.create(file=io.BytesIO(b"x"), purpose="assistants")
    with httpx.Client(base_url=str(client.base_url), headers={"authorization": "Bearer key-a"}) as http:
        for body, kind in ((b"{}", "application/json"), (b"--x\r\n", "multipart/form-data; boundary=x"), (b"", "")):
            assert http.post("/files", content=body, headers={"content-type": kind}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_a_page_of_another_site_changes_nothing(live: Live, client: openai.OpenAI, headers: dict) -> None:
    with httpx.Client(base_url=live.root, headers={"authorization": "Bearer key-a", **headers}) as http:
        for method, path in (("POST", "/v1/files"), ("POST", "/v1/jobs/actions"), ("DELETE", "/v1/jobs/x")):
            answer = http.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")
        assert http.get("/v1/jobs").status_code == 200, "a page cannot read the answer"
        own = {"origin": live.root, "sec-fetch-site": "same-origin"}
        assert http.delete("/v1/jobs/x", headers=own).status_code == 404
