"""Raw continuations as the official client, and as lm-evaluation-harness, see them."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
import torch
from live import Live, serving

from ponder.serve import Served
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import tiny_sampler

PROMPT = "Two and two: "


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    sampler = tiny_sampler()
    with serving(
        [Served(name="tiny", sampler=sampler), Served(name="said", sampler=ScriptedSampler(["x"]))]
    ) as running:
        yield running


def test_text_goes_on_as_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=64, seed=1, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.prompt_tokens == len(PROMPT)
    assert answer.usage.completion_tokens <= 128
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize("seed", range(12))
def test_no_control_token_but_an_end_is_ever_sampled(live: Live, client: openai.OpenAI, seed: int) -> None:
    answer = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=200, seed=seed, temperature=2, logprobs=0
    )
    tokenizer = live.state.models.get("tiny").tokenizer
    spelled = [token for token in answer.choices[0].logprobs.tokens if token in tokenizer.control]
    assert spelled == [] if answer.choices[0].finish_reason == "length" else len(spelled) == 1


def test_several_prompts_keep_their_order_whole_and_streamed(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "prompt": ["one", "two", "three"], "max_tokens": 12, "seed": 4, "n": 2, "echo": True}
    whole = client.completions.create(**ask)
    assert [choice.text[:3] for choice in whole.choices] == ["one", "one", "two", "two", "thr", "thr"]
    texts, ends, usage = [""] * 6, {}, None
    for chunk in client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    assert texts == [choice.text for choice in whole.choices]
    assert [ends[index] for index in range(6)] == [choice.finish_reason for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens == 11


def test_ids_are_taken_as_they_are(client: openai.OpenAI) -> None:
    by_text = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, seed=1)
    by_ids = client.completions.create(model="tiny", prompt=list(PROMPT.encode()), max_tokens=12, seed=1)
    # The byte tokenizer's ids are not the bytes themselves, so the prompts differ; the shape does not.
    assert by_ids.usage.prompt_tokens == by_text.usage.prompt_tokens
    several = client.completions.create(model="tiny", prompt=[[1, 2], [3]], max_tokens=2, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1]


def test_a_spelled_control_token_is_text(live: Live, client: openai.OpenAI) -> None:
    tokenizer = live.state.models.get("tiny").tokenizer
    text = "".join(tokenizer.control)[:200]
    answer = client.completions.create(model="tiny", prompt=text, max_tokens=0, echo=True, logprobs=0)
    assert answer.choices[0].text == text
    assert answer.usage.prompt_tokens == len(text.encode())


def test_the_prompts_log_probabilities_are_those_of_the_model(live: Live, client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=0, echo=True, logprobs=2)
    choice, sampler = answer.choices[0], live.state.models.get("tiny").sampler
    ids = torch.tensor([sampler.tokenizer.encode(PROMPT)])
    with torch.no_grad():
        expected = sampler.engine.model(ids)[0, :-1].log_softmax(-1)
    told = torch.tensor(choice.logprobs.token_logprobs[1:])
    torch.testing.assert_close(told, expected.gather(1, ids[0, 1:, None])[:, 0], atol=1e-4, rtol=0)
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[0] is None
    assert choice.logprobs.tokens == list(PROMPT)
    assert choice.logprobs.text_offset == list(range(len(PROMPT)))
    best = expected.max(-1).values.tolist()
    assert [max(top.values()) for top in choice.logprobs.top_logprobs[1:]] == pytest.approx(best, abs=1e-4)
    assert all(2 <= len(top) <= 3 for top in choice.logprobs.top_logprobs[1:])
    assert choice.text == PROMPT
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 0


def test_the_generated_token_is_told_behind_the_echoed_ones(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "prompt": [PROMPT, "a"], "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
    answer = client.completions.create(**ask)
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [len(PROMPT) + 1, 2]
    for chunk in client.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            if choice.finish_reason:
                whole = answer.choices[choice.index].logprobs
                assert choice.logprobs.tokens == whole.tokens
                assert choice.logprobs.token_logprobs[1:] == pytest.approx(whole.token_logprobs[1:], abs=1e-4)
                assert choice.text == ""


def test_a_character_of_several_tokens_has_one_place(client: openai.OpenAI) -> None:
    logprobs = client.completions.create(model="tiny", prompt="aé!", max_tokens=0, echo=True, logprobs=0)
    told = logprobs.choices[0].logprobs
    assert told.tokens == ["a", r"bytes:\xc3", r"bytes:\xa9", "!"]
    assert told.text_offset == [0, 1, 1, 2]


def test_a_stop_string_ends_text_and_tokens_alike(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "prompt": PROMPT, "max_tokens": 60, "seed": 3, "logprobs": 0}
    free = client.completions.create(**ask).choices[0]
    stop = free.text[3:5]
    cut = client.completions.create(**ask, stop=stop).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.logprobs.tokens == free.logprobs.tokens[: len(cut.logprobs.tokens)]


def test_what_is_not_supported_is_refused_by_name(live: Live, client: openai.OpenAI) -> None:
    think = live.state.models.get("tiny").sampler.format.phase_tokens.think_open
    for extra, param in (
        ({"best_of": 4}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": [1, think]}, "prompt"),
        ({"prompt": ["x"] * 1000, "n": 2}, "n"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"model": "said"}, "model"),
        ({"logprobs": 21}, "logprobs"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="tiny", prompt=PROMPT, extra_body=extra)
        assert refused.value.body["param"] == param, extra


@pytest.mark.parametrize("ask", [{}, {"stream": True}, {"echo": True, "logprobs": 1, "max_tokens": 0}])
def test_a_prompt_that_is_too_long_is_named(client: openai.OpenAI, ask: dict) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt=["a", "x" * 1000], **ask)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "prompt"


def test_an_id_that_the_model_does_not_have_is_refused(client: openai.OpenAI) -> None:
    for ask in ({}, {"echo": True, "logprobs": 1}):
        with pytest.raises(openai.BadRequestError, match="5000"):
            client.completions.create(model="tiny", prompt=[1, 5000], **ask)
