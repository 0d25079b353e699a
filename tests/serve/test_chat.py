"""Chat completions as the official client sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest
from live import Live, serving

from ponder.serve import Served
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    script = [Say("Four.", reasoning="Two and two.")] * 200
    models = [Served(name="tiny", sampler=tiny_sampler()), Served(name="said", sampler=ScriptedSampler(script))]
    with serving(models) as running:
        yield running


ASKED = [{"role": "user", "content": "2+2?"}]


def test_reasoning_is_billed_and_hidden(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=ASKED, max_completion_tokens=24, seed=1)
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert answer.usage.completion_tokens <= 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert not {"reasoning", "reasoning_content"} & answer.choices[0].message.model_extra.keys()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_shown_on_request_under_the_field_that_was_asked_for(client: openai.OpenAI, field: str) -> None:
    extra = {"reasoning_format": field}
    answer = client.chat.completions.create(model="said", messages=ASKED, extra_body=extra)
    assert answer.choices[0].message.content == "Four."
    assert answer.choices[0].message.model_extra[field] == "Two and two."


def test_thinking_that_ate_the_room_ends_with_length_and_a_bill(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=ASKED, max_completion_tokens=8, seed=1, extra_body={"thinking_token_budget": 1000}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == ""
    assert answer.usage.completion_tokens_details.reasoning_tokens == 8


def test_answer_room_is_kept(client: openai.OpenAI) -> None:
    extra = {"thinking_token_budget": 1000, "answer_room": 4}
    answer = client.chat.completions.create(
        model="tiny", messages=ASKED, max_completion_tokens=8, seed=1, extra_body=extra
    )
    assert answer.usage.completion_tokens_details.reasoning_tokens <= 4


def test_a_stream_says_what_the_whole_says(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "messages": ASKED, "max_completion_tokens": 40, "seed": 3, "n": 2, "temperature": 1.0}
    extra = {"reasoning_format": "reasoning"}
    whole = client.chat.completions.create(**ask, extra_body=extra)
    content, thought, ends, usage = ["", ""], ["", ""], {}, None
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options=options, extra_body=extra):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content[choice.index] += choice.delta.content or ""
            thought[choice.index] += (choice.delta.model_extra or {}).get("reasoning") or ""
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    for index, choice in enumerate(whole.choices):
        assert content[index] == choice.message.content
        assert thought[index] == (choice.message.model_extra["reasoning"] or "")
        assert ends[index] == choice.finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI) -> None:
    for extra, param in (
        ({"prediction": {}}, "prediction"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"reasoning_effort": "max"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"tool_choice": "required"}, "tool_choice"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="tiny", messages=ASKED, extra_body=extra)
        assert refused.value.body["param"] == param


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"frequency_penalty": 3}, "frequency_penalty must be at most 2.0"),
        ({"n": "2"}, "n must be an integer"),
        ({"stream": 1}, "stream must be true or false"),
        ({"reasoning_effort": "max"}, "reasoning_effort must be 'none', 'minimal', 'low', 'medium' or 'high'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
        ({"stop": ["x"] * 17}, "stop must have at most 16 items"),
        ({"metadata": {"a": "\ud800"}}, "the body holds half of a surrogate pair, which is not a character"),
        ({"verbosity": "low"}, "verbosity must be 'medium'"),
    ],
)
def test_a_refusal_says_what_must_hold(live: Live, extra: dict[str, Any], says: str) -> None:
    body = json.dumps({"model": "said", "messages": ASKED, **extra})
    answer = httpx.post(f"{live.url}/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, says)


def test_an_unknown_model_is_404_and_the_error_lists_the_models(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny"):
        client.chat.completions.create(model="gpt", messages=ASKED)


def test_a_prompt_that_is_too_long_names_its_length(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 1000}])
    assert refused.value.code == "context_length_exceeded"


def test_log_probabilities_spell_the_content(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=ASKED,
        max_completion_tokens=40,
        seed=5,
        logprobs=True,
        top_logprobs=3,
        extra_body={"thinking_token_budget": 4, "regex": "[a-z]{8}"},
    )
    spelled = b"".join(bytes(token.bytes) for token in answer.choices[0].logprobs.content)
    assert len(spelled) == 8
    assert answer.choices[0].message.content == spelled.decode()
    assert all(len(token.top_logprobs) == 3 for token in answer.choices[0].logprobs.content)


def test_streamed_log_probabilities_come_with_the_text_they_spell(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": ASKED,
        "max_completion_tokens": 60,
        "seed": 5,
        "logprobs": True,
    }
    asked |= {"top_logprobs": 2, "stop": ["e"], "extra_body": {"thinking_token_budget": 4, "regex": "[a-zé ]{30}"}}
    whole = client.chat.completions.create(**asked).choices[0]
    told, text = [], ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        assert choice.logprobs is None or choice.delta.content
        text += choice.delta.content or ""
        told += choice.logprobs.content if choice.logprobs else []
        spelled = b"".join(bytes(token.bytes) for token in told)
        assert spelled.startswith(text.encode()), "the tokens of a piece come no later than it"
    assert len(told) > 1
    assert (text, told) == (whole.message.content, whole.logprobs.content)


def test_a_strategy_bills_all_its_samples(client: openai.OpenAI) -> None:
    extra = {"strategy": "consensus(samples=4)", "thinking_token_budget": 8}
    answer = client.chat.completions.create(
        model="tiny", messages=ASKED, max_completion_tokens=16, seed=1, extra_body=extra
    )
    assert answer.usage.completion_tokens > 16
