"""What a prompt comes to in tokens, asked over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.dialogue import Message, Start
from ponder.serve import Served
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import tiny_sampler

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße <|end|>"}]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    models = [Served(name="tiny", sampler=tiny_sampler()), Served(name="said", sampler=ScriptedSampler(["x"]))]
    with serving(models) as running:
        yield running


def post(live: Live, path: str, **body: Any) -> httpx.Response:
    return httpx.post(live.root + path, json={"model": "tiny", **body}, timeout=60)


@pytest.mark.parametrize("base", ["/v1", ""])
def test_text_and_back(live: Live, base: str) -> None:
    text = "Grüße \N{GRINNING FACE} <|think|><|end|>"
    told = post(live, f"{base}/tokenize", prompt=text, return_token_strs=True).json()
    tokenizer, window = (
        live.state.models.get("tiny").tokenizer,
        live.state.models.get("tiny").sampler.capabilities.window,
    )
    assert told["tokens"] == tokenizer.encode(text)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == window
    assert not any(map(tokenizer.is_control, told["tokens"]))
    assert post(live, f"{base}/detokenize", tokens=told["tokens"]).json() == {"prompt": text}


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, Start.THINK),
        ({"reasoning_effort": "none"}, Start.DIRECT),
        ({"add_generation_prompt": False}, Start.NONE),
    ],
)
def test_messages_come_to_what_a_chat_completion_is_billed_for(live: Live, options: dict, start: Start) -> None:
    told = post(live, "/v1/tokenize", messages=MESSAGES, **options).json()
    messages = (Message.system("Be brief."), Message.user("Grüße <|end|>"))
    assert told["tokens"] == list(live.state.models.get("tiny").sampler.format.render(messages, start=start).ids)
    if start is not Start.NONE:
        effort = {"reasoning_effort": "none"} if start is Start.DIRECT else {}
        with live.client() as client:
            answer = client.chat.completions.create(
                model="tiny", messages=MESSAGES, max_completion_tokens=2, extra_body=effort
            )
        assert answer.usage.prompt_tokens == told["count"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("tokenize", {}, "prompt"),
        ("tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt"),
        ("tokenize", {"prompt": "a", "add_special_tokens": True}, "add_special_tokens"),
        ("tokenize", {"prompt": "a", "chat_template": "x"}, "chat_template"),
        ("tokenize", {"prompt": "a", "model": "said"}, "model"),
        ("tokenize", {"prompt": "a", "model": None}, "model"),
        ("detokenize", {"tokens": [-1]}, "tokens[0]"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(live: Live, path: str, body: dict, param: str) -> None:
    refused = post(live, f"/v1/{path}", **body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


def test_an_id_that_there_is_not_is_refused(live: Live) -> None:
    assert post(live, "/v1/detokenize", tokens=[1, 999]).status_code == 400


def test_the_only_model_needs_no_name() -> None:
    with serving([Served(name="tiny", sampler=tiny_sampler())]) as live:
        told = httpx.post(f"{live.root}/tokenize", json={"prompt": "test", "add_special_tokens": False}, timeout=60)
    assert told.json()["count"] == 4
