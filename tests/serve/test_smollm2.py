"""A real model's own GGUF file, served to the official client: what a person would check. Loading takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from gguf_files import smollm2
from live import serving

import ponder
from ponder.serve import Served

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with (
        ponder.load(smollm2()) as model,
        serving([Served(name="smollm2", sampler=model.sampler)]) as live,
        live.client() as client,
    ):
        yield client


def said(client: openai.OpenAI, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model="smollm2", messages=messages, temperature=0, max_tokens=48)
    assert answer.usage.prompt_tokens > 25, "the template's own system message is in the prompt"
    return answer.choices[0].message.content


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("What is the capital of France?", "Paris"),
        ("What is the capital of Japan?", "Tokyo"),
        ("What is the opposite of hot?", "cold"),
        ("What is the largest ocean on Earth?", "Pacific"),
        ("What is the chemical symbol for water?", "H2O"),
    ],
)
def test_facts(question: str, fact: str, client: openai.OpenAI) -> None:
    assert fact in said(client, question)


def test_a_rewrite(client: openai.OpenAI) -> None:
    assert "I walked to school" in said(client, "Rewrite this sentence in the past tense: I walk to school.")


def test_a_list(client: openai.OpenAI) -> None:
    lines = said(client, "Name three fruits.").splitlines()
    assert [line.split()[0] for line in lines] == ["1.", "2.", "3."]


def test_an_answer_ends_by_itself(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = client.chat.completions.create(model="smollm2", messages=messages, temperature=0, max_tokens=48)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == "The capital of France is Paris."
