"""What `/metrics` and the log say of requests: everything that was spent, and nothing that was said."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import pytest
from live import Live, serving
from prometheus_client.parser import text_string_to_metric_families
from talk import CHAT, ask, request

from ponder.serve import Served, Settings
from ponder.testing.tiny import ByteTokenizer, tiny_sampler

SECRET = "canary"


def body(**more: object) -> dict:
    limits = {"max_completion_tokens": 20, "thinking_token_budget": 5, "temperature": 1.0, "seed": 1}
    return {"model": "tiny", "messages": [{"role": "user", "content": SECRET * 8}], **limits, **more}


async def metrics(live: Live) -> dict[str, float]:
    """Values by name, summed over buckets' and reasons' labels; no label holds anything else than names of ours."""
    page = (await ask(live.port, "/metrics")).body.decode()
    assert SECRET not in page
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            assert set(sample.labels) <= {"model_name", "finished_reason", "reason", "le"}
            assert sample.labels.get("model_name", "tiny") == "tiny"
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values


@pytest.fixture
def live() -> object:
    with serving(
        [Served(name="tiny", sampler=tiny_sampler(max_batch=1, max_positions=512))], Settings(queued_requests=1)
    ) as running:
        yield running


def test_everything_that_was_spent_is_counted_under_vllms_names(live: Live) -> None:
    async def run() -> tuple[list[dict], dict[str, float]]:
        whole = (await ask(live.port, CHAT, body())).json["usage"]
        stream = await ask(live.port, CHAT, body(stream=True, stream_options={"include_usage": True}))
        answer = await ask(live.port, "/v1/responses", {"model": "tiny", "input": "why?", "background": True})
        id = answer.json["id"]
        while (told := (await ask(live.port, f"/v1/responses/{id}")).json)["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
        background = told["usage"]
        renamed = {
            "prompt_tokens": background["input_tokens"],
            "completion_tokens": background["output_tokens"],
            "prompt_tokens_details": background["input_tokens_details"],
            "completion_tokens_details": background["output_tokens_details"],
        }
        return [whole, stream.events[-1]["usage"], renamed], await metrics(live)

    bills, counted = asyncio.run(run())
    assert counted["ponder:prompt_tokens_total"] == sum(bill["prompt_tokens"] for bill in bills)
    assert counted["ponder:prefix_cache_queries_total"] == counted["ponder:prompt_tokens_total"]
    cached = sum(bill["prompt_tokens_details"]["cached_tokens"] for bill in bills)
    assert counted["ponder:prefix_cache_hits_total"] == cached > 0
    assert counted["ponder:generation_tokens_total"] == sum(bill["completion_tokens"] for bill in bills)
    thought = sum(bill["completion_tokens_details"]["reasoning_tokens"] for bill in bills)
    assert counted["ponder:reasoning_tokens_total"] == thought > 0
    for histogram, count in (
        ("e2e_request_latency_seconds", 3),
        ("request_queue_time_seconds", 3),
        ("time_to_first_token_seconds", 2),  # those that come piece by piece
        ("request_time_per_output_token_seconds", 2),
    ):
        assert counted[f"ponder:{histogram}_count"] == count, histogram
    assert counted["ponder:request_success_total"] == 3
    assert counted["ponder:num_requests_running"] == counted["ponder:num_requests_waiting"] == 0


def test_a_client_that_leaves_is_counted_and_its_line_says_so(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> dict[str, float]:
        away = {str(id): -100 for id in ByteTokenizer().control.values()}
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(request(CHAT, body(stream=True, max_completion_tokens=200, logit_bias=away)))
        await reader.readexactly(1)
        writer.transport.abort()
        began = time.monotonic()
        while not (counted := await metrics(live)).get("ponder:client_disconnects_total"):
            assert time.monotonic() - began < 60
        return counted

    with caplog.at_level(logging.INFO, logger="ponder.serve.access"):
        assert asyncio.run(run())["ponder:client_disconnects_total"] == 1
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "ponder.serve.access"]
    assert [line["ended"] for line in lines if line["route"] == CHAT] == [["disconnect"]]
