"""Hidden thinking leaves the server in no byte: bodies, events, log-probabilities, metrics, log, stored columns.

The thinking of these models is of characters that are nowhere else in what a server sends: one of them is a leak.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any, TypeVar

import httpx2 as httpx
import pytest
import torch
from live import Live, serving

from ponder.model.transformer import Transformer
from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.protocol import AT_ONCE
from ponder.serve import Served, Settings
from ponder.testing.endpoint import Fault, StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, tiny_config, tiny_sampler
from ponder.types import SamplerError

T = TypeVar("T")
CANARY = "~^`@$%&"
TOKENS = ByteTokenizer()
ANSWER = "Four."
ASKED = [{"role": "user", "content": "q"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


class Chain(Transformer):
    """Every token calls for the next one in a chain; where that is not allowed, the turn ends."""

    def __init__(self, *chains: list[str]) -> None:
        super().__init__(tiny_config(vocab_size=TOKENS.vocab_size, max_positions=512))
        self._next = {}
        for chain in chains:
            ids = [id for each in chain for id in ([TOKENS.control[each]] if len(each) > 1 else TOKENS.encode(each))]
            self._next |= dict(pairwise(ids))

    def hidden(self, ids_BT: torch.Tensor, **options: Any) -> torch.Tensor:
        h_BTD = super().hidden(ids_BT, **options)
        return torch.cat((ids_BT[..., None].to(h_BTD.dtype), torch.zeros_like(h_BTD[..., 1:])), -1)

    def unembed(self, h_D: torch.Tensor) -> torch.Tensor:
        logits_V = torch.zeros(*h_D.shape[:-1], self.config.vocab_size)
        flat = logits_V.view(-1, self.config.vocab_size)
        flat[:, TOKENS.control[END]] = 25.0
        for row, id in enumerate(h_D[..., 0].flatten().tolist()):
            if round(id) in self._next:
                flat[row, self._next[round(id)]] = 50.0
        return logits_V


THINK, CLOSE, STATE, FOLD, CALL, END = "<|think|>", "<|/think|>", "<|state|>", "<|fold|>", "<|call|>", "<|end|>"
SAID = [CLOSE, *ANSWER, END]
MODELS = {
    "closes by itself": ([THINK, *CANARY, CLOSE], SAID),
    "never closes": ([THINK, *CANARY, "~"], SAID),
    "folds its thoughts": ([THINK, *"~^`@", STATE, *"$%&", FOLD, "~"], SAID),
    "opens a state and never folds": ([THINK, *"~^", STATE, *"`@$%&", CLOSE], SAID),
    "folds without a state": ([THINK, *"~^", FOLD, *"`@$%&", CLOSE], SAID),
    "opens a call while it thinks": ([THINK, *"~^", CALL, *"`@$%&", CLOSE], SAID),
    "closes a call while it thinks": ([THINK, *"~^", "<|/call|>", *"`@$%&", CLOSE], SAID),
    "takes another's turn while it thinks": ([THINK, *"~^", "<|user|>", *"`@$%&", CLOSE], SAID),
    "ends while it thinks": ([THINK, *CANARY, END], SAID),
    "thinks again behind its answer": ([CLOSE, *ANSWER, THINK, *CANARY, END],),
    "thinks with white space around": ([THINK, " ", *CANARY, "\n", CLOSE], SAID),
}


@contextmanager
def _watched(live: Live, caplog: pytest.LogCaptureFixture) -> Iterator[httpx.Client]:
    """A client; in the end metrics and log are looked at, too."""
    with (
        caplog.at_level(logging.DEBUG, "ponder"),
        caplog.at_level(logging.DEBUG, "uvicorn"),
        httpx.Client(base_url=live.root, timeout=60) as http,
    ):
        yield http
        _assert_clean(http.get("/metrics").content, "metrics")
    _assert_clean(caplog.text.encode(), "log")
    assert "/v1/" in caplog.text  # the log was there


def _assert_clean(data: bytes, what: object) -> None:
    found = sorted(set(data.decode()) & set(CANARY))
    assert not found, (what, found, data[:2000])
    for number in (ord(each) for each in CANARY):
        assert f"\\u{number:04x}".encode() not in data, what


def _post(http: httpx.Client, path: str, body: Mapping[str, Any]) -> bytes:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    _assert_clean(answer.content, body)
    _assert_clean(str(answer.headers).encode(), "headers")
    return answer.content


def _at_once(holds: Callable[[T], None], cases: Iterable[T]) -> None:
    """Every case, eight at a time, so that the engine computes them together."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(holds, cases))


def _ways() -> Iterator[dict[str, Any]]:
    """What may cut thinking off, or show it by accident."""
    for room in (1, 2, 5, 9, 10, 14, 16, 40):
        yield {"max_completion_tokens": room}
    for cap in (1, 3, 8, 9, 30):
        yield {"max_completion_tokens": 60, "thinking_token_budget": cap}
    yield {"max_completion_tokens": 20, "answer_room": 8, "thinking_token_budget": 400}
    yield {"max_completion_tokens": 60, "thinking_token_budget": 20, "n": 3}
    for stop in ("~", "`", "o", "Fo", [".", "@"]):
        yield {"max_completion_tokens": 60, "thinking_token_budget": 20, "stop": stop}
    yield {"max_completion_tokens": 60, "thinking_token_budget": 20, "stop_token_ids": TOKENS.encode("$o")}
    yield {"max_completion_tokens": 60, "thinking_token_budget": 20, "tools": [TOOL]}
    yield {"max_completion_tokens": 60, "thinking_token_budget": 20, "response_format": {"type": "json_object"}}
    for strategy in ("direct", "consensus(samples=3)"):
        for cap in (8, 20):
            yield {"max_completion_tokens": 40, "thinking_token_budget": cap, "strategy": strategy}


@pytest.mark.parametrize("model", MODELS)
def test_thinking_is_in_no_byte_of_a_chat_completion(model: str, caplog: pytest.LogCaptureFixture) -> None:
    sampler = tiny_sampler(model=Chain(*MODELS[model]), max_positions=512)
    with serving([Served(name="m", sampler=sampler)]) as live, _watched(live, caplog) as http:

        def holds(more: dict[str, Any]) -> None:
            body = {"model": "m", "messages": ASKED, "temperature": 0, **more}
            whole = json.loads(_post(http, "/v1/chat/completions", body))
            events = _post(http, "/v1/chat/completions", {**body, "stream": True})
            told = [json.loads(line[6:]) for line in events.decode().splitlines() if line.startswith("data: {")]
            pieces = [(each["index"], each["delta"].get("content")) for chunk in told for each in chunk["choices"]]
            for choice in whole["choices"] if "deadline" not in more else ():
                streamed = "".join(text or "" for index, text in pieces if index == choice["index"])
                assert streamed == (choice["message"]["content"] or "")

        _at_once(holds, _ways())
        holds(
            {"max_completion_tokens": 400, "deadline": 0.02, "thinking_token_budget": 390}
        )  # alone: it must not queue


def test_the_canary_would_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    """Where thinking is asked for, it comes: these tests can fail."""
    sampler = tiny_sampler(model=Chain(*MODELS["closes by itself"]), max_positions=512)
    with serving([Served(name="m", sampler=sampler)]) as live, httpx.Client(base_url=live.root) as http:
        body = {"model": "m", "messages": ASKED, "temperature": 0, "reasoning_format": "reasoning"}
        assert http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["reasoning"] == CANARY


@pytest.mark.parametrize("model", MODELS)
def test_thinking_is_in_no_log_probability(model: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor among the likeliest tokens of a place where the answer stands, unless they are so there."""
    sampler = tiny_sampler(model=Chain(*MODELS[model]), max_positions=512)
    with serving([Served(name="m", sampler=sampler)]) as live, httpx.Client(base_url=live.root) as http:

        def holds(case: tuple[int, int, bool]) -> None:
            room, cap, stream = case
            body = {"model": "m", "messages": ASKED, "temperature": 0, "logprobs": True, "top_logprobs": 1}
            body |= {"max_completion_tokens": room, "thinking_token_budget": cap, "stream": stream}
            told = http.post("/v1/chat/completions", json=body).text
            lines = [line[6:] for line in told.splitlines() if line.startswith("data: {")] if stream else [told]
            for choice in (each for line in lines for each in json.loads(line)["choices"]):
                tokens = (choice["logprobs"] or {"content": []})["content"]
                for token in tokens:
                    assert token["token"] in ANSWER
                    assert not set(bytes(token["bytes"])) & set(CANARY.encode())
                    assert not set(token["top_logprobs"][0]["token"]) & set(CANARY)

        _at_once(holds, product((4, 9, 11, 14, 40), (2, 8, 30), (False, True)))


def test_thinking_of_a_sampler_without_ids_is_hidden_at_every_place_where_it_may_be_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = Say(ANSWER, reasoning=" ".join(CANARY), seconds=0.02)
    sampler = ScriptedSampler(lambda _, index: said, name="m")
    with serving([Served(name="m", sampler=sampler)], Settings(coalesce=0)) as live, _watched(live, caplog) as http:
        cuts: list[dict[str, Any]] = [{"max_completion_tokens": number} for number in range(1, 11)]
        cuts += [{"deadline": seconds} for seconds in (0.001, 0.005, 0.01, 0.02)]
        cuts += [{"strategy": "consensus(samples=2)"}, {"n": 2}, {"stop": "@"}]
        for more in cuts:
            for stream in (False, True):
                _post(http, "/v1/chat/completions", {"model": "m", "messages": ASKED, "stream": stream, **more})


@pytest.mark.parametrize("model", MODELS)
def test_thinking_is_in_no_byte_of_a_response_nor_of_what_is_kept_for_the_wire(
    model: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "store.sqlite"
    sampler = tiny_sampler(model=Chain(*MODELS[model]), max_positions=512)
    settings = Settings(store=str(file), coalesce=0)
    with serving([Served(name="m", sampler=sampler)], settings) as live, _watched(live, caplog) as http:
        conversation = http.post("/v1/conversations", json={}).json()["id"]
        ids = []

        def holds(more: dict[str, Any]) -> None:
            for stream in (False, True):
                body = {"model": "m", "input": "q", "temperature": 0, "stream": stream, **more}
                told = _post(http, "/v1/responses", body).decode()
                if not stream and more.get("store") is not False:
                    ids.append(json.loads(told)["id"])

        thinking = {"max_output_tokens": 40, "thinking_token_budget": 20}
        cases: list[dict[str, Any]] = [
            *({"max_output_tokens": room} for room in (4, 9, 12, 40)),
            {**thinking, "thinking_token_budget": 3},
            {**thinking, "background": True},
            {**thinking, "store": False},
            {**thinking, "include": ["reasoning.encrypted_content"]},
            {**thinking, "conversation": conversation},
            {**thinking, "reasoning": {"mode": "pro", "summary": "auto"}},
        ]
        _at_once(holds, cases)
        holds({"max_output_tokens": 400, "deadline": 0.02, "thinking_token_budget": 390})  # alone: it must not queue
        for id in ids:
            for path in ("", "/input_items", "?include=reasoning.encrypted_content"):
                _assert_clean(http.get(f"/v1/responses/{id}{path}").content, path)
        _assert_clean(http.get(f"/v1/conversations/{conversation}/items").content, "conversation")
    _assert_store_clean(file)


def _assert_store_clean(file: Path) -> None:
    """Everything in it that is not under the name `hidden`."""
    with sqlite3.connect(file) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = 0
        for table in tables:
            cursor = store.execute(f"SELECT * FROM {table}")
            names = [each[0] for each in cursor.description]
            for row in cursor:
                rows += 1
                for name, value in zip(names, row, strict=True):
                    if isinstance(value, str) and name != "hidden":
                        _assert_clean(json.dumps(_open(value)).encode(), (table, name))
        assert rows
    store.close()


def _open(value: str) -> Any:
    """A column without what is hidden in it."""

    def without(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: each for name, each in pairs if name != "hidden"}

    try:
        return json.loads(value, object_pairs_hook=without)
    except ValueError:
        return value


# Failures -------------------------------------------------------------------------------------------------------------

SECRET = "secret ~^` of sk-12345 in /srv/model.py"


class _Fails(ScriptedSampler):
    """Raises `error` after that many pieces of its answer."""

    def __init__(self, error: Exception, after: int) -> None:
        super().__init__(lambda _, index: Say("one two three", reasoning="four five"))
        self._error, self._after = error, after

    async def stream(self, request: Any, delivery: Any = AT_ONCE) -> Any:
        count = 0
        async for item in super().stream(request):
            if count == self._after:
                raise self._error
            count += 1
            yield item


@pytest.mark.parametrize("error", [RuntimeError(SECRET), KeyError(SECRET), SamplerError(SECRET), MemoryError(SECRET)])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_what_a_failure_says_is_told_to_nobody(error: Exception, after: int, caplog: pytest.LogCaptureFixture) -> None:
    models = [Served(name="m", sampler=_Fails(error, after))]
    with (
        caplog.at_level(logging.DEBUG),
        serving(models, Settings(coalesce=0)) as live,
        httpx.Client(base_url=live.root) as http,
    ):
        for path, asked in (("/v1/chat/completions", {"messages": ASKED}), ("/v1/responses", {"input": "q"})):
            for more in ({}, {"stream": True}, {"background": True} if "input" in asked else {"n": 2}):
                answer = http.post(path, json={"model": "m", **asked, **more})
                _assert_secret_kept(answer)
                if "background" in more:
                    _assert_secret_kept(http.get(f"{path}/{answer.json()['id']}"))
                elif not more.get("stream") or (after == 0 and path != "/v1/responses"):
                    assert answer.status_code == (502 if isinstance(error, SamplerError) else 500)
                    assert answer.json()["error"]["type"] == "server_error"
        if not isinstance(error, SamplerError):  # whose text is for the server's operator
            assert "sk-12345" not in caplog.text
        assert type(error).__name__ in caplog.text


def _assert_secret_kept(answer: httpx.Response) -> None:
    for word in ("secret", "sk-12345", "/srv", "Traceback", "Error:", ".py"):
        assert word not in answer.text, answer.text


def test_an_engine_that_fails_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sampler = tiny_sampler()

    def fails(*_: object) -> None:
        raise RuntimeError(SECRET)

    with serving([Served(name="m", sampler=sampler)]) as live, httpx.Client(base_url=live.root) as http:
        step = sampler.engine.step
        sampler.engine.step = fails  # type: ignore[method-assign]
        for stream in (False, True):
            answer = http.post("/v1/chat/completions", json={"model": "m", "messages": ASKED, "stream": stream})
            assert answer.status_code == 500
            _assert_secret_kept(answer)
        sampler.engine.step = step  # type: ignore[method-assign]
        body = {"model": "m", "messages": ASKED, "max_tokens": 4}
        assert http.post("/v1/chat/completions", json=body).status_code == 200
    assert "sk-12345" not in caplog.text


def test_a_store_that_fails_says_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from ponder.serve.store import Store

    async def fails(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError(SECRET)

    sampler = ScriptedSampler(lambda _, index: "Four.")
    with serving([Served(name="m", sampler=sampler)]) as live, httpx.Client(base_url=live.root) as http:
        for name in ("add", "response", "add_conversation", "conversation", "move"):
            monkeypatch.setattr(Store, name, fails)
        answers = [
            http.post("/v1/responses", json={"model": "m", "input": "q"}),
            http.get(f"/v1/responses/resp_{'0' * 32}"),
            http.post("/v1/conversations", json={}),
            http.get(f"/v1/conversations/conv_{'0' * 32}"),
        ]
        streamed = http.post("/v1/responses", json={"model": "m", "input": "q", "stream": True})
        monkeypatch.undo()
        for answer in answers:
            assert answer.status_code == 500
            _assert_secret_kept(answer)
        _assert_secret_kept(streamed)


FAULTS = [Fault(status=status, body=json.dumps({"error": {"message": SECRET}})) for status in (400, 401, 404, 422, 418)]
FAULTS += [Fault(status=500, body=SECRET), Fault(status=503, body=SECRET), Fault(garbage=SECRET)]
FAULTS += [Fault(garbage=json.dumps({"error": {"message": SECRET}})), Fault(garbage=json.dumps({"choices": [SECRET]}))]
FAULTS += [Fault(status=429, body=SECRET, headers={"Retry-After": "1000"})]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.status} {fault.garbage}"[:20])
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_server_behind_says_of_a_failure_is_not_passed_on(fault: Fault, stream: bool) -> None:
    with StubEndpoint(["never"], faults=[fault] * 3) as stub:
        sampler = EndpointSampler(stub.url, "stub", api_key="sk-12345", retries=0)
        with serving([Served(name="m", sampler=sampler)]) as live, httpx.Client(base_url=live.root) as http:
            answer = http.post("/v1/chat/completions", json={"model": "m", "messages": ASKED, "stream": stream})
            busy = fault.status in (429, 503)
            assert answer.status_code in ((429,) if busy else (400, 502)), answer.text
            _assert_secret_kept(answer)
            assert stub.url.split("//")[1] not in answer.text
            assert "127.0.0.1" not in answer.text
