"""Exported files against llama.cpp itself: the same logits, the same ids, the same text. `make test-peers` installs
llama-cpp-python, which is compiled for ten minutes, and runs these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

import ponder
from ponder.dialogue import (
    CONTROL_TOKENS,
    Message,
    Reasoning,
    Role,
    Start,
    Text,
    ToolCall,
    ToolResult,
    load_format,
    ponder_template,
    to_dicts,
)
from ponder.export import export_gguf
from ponder.export.vocabulary import PRE_TOKENIZERS
from ponder.gguf.layout import TensorType
from ponder.model.checkpoint import atomic_folder, load_model, write_model
from ponder.model.config import Family, Llama3Scaling, ModelConfig, YarnScaling
from ponder.model.transformer import Transformer
from ponder.sampler.opening import find_model
from ponder.tasks.gym import TRAIN_LIMIT, GymTask
from ponder.testing.tiny import ByteTokenizer
from ponder.tokenizer import Tokenizer

llama_cpp = pytest.importorskip("llama_cpp")

pytestmark = pytest.mark.parity

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "max_positions": 512,
    "rope_theta": 50_000.0,
    "rms_norm_eps": 1e-5,
}
LLAMA: dict[str, Any] = {"family": Family.LLAMA, "qk_norm": False}
QWEN2: dict[str, Any] = {"family": Family.QWEN2, "qk_norm": False, "attention_bias": True}
LLAMA3 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)
YARN = YarnScaling(factor=4.0, original_max_positions=64, attention_factor=1.0 + 0.1 * float(np.log(4.0)))
OWN_YARN = YarnScaling(factor=4.0, original_max_positions=64, attention_factor=1.3, beta_fast=16.0, beta_slow=2.0)
CASES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3_untied": {"tie_embeddings": False},
    "qwen3_own_head_dim_one_kv_head": {"head_dim": 32, "num_kv_heads": 1},
    "qwen3_yarn": {"rope_scaling": YARN},
    "qwen3_yarn_own_factors": {"rope_scaling": OWN_YARN},
    "qwen2": QWEN2,
    "qwen2_untied_yarn": QWEN2 | {"tie_embeddings": False, "rope_scaling": YARN},
    "llama": LLAMA,
    "llama_untied": LLAMA | {"tie_embeddings": False},
    "llama_bias": LLAMA | {"attention_bias": True},
    "llama_own_head_dim": LLAMA | {"head_dim": 24},
    "llama_multi_head": LLAMA | {"num_kv_heads": 4},
    "llama3_scaling": LLAMA | {"rope_scaling": LLAMA3},
    "llama_yarn": LLAMA | {"rope_scaling": YARN},
}


def opened(file: Path, *, window: int = 512, **options: Any) -> Any:
    """A model in llama.cpp on one thread, keys and values in float32. Without the buffers that repack weights for a
    CPU's special instructions: those for Q8_0 on AMX end the process (llama-cpp-python 0.3.36, its own files too)."""
    default = llama_cpp.llama_model_default_params

    def plain() -> Any:
        parameters = default()
        parameters.use_extra_bufts = False
        return parameters

    exact = {"type_k": 0, "type_v": 0, "flash_attn": False, "n_threads": 1, "n_threads_batch": 1, "logits_all": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", plain)
        return llama_cpp.Llama(str(file), n_ctx=window, n_batch=window, verbose=False, **exact, **options)


def their_logits(file: Path, ids: list[int]) -> np.ndarray:
    model = opened(file)
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)])
    model.close()
    return logits


def our_logits(folder: Path, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return load_model(folder, dtype=torch.float32)(torch.tensor([ids]))[0].numpy()


def random_model(folder: Path, changes: dict[str, Any]) -> Path:
    """A float32 model whose every parameter matters: biases and norms are random too."""
    model = Transformer(ModelConfig(**(SIZES | changes)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.dim() == 1 else 0.15
            parameter.copy_(torch.empty(parameter.shape).normal_(0, scale, generator=generator))
            if parameter.dim() == 1:
                parameter.add_(1.0)
    with atomic_folder(folder) as temporary:
        write_model(model, temporary)
        ByteTokenizer().save(temporary)
    return folder


IDS = [(7 * i * i + 3 * i) % 256 for i in range(200)]


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_ours(case: str, tmp_path: Path) -> None:
    """Sums in another order: differences of float32's rounding. Largest seen: 1.8e-5, of logits up to 6."""
    folder = random_model(tmp_path / "model", CASES[case])
    export_gguf(folder, tmp_path / "model.gguf")
    ours = our_logits(folder, IDS)
    assert np.abs(their_logits(tmp_path / "model.gguf", IDS) - ours).max() < 1e-4
    assert np.abs(ours).max() > 1


@pytest.mark.parametrize(
    ("type", "most"),
    [(TensorType.F32, 2e-4), (TensorType.F16, 0.02), (TensorType.BF16, 0.3), (TensorType.Q8_0, 3.0)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_minis_logits_in_each_type(type: TensorType, most: float, tmp_path: Path) -> None:
    """mini's weights are bfloat16, which float16 holds here; in types but F32 llama.cpp rounds activations too."""
    folder = find_model("mini")
    tokenizer = Tokenizer.load(folder)
    prompt = load_format(tokenizer).render([Message.user("What is 4821 * 7093?")], start=Start.THINK).ids
    ids = [*prompt, *tokenizer.encode("4821*7093\n1284 3907\n1: 3*1+0+0=30")]
    export_gguf(folder, tmp_path / "mini.gguf", type=type)
    assert np.abs(their_logits(tmp_path / "mini.gguf", ids) - our_logits(folder, ids)).max() < most


def test_q8_0_equals_llama_cpps_own_quantisation(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    whole, ours, theirs = (tmp_path / f"{name}.gguf" for name in ("whole", "ours", "theirs"))
    export_gguf(find_model("mini"), whole, type=TensorType.F32)
    export_gguf(find_model("mini"), ours, type=TensorType.Q8_0)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    assert llama_cpp.llama_model_quantize(bytes(whole), bytes(theirs), parameters) == 0
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(ours).tensors}
    for tensor in gguf.GGUFReader(theirs).tensors:
        assert tensor.tensor_type == read[tensor.name].tensor_type
        assert np.array_equal(tensor.data, read[tensor.name].data)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The bundled model in llama.cpp, in float32."""
    file = tmp_path_factory.mktemp("mini") / "mini.gguf"
    export_gguf(find_model("mini"), file, type=TensorType.F32)
    model = opened(file, window=2048)
    yield model
    model.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(find_model("mini"))


HARD = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "What is 4821 * 7093?",
    "3 33 333 3333 33333 3.3 3..3 ٣٤٥ ⅷ ² ½ 𝟘𝟙",
    " \n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n x",
    "a\r\nb\rc\n\r\n  d\u0085e\u00a0f\u2028g\u3000h\u200bi\ufeffj  ",
    "I've 'told he's there, 'RE you sure? 'M not, 'D you, We'Ve a'lL o'clock 'tis ''s'",
    "Grüße, naïve café, e\u0301 a\u0308\u0323, Ελληνικά, Български, עִבְרִית, हिन्दी, ไทย, 한국어",
    "我想在apple工作1314151天～ 日本語テキスト。「」、",
    "\U0001f600\U0001f469\u200d\U0001f680 \u2705 \U0001f1e9\U0001f1ea 😶\u200d🌫️ (many)",
    "def f(x):\n\treturn {'a': x[0] ** 2}  # ok!!!???\n\n",
    '------======= ```` """ ~~~ <|/ <| |> </s> <think> [INST]',
    "\ufffd\U0010ffff\ue000",
    "word " * 50 + "\n" * 30 + " " * 65,
    *CONTROL_TOKENS,
    "x<|end|>y<|think|>z <|assistant|><|/think|>",
    "<|tool_call|>",
)


def their_ids(model: Any, text: str, *, special: bool = False) -> list[int]:
    return model.tokenize(text.encode(), add_bos=True, special=special)


@pytest.mark.parametrize("text", HARD)
def test_hard_texts_have_our_ids(mini: Any, tokenizer: Tokenizer, text: str) -> None:
    assert their_ids(mini, text) == tokenizer.encode(text)


@settings(max_examples=500, deadline=None)
@given(st.text())
def test_any_text_has_our_ids(mini: Any, tokenizer: Tokenizer, text: str) -> None:
    assert their_ids(mini, text) == tokenizer.encode(text)


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("aZ'stRE 0123\t\n\r\u00a0-*=<|>é\u0301ſ你😀٣")))
def test_any_text_at_the_splitting_rules_edges_has_our_ids(mini: Any, tokenizer: Tokenizer, text: str) -> None:
    assert their_ids(mini, text) == tokenizer.encode(text)


@pytest.mark.parametrize("task", ["products", "chain_sum", "letter_counting", "countdown", "basic_arithmetic"])
def test_task_prompts_have_our_ids(mini: Any, tokenizer: Tokenizer, task: str) -> None:
    for index in range(20):
        text = GymTask(task).problem(TRAIN_LIMIT + index).question
        assert their_ids(mini, text) == tokenizer.encode(text)


def test_control_tokens_are_read_where_they_are_asked_for_and_never_in_text(mini: Any, tokenizer: Tokenizer) -> None:
    for name in CONTROL_TOKENS:
        shown = "<|tool_call|>" if name == "<|call|>" else name
        assert their_ids(mini, shown, special=True) == [tokenizer.control_id(name)]
        assert not set(their_ids(mini, f"a{shown}b {name}")) & set(tokenizer.control.values())


def test_answers_end_at_our_end_tokens_and_at_no_other(mini: Any, tokenizer: Tokenizer) -> None:
    """llama.cpp takes some names for ends of an answer, `<|call|>` among them, which is why that one is renamed."""
    vocabulary = mini._model.vocab
    ends = {id for id in range(mini.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocabulary, id)}
    assert ends == set(load_format(tokenizer).phase_tokens.end)
    assert mini.token_eos() == tokenizer.control_id("<|end|>")


def chat(mini: Any, formatter: Any, messages: list[Message], **variables: Any) -> list[int]:
    """The ids of a chat as llama.cpp's users get them: the template's text, control tokens read."""
    return their_ids(mini, formatter(messages=to_dicts(messages), **variables).prompt, special=True)


def test_the_chat_template_writes_what_we_render(mini: Any, tokenizer: Tokenizer) -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = mini.metadata["tokenizer.chat_template"]
    formatter = Jinja2ChatFormatter(template, eos_token="<|end|>", bos_token="<|endoftext|>")
    form = load_format(tokenizer)
    call = Message(Role.ASSISTANT, (Reasoning("look"), ToolCall("add", '{"a": 1}')))
    conversations = (
        [Message.user("  2 + 2?\n")],
        [
            Message.system("Be terse."),
            Message.user("1"),
            Message(Role.ASSISTANT, (Reasoning("old"), Text("2"))),
            Message.user("3"),
        ],
        [Message.user("x"), call, Message(Role.TOOL, (ToolResult("add", "3"),))],
    )
    for messages in conversations:
        assert chat(mini, formatter, messages) == list(form.render(messages, start=Start.THINK).ids)
        direct = form.render(messages, start=Start.DIRECT).ids
        assert chat(mini, formatter, messages, enable_thinking=False) == list(direct)


@pytest.mark.slow
def test_greedy_text_is_ours(mini: Any, tokenizer: Tokenizer) -> None:
    """20 held-out problems, both in float32: the whole turn, thoughts included."""
    form = load_format(tokenizer)
    questions = [
        GymTask(task).problem(TRAIN_LIMIT + 1000 + index).question
        for task in ("products", "chain_sum", "letter_counting", "gcd")
        for index in range(5)
    ]
    with ponder.load("mini", dtype=torch.float32) as reasoner:
        ours = reasoner.ask_many(questions, temperature=0, max_tokens=1500)
    for question, answer in zip(questions, ours, strict=True):
        prompt = form.render([Message.user(question)], start=Start.THINK).ids
        mini.reset()
        ids: list[int] = []
        for id in mini.generate(prompt, temp=0, repeat_penalty=1.0):
            ids.append(id)
            if id in form.phase_tokens.end or len(ids) == 1500:
                break
        turn = form.parse(ids, start=Start.THINK)
        assert (turn.reasoning, turn.text) == (answer.reasoning, answer.text)


def test_a_chat_completion_thinks_and_answers(mini: Any) -> None:
    """As a user asks: thoughts and answer come as one text, since its handler leaves control tokens out."""
    mini.reset()
    reply = mini.create_chat_completion(
        [{"role": "user", "content": "What is 12 * 34?"}], temperature=0, max_tokens=400
    )["choices"][0]
    assert reply["finish_reason"] == "stop"
    assert reply["message"]["content"].startswith("12*34\n")
    assert reply["message"]["content"].endswith("408")


def splitting(rule: tuple[str, ...]) -> pre_tokenizers.PreTokenizer:
    splits = [pre_tokenizers.Split(tokenizers.Regex(regex), "isolated") for regex in rule]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.mark.parametrize("rule", PRE_TOKENIZERS, ids=PRE_TOKENIZERS.get)
def test_each_splitting_rule_has_our_ids(rule: tuple[tuple[str, ...], bool], tmp_path: Path) -> None:
    """Merges are learned from unsplit text, so they reach across boundaries wherever the rule does not forbid it."""
    regexes, ignore_merges = rule
    learner = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    learner.pre_tokenizer = splitting(())
    prose = " ".join(text for text in HARD if "<|" not in text)
    learner.train_from_iterator(
        [prose[begin : begin + 12] for begin in range(len(prose))],
        trainers.BpeTrainer(
            vocab_size=1024 - len(CONTROL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    learner.pre_tokenizer = splitting(regexes)
    first = learner.get_vocab_size()
    spec = json.loads(learner.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] = [{"id": first + i, "content": name, **flags} for i, name in enumerate(CONTROL_TOKENS)]
    tokenizer = Tokenizer(spec, {"chat_template": ponder_template()})
    folder = tmp_path / "model"
    with atomic_folder(folder) as temporary:
        write_model(Transformer(ModelConfig(**(SIZES | {"vocab_size": 1024}))), temporary)
        tokenizer.save(temporary)
    export_gguf(folder, tmp_path / "model.gguf")
    model = opened(tmp_path / "model.gguf", vocab_only=True)
    for text in (*HARD, "".join(HARD), *("".join(HARD)[i : i + 50] for i in range(0, 1500, 7))):
        assert their_ids(model, text) == tokenizer.encode(text)
    model.close()
