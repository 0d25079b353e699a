"""A real GGUF file against the `gguf` library, which reads it independently, and against transformers' tokenizer."""

from __future__ import annotations

import pytest
import torch
from gguf_files import smollm2

from ponder.dialogue import Message, Start, load_format
from ponder.model.checkpoint import open_model
from ponder.model.gguf import gguf_name
from ponder.tokenizer import Tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.slow]
QUESTION = "What is the capital of France? It's 1234 km away, naïve 北京!\n\n  def f(x):\n\treturn x"


def test_weights_equal_the_gguf_librarys() -> None:
    gguf = pytest.importorskip("gguf", reason="needs the package gguf (extra dev)")
    theirs = {each.name: each for each in gguf.GGUFReader(smollm2()).tensors}
    with open_model(smollm2()) as (config, parameters):
        assert {gguf_name(name) for name in parameters} == theirs.keys()
        for name, parameter in parameters.items():
            if ".layers." in name and ".layers.7." not in name:  # one layer of thirty will do
                continue
            stored = theirs[gguf_name(name)]
            values = torch.from_numpy(gguf.quants.dequantize(stored.data, stored.tensor_type).copy())
            heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2])
            if heads:  # row i of a head's halves is row 2i, or 2i + 1, of the file
                half = range(config.head_dim // 2)
                order = [2 * len(half) * head + 2 * i + j for head in range(heads) for j in range(2) for i in half]
                values = values[order]
            assert torch.equal(parameter.read(), values), name


@pytest.mark.filterwarnings("ignore")
def test_ids_equal_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers (extra hf)")
    pytest.importorskip("gguf", reason="needs the package gguf (extra dev)")
    file = smollm2()
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer = Tokenizer.load(file)
    messages = [{"role": "user", "content": QUESTION}]
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert load_format(tokenizer).render([Message.user(QUESTION)], start=Start.DIRECT).ids == tuple(ids)
