"""Several models in one server: by name, with adapters, and on other servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch
from live import serving

from ponder.cli.main import build_parser
from ponder.cli.serve import load_models
from ponder.dialogue import Message
from ponder.model.checkpoint import atomic_folder, load_model, write_model
from ponder.model.lora import add_lora, load_lora, save_lora
from ponder.sampler.local import load_sampler
from ponder.sampler.protocol import Request
from ponder.serve import Served
from ponder.serve.models import Models
from ponder.serve.settings import Settings
from ponder.testing.endpoint import Fault, StubEndpoint
from ponder.testing.parity import assert_logprobs_are_those_of_training
from ponder.testing.scripted import Say
from ponder.testing.tiny import ByteTokenizer, tiny_model, tiny_sampler
from ponder.types import InvalidRequest, SamplingParams

ASKED = [{"role": "user", "content": "2+2?"}]
THOUGHT = Say("Four.", reasoning="Two and two.")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("models") / "base", ByteTokenizer()
    with atomic_folder(folder) as temporary:
        write_model(tiny_model(vocab_size=tokenizer.vocab_size), temporary)
        tokenizer.save(temporary)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """An adapter that changes what the model says."""
    model, folder = load_model(base), base.parent / "adapter"
    for parameter in add_lora(model, 4, 8.0):
        with torch.no_grad():
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    save_lora(model, folder)
    return folder


def arguments(*texts: str) -> list[Served]:
    """What `ponder serve` loads for these arguments."""
    parsed = build_parser().parse_args(["serve", *texts])
    return load_models(parsed.models, parsed.lora, parsed.quantize)


@pytest.mark.parametrize("how", ["only", "named", "folder", "said"])
def test_an_adapter_is_a_model_of_its_own(base: Path, adapter: Path, how: str) -> None:
    lora = {"only": f"tuned={adapter}", "named": f"tuned={adapter}@plain", "folder": f"tuned={adapter}@{base}"}
    if how == "said":
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    models = arguments(f"plain={base}", "--lora", lora.get(how, lora["only"]))
    with serving(models) as live, live.client() as client:
        listed = {each.id: each for each in client.models.list()}
        told = {
            name: client.completions.create(model=name, prompt="abc", max_tokens=20, seed=1).choices[0].text
            for name in ("plain", "tuned")
        }
    assert listed["tuned"].parent == ("base" if how == "folder" else "plain")
    assert listed["plain"].parent is None
    assert listed["plain"].max_model_len == listed["tuned"].max_model_len == models[0].sampler.capabilities.window
    assert str(base) not in str(listed)
    assert told["plain"] != told["tuned"]


def test_an_adapter_needs_a_model(base: Path, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "far/away"}))
    with pytest.raises(InvalidRequest, match="does not say which model"):
        arguments(f"a={base}", f"b={base}", "--lora", f"tuned={adapter}")
    with pytest.raises(InvalidRequest, match="NAME=FOLDER"):
        arguments(f"a={base}", "--lora", str(adapter))


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="two models"):
        Models([Served(name="a", sampler=tiny_sampler()), Served(name="a", sampler=tiny_sampler())], Settings())


def test_an_endpoint_needs_a_name() -> None:
    with pytest.raises(InvalidRequest, match="needs a name"):
        arguments("http://127.0.0.1:1/v1")
    with pytest.raises(InvalidRequest, match="no dialect"):
        arguments("x=foo+http://127.0.0.1:1/v1#m")


@pytest.fixture
def stub() -> Iterator[StubEndpoint]:
    with StubEndpoint([THOUGHT] * 20, dialect="vllm") as stub:
        yield stub


def proxied(stub: StubEndpoint) -> list[Served]:
    return arguments(f"far=vllm+{stub.url}#stub")


def test_a_model_behind_another_server_answers_under_our_name(stub: StubEndpoint) -> None:
    extra = {"reasoning_format": "reasoning", "thinking_token_budget": 100, "top_k": 5}
    with serving(proxied(stub)) as live, live.client() as client:
        answer = client.chat.completions.create(
            model="far", messages=ASKED, max_completion_tokens=50, seed=3, extra_body=extra
        )
        pieces = list(client.chat.completions.create(model="far", messages=ASKED, stream=True, extra_body=extra))
        listed = client.models.retrieve("far")
    assert listed.max_model_len is None
    assert answer.model == "far"
    assert answer.choices[0].message.content == "Four."
    assert answer.choices[0].message.model_extra["reasoning"] == "Two and two."
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "Four."
    assert stub.requests[0]["model"] == "stub"
    assert stub.requests[0]["thinking_token_budget"] == 100
    assert stub.requests[0]["top_k"] == 5
    assert stub.requests[0]["max_tokens"] == 50


def test_its_reasoning_is_hidden_unless_asked_for(stub: StubEndpoint) -> None:
    with serving(proxied(stub)) as live, live.client() as client:
        whole = client.chat.completions.with_raw_response.create(model="far", messages=ASKED).text
        raw = client.chat.completions.with_raw_response.create(model="far", messages=ASKED, stream=True)
        streamed = b"".join(raw.http_response.iter_bytes()).decode()
    assert "Two and two" not in whole + streamed
    assert "Four." in whole


def test_a_strategy_runs_in_front_of_it(stub: StubEndpoint) -> None:
    extra = {"strategy": "consensus(samples=5, until='all')"}
    with serving(proxied(stub)) as live, live.client() as client:
        answer = client.chat.completions.create(model="far", messages=ASKED, reasoning_effort="low", extra_body=extra)
    assert answer.choices[0].message.content == "Four."
    assert sum(each.get("n", 1) for each in stub.requests) == 5
    assert answer.usage.completion_tokens == 5 * 6


def test_what_it_cannot_do_is_refused_by_name(stub: StubEndpoint) -> None:
    with serving(proxied(stub)) as live, live.client() as client:
        for extra, named in (({"answer_room": 5}, "answer_room"), ({"truncation": "auto"}, "truncation")):
            with pytest.raises(openai.BadRequestError, match=named):
                client.chat.completions.create(model="far", messages=ASKED, extra_body=extra)
        with pytest.raises(openai.BadRequestError, match="logprobs"):
            client.chat.completions.create(model="far", messages=ASKED, logprobs=True)
        with pytest.raises(openai.BadRequestError, match="v1/chat/completions"):
            client.completions.create(model="far", prompt="x")
    assert not stub.requests


def test_where_it_is_and_what_broke_there_stays_inside() -> None:
    faults = [
        Fault(status=400, body='{"error": {"message": "no such thing"}}'),
        Fault(status=501, body="at /srv/secret"),
    ]
    with (
        StubEndpoint([THOUGHT], dialect="vllm", faults=faults) as stub,
        serving(proxied(stub)) as live,
        live.client() as client,
    ):
        with pytest.raises(openai.BadRequestError, match="refuses the request") as refused:
            client.chat.completions.create(model="far", messages=ASKED)
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model="far", messages=ASKED)
    assert failed.value.status_code == 502
    assert "127.0.0.1" not in str(refused.value.body) + str(failed.value.body)
    assert "secret" not in str(failed.value.body)


def test_ponder_stands_in_front_of_ponder() -> None:
    with serving([Served(name="tiny", sampler=tiny_sampler())]) as behind:
        models = [*arguments(f"far={behind.url}#tiny"), Served(name="near", sampler=tiny_sampler())]
        with serving(models) as live, live.client() as client:
            ask = {"messages": ASKED, "max_completion_tokens": 30, "seed": 2, "reasoning_effort": "low"}
            near, far = (client.chat.completions.create(model=model, **ask) for model in ("near", "far"))
            pieces = list(client.chat.completions.create(model="far", **ask, stream=True))
    assert near.choices[0].message.content == far.choices[0].message.content
    assert near.usage == far.usage
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == far.choices[0].message.content


def test_a_merged_adapter_is_what_training_computes(base: Path, adapter: Path) -> None:
    sampler, model = load_sampler(base, adapter=adapter), load_model(base)
    load_lora(model, adapter)

    async def ask() -> list:
        request = Request(prompt=(Message.user("2+2?"),), params=SamplingParams(max_tokens=20, seed=1))
        completions = await sampler.sample(request)
        await sampler.close()
        return completions

    (completion,) = asyncio.run(ask())
    assert_logprobs_are_those_of_training(model, completion.segment)
