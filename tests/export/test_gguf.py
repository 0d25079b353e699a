"""GGUF files, read back by a reader of our own: every field and every tensor. That llama.cpp reads them alike is
tests/export/test_llama_cpp.py's to say."""

from __future__ import annotations

import json
import math
import struct
import weakref
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ponder.cli.main import main
from ponder.dialogue import CONTROL_TOKENS, PonderFormat, load_format, ponder_template
from ponder.export import export_gguf
from ponder.export.llama_cpp import own_fields
from ponder.export.vocabulary import pre_tokenizer_name
from ponder.gguf.layout import TensorType
from ponder.gguf.writing import GgufTensor, quantize_q8_0, write_gguf
from ponder.model.checkpoint import atomic_folder, load_config, load_model, open_model, write_model
from ponder.model.config import Family, Llama3Scaling, ModelConfig, YarnScaling
from ponder.model.lora import add_lora, save_lora
from ponder.model.transformer import Transformer, rotary_frequencies
from ponder.sampler.opening import find_model
from ponder.testing.tiny import ByteTokenizer, tiny_config
from ponder.tokenizer import Tokenizer
from ponder.tokenizer.splitting import SPLIT_REGEX
from ponder.types import FormatError, InvalidRequest

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
SCALARS = {4: "I", 5: "i", 6: "f", 7: "?"}
TYPES = {0: ("<f4", 1, 4), 1: ("<f2", 1, 2), 8: ("u1", 32, 34), 30: ("<u2", 1, 2)}


@dataclass
class Read:
    fields: dict[str, Any]
    tensors: dict[str, tuple[int, tuple[int, ...], np.ndarray]]  # type, shape (outermost first), raw values

    def tensor(self, name: str) -> Tensor:
        """The values as float32."""
        type, shape, raw = self.tensors[name]
        if type == 8:
            blocks = raw.reshape(-1, 34)
            values = blocks[:, :2].copy().view("<f2").astype(np.float32) * blocks[:, 2:].view(np.int8)
        elif type == 30:
            values = (raw.astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.astype(np.float32)
        return torch.from_numpy(values.reshape(shape))


def read(data: bytes) -> Read:
    """A GGUF file by ggml's description of the format."""
    at = 0

    def take(kind: str) -> Any:
        nonlocal at
        values = struct.unpack_from("<" + kind, data, at)
        at += struct.calcsize("<" + kind)
        return values[0] if len(values) == 1 else values

    def text() -> str:
        nonlocal at
        length = take("Q")
        at += length
        return data[at - length : at].decode()

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            inner, length = take("I"), take("Q")
            return [value(inner) for _ in range(length)]
        return take(SCALARS[kind])

    assert (take("4s"), take("I")) == (b"GGUF", 3)
    num_tensors, num_fields = take("Q"), take("Q")
    fields = {text(): value(take("I")) for _ in range(num_fields)}
    described = []
    for _ in range(num_tensors):
        name, dims = text(), take("I")
        shape = tuple(take("Q") for _ in range(dims))[::-1]
        described.append((name, shape, take("I"), take("Q")))
    start = at + -at % 32
    tensors = {}
    end = start
    for name, shape, type, offset in described:
        assert offset % 32 == 0
        assert start + offset == end  # one after another, nothing between them but padding
        kind, block, size = TYPES[type]
        num_bytes = math.prod(shape) // block * size
        raw = np.frombuffer(data[start + offset : start + offset + num_bytes], kind)
        tensors[name] = (type, shape, raw)
        end = start + offset + num_bytes + -num_bytes % 32
    assert end == len(data)
    assert len(tensors) == num_tensors
    return Read(fields, tensors)


def model_of(path: Path, config: ModelConfig, tokenizer: Tokenizer | None = None) -> Path:
    """A folder with a random float32 model, its norms and biases random too."""
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    with atomic_folder(path) as temporary:
        write_model(model, temporary)
        (tokenizer or ByteTokenizer()).save(temporary)
    return path


def config_of(**changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
    }
    return ModelConfig(**(sizes | changes))


LLAMA: dict[str, Any] = {"family": Family.LLAMA, "qk_norm": False}
QWEN2: dict[str, Any] = {"family": Family.QWEN2, "qk_norm": False, "attention_bias": True}
LLAMA3 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def our_name(name: str) -> str:
    whole = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    path, _, kind = name.rpartition(".")
    if path in whole:
        return f"{whole[path]}.{kind}"
    _, layer, inner = path.split(".")
    return f"model.layers.{layer}.{NAMES[inner]}.{kind}"


def halves_to_pairs(rows: Tensor, heads: int) -> Tensor:
    """Row 2i + j of a head is row i + j·d/2 of ours: written out, unlike the exporter's."""
    d = rows.shape[0] // heads
    order = [head * d + i + j * (d // 2) for head in range(heads) for i in range(d // 2) for j in range(2)]
    return rows[order]


@pytest.mark.parametrize(
    "config",
    [
        config_of(),
        config_of(tie_embeddings=False),
        config_of(**QWEN2),
        config_of(**LLAMA, attention_bias=True, tie_embeddings=False),
        config_of(**LLAMA, head_dim=24, rope_scaling=LLAMA3),
    ],
    ids=["qwen3", "qwen3_untied", "qwen2", "llama_bias_untied", "llama3_scaling"],
)
def test_every_tensor_reads_back(config: ModelConfig, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config)
    export_gguf(folder, tmp_path / "model.gguf")
    back = read((tmp_path / "model.gguf").read_bytes())
    state = load_model(folder).state_dict()
    factors = back.tensors.pop("rope_freqs.weight", None)
    assert {our_name(name) for name in back.tensors} == set(config.parameter_shapes())
    for name in back.tensors:
        expected = state[our_name(name)]
        if config.family is Family.LLAMA and ".attn_q." in name:
            expected = halves_to_pairs(expected, config.num_heads)
        if config.family is Family.LLAMA and ".attn_k." in name:
            expected = halves_to_pairs(expected, config.num_kv_heads)
        assert torch.equal(back.tensor(name), expected), name
    if config.rope_scaling is None:
        assert factors is None
    else:
        plain = 1.0 / config.rope_theta ** (torch.arange(0, 24, 2) / 24)
        torch.testing.assert_close(plain / torch.from_numpy(factors[2].copy()), rotary_frequencies(config))


def test_the_shape_reads_back(tmp_path: Path) -> None:
    yarn = YarnScaling(factor=4.0, original_max_positions=64, attention_factor=1.3, beta_fast=16.0, beta_slow=2.0)
    config = config_of(head_dim=32, rope_scaling=yarn, rope_theta=5e5, max_positions=256, rms_norm_eps=1e-5)
    export_gguf(model_of(tmp_path / "model", config), tmp_path / "out.gguf", name="tiny")
    fields = read((tmp_path / "out.gguf").read_bytes()).fields
    assert fields["general.architecture"] == "qwen3"
    assert fields["general.name"] == "tiny"
    assert fields["general.file_type"] == 0
    shape = {key.removeprefix("qwen3."): value for key, value in fields.items() if key.startswith("qwen3.")}
    factor = shape.pop("rope.scaling.attn_factor") * (0.1 * math.log(4) + 1)
    assert factor == pytest.approx(1.3)
    assert shape.pop("attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert shape == {
        "context_length": 256,
        "embedding_length": 64,
        "block_count": 2,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.dimension_count": 32,
        "rope.freq_base": 5e5,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 64,
        "rope.scaling.yarn_beta_fast": 16.0,
        "rope.scaling.yarn_beta_slow": 2.0,
        "vocab_size": 320,
    }


@pytest.mark.parametrize(
    ("type", "dtype"),
    [(TensorType.F32, torch.float32), (TensorType.BF16, torch.bfloat16), (TensorType.F16, torch.float16)],
    ids=lambda value: str(value),
)
def test_matrices_take_the_type_and_vectors_stay_exact(type: TensorType, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of())
    assert export_gguf(folder, tmp_path / "out.gguf", type=type).type is type
    back = read((tmp_path / "out.gguf").read_bytes())
    for name, (number, shape, _) in back.tensors.items():
        values = load_model(folder).state_dict()[our_name(name)]
        expected = values.to(dtype).float() if len(shape) > 1 else values
        assert number == (type.number if len(shape) > 1 else 0)
        assert torch.equal(back.tensor(name), expected)


def test_mini_is_exported_as_it_is_stored(tmp_path: Path) -> None:
    exported = export_gguf(find_model("mini"), tmp_path / "mini.gguf")
    assert exported.type is TensorType.BF16
    assert exported.num_bytes == (tmp_path / "mini.gguf").stat().st_size
    back = read((tmp_path / "mini.gguf").read_bytes())
    state = load_model(find_model("mini")).state_dict()
    assert all(torch.equal(back.tensor(name), state[our_name(name)].float()) for name in back.tensors)


def test_q8_0_is_off_by_half_a_step_at_most(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of())
    export_gguf(folder, tmp_path / "out.gguf", type=TensorType.Q8_0)
    back = read((tmp_path / "out.gguf").read_bytes())
    for name, (number, shape, _) in back.tensors.items():
        values = load_model(folder).state_dict()[our_name(name)]
        assert number == (8 if len(shape) > 1 else 0)
        step = values.reshape(-1, 32).abs().amax(1, keepdim=True) / 127 if number == 8 else torch.zeros(1)
        off = (back.tensor(name) - values).reshape(-1, 32 if number == 8 else shape[-1]).abs()
        assert (off <= step * 0.5 + values.abs().max() * 2**-10).all(), name  # the scale is a float16


def test_a_block_of_q8_0_byte_by_byte() -> None:
    values = torch.zeros(64)
    values[:5] = torch.tensor([127, -127, 2.5, -2.5, 0.4])  # a scale of one: halves go away from zero
    first, second = quantize_q8_0(values)
    assert first[:2].view("<f2")[0] == 1
    assert first[2:].view(np.int8).tolist() == [127, -127, 3, -3, 0, *[0] * 27]
    assert second.tolist() == [0] * 34


def test_rows_that_fill_no_blocks_are_bfloat16(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of(intermediate_size=100))
    export_gguf(folder, tmp_path / "out.gguf", type=TensorType.Q8_0)
    tensors = read((tmp_path / "out.gguf").read_bytes()).tensors
    assert tensors["blk.0.ffn_down.weight"][0] == TensorType.BF16.number
    assert tensors["blk.0.ffn_up.weight"][0] == TensorType.Q8_0.number


def test_one_tensor_is_in_memory_at_a_time() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def make() -> Tensor:
        assert all(tensor() is None for tensor in alive)
        tensor = torch.ones(3, 4)
        alive.append(weakref.ref(tensor))
        return tensor

    write_gguf(BytesIO(), {}, [GgufTensor(str(i), (3, 4), TensorType.BF16, make) for i in range(5)])
    assert len(alive) == 5


def test_large_tensors_are_converted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.gguf.writing._CHUNK", 100)
    values = torch.randn(50, 32)
    stream = BytesIO()
    write_gguf(stream, {"empty": []}, [GgufTensor("x", (50, 32), TensorType.F32, lambda: values)])
    back = read(stream.getvalue())
    assert torch.equal(back.tensor("x"), values)
    assert back.fields == {"empty": []}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (config_of(rope_scaling=LLAMA3), "rope_type llama3"),
        (config_of(**QWEN2, rope_scaling=LLAMA3), "rope_type llama3"),
        (
            config_of(
                rope_scaling=YarnScaling(factor=4.0, original_max_positions=64, attention_factor=1.1, truncate=False)
            ),
            "truncate",
        ),
        (config_of(attention_bias=True), "attention_bias"),
        (config_of(**QWEN2, head_dim=32), "4 heads of 32"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused_by_name(config: ModelConfig, named: str, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config)
    with pytest.raises(InvalidRequest, match=named):
        export_gguf(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_our_vocabulary_reads_back(tmp_path: Path) -> None:
    folder = find_model("mini")
    export_gguf(folder, tmp_path / "mini.gguf")
    fields = read((tmp_path / "mini.gguf").read_bytes()).fields
    told = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.load(folder)
    names = {"<|call|>": "<|tool_call|>"}
    assert len(told["tokens"]) == len(told["token_type"]) == load_config(folder).vocab_size
    for token, id in (spec["model"]["vocab"] | dict(tokenizer.control)).items():
        assert told["tokens"][id] == names.get(token, token)
        assert told["token_type"][id] == (3 if token in tokenizer.control else 1)
    assert [merge.split(" ") for merge in told["merges"]] == [list(merge) for merge in spec["model"]["merges"]]
    assert (told["model"], told["pre"]) == ("gpt2", "qwen2")
    assert (told["add_bos_token"], told["add_eos_token"]) == (False, False)
    end, separator = tokenizer.control_id("<|end|>"), tokenizer.control_id("<|endoftext|>")
    assert (told["eos_token_id"], told["eot_token_id"], told["eom_token_id"]) == (end, end, separator)
    assert told["eos_token_ids"] == [end, separator]
    assert (told["bos_token_id"], told["padding_token_id"]) == (separator, separator)
    template = tokenizer.chat_template
    assert template is not None
    assert fields["tokenizer.chat_template"] == template.replace("<|call|>", "<|tool_call|>")


def test_how_many_voices_a_model_was_taught_stands_under_a_key_of_ponder_s() -> None:
    config = tiny_config()
    assert own_fields(config) == {}
    assert own_fields(replace(config, voices=4)) == {"ponder.voices": 4}


def test_the_bundled_model_comes_back_with_its_format_and_its_thinking(tmp_path: Path) -> None:
    folder, file = find_model("mini"), tmp_path / "mini.gguf"
    export_gguf(folder, file)
    tokenizer, before = Tokenizer.load(file), load_config(folder)
    assert isinstance(load_format(tokenizer), PonderFormat)
    assert {name: id for name, id in tokenizer.control.items() if name in CONTROL_TOKENS} == {
        name: id for name, id in Tokenizer.load(folder).control.items() if name in CONTROL_TOKENS
    }
    assert tokenizer.chat_template == Tokenizer.load(folder).chat_template
    with open_model(file) as (config, _):
        assert before.thinking_tokens
        assert (config.thinking_tokens, config.repeats) == (before.thinking_tokens, before.repeats)


def test_a_folder_without_a_template_gets_ours(tmp_path: Path) -> None:
    export_gguf(model_of(tmp_path / "model", config_of()), tmp_path / "out.gguf")
    template = read((tmp_path / "out.gguf").read_bytes()).fields["tokenizer.chat_template"]
    assert template == ponder_template().replace("<|call|>", "<|tool_call|>") != ponder_template()


@pytest.mark.parametrize("family", ["qwen3", "llama3", "deepseek_r1"])
def test_a_familys_own_vocabulary_template_and_ends(family: str, tmp_path: Path) -> None:
    """Tokens that are neither flagged as special nor look so stay visible, and ids that the file lacks are unused."""
    tokenizer = Tokenizer.load(FAMILIES / family)
    size = tokenizer.vocab_size + 5
    export_gguf(model_of(tmp_path / "model", config_of(vocab_size=size), tokenizer), tmp_path / "out.gguf")
    fields = read((tmp_path / "out.gguf").read_bytes()).fields
    flags = {token["content"]: token["special"] for token in tokenizer.spec["added_tokens"]}
    types = fields["tokenizer.ggml.token_type"]
    assert {name: types[id] for name, id in tokenizer.control.items()} == {
        name: 3 if special or name.startswith("<｜") else 4 for name, special in flags.items()
    }
    assert types[-5:] == [5] * 5
    assert len(set(fields["tokenizer.ggml.tokens"])) == size
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
    ends = {"qwen3": "<|im_end|>", "llama3": "<|eot_id|>", "deepseek_r1": "<｜end▁of▁sentence｜>"}
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.control_id(ends[family])


def changed(tokenizer: Tokenizer, **changes: Any) -> Tokenizer:
    """A tokenizer with other keys in its tokenizer.json; those of `model` are merged in."""
    spec = dict(tokenizer.spec)
    model = dict(spec["model"]) | changes.pop("model", {})
    return Tokenizer(spec | {"model": model} | changes)


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split_by(regex: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, BYTES]}


@pytest.mark.parametrize(
    ("pre_tokenizer", "ignore_merges", "name"),
    [
        (split_by(SPLIT_REGEX), False, "qwen2"),
        (split_by(SPLIT_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|")), True, "llama-bpe"),
        (split_by(SPLIT_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|")), False, "dbrx"),
        (BYTES | {"use_regex": True}, False, "gpt-2"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}],
            },
            False,
            "smollm",
        ),
    ],
)
def test_splitting_rules_by_their_names(pre_tokenizer: dict[str, Any], ignore_merges: bool, name: str) -> None:
    spec = {"model": {"ignore_merges": ignore_merges}, "pre_tokenizer": pre_tokenizer}
    assert pre_tokenizer_name(spec) == name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pre_tokenizer": split_by(r"\w+|\W")}, "pre_tokenizer"),
        ({"pre_tokenizer": BYTES | {"add_prefix_space": True}}, "add_prefix_space"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"model": {"ignore_merges": True}}, "ignore_merges True"),
        ({"model": {"byte_fallback": True}}, "byte_fallback"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of(), changed(ByteTokenizer(), **changes))
    with pytest.raises(InvalidRequest, match=named):
        export_gguf(folder, tmp_path / "out.gguf")


def test_normalisation_that_llama_cpp_leaves_out_is_told(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of(), changed(ByteTokenizer(), normalizer={"type": "NFC"}))
    assert ["NFC" in note for note in export_gguf(folder, tmp_path / "out.gguf").notes] == [True]


def test_a_token_before_every_text_is_kept(tmp_path: Path) -> None:
    first = CONTROL_TOKENS[0]
    processor = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {first: {"id": first, "ids": [ByteTokenizer().control_id(first)], "tokens": [first]}},
    }
    tokenizer = changed(ByteTokenizer(), post_processor=processor)
    folder = model_of(tmp_path / "model", config_of(), tokenizer)
    with pytest.raises(InvalidRequest, match="bos_token"):
        export_gguf(folder, tmp_path / "out.gguf")
    named = Tokenizer(tokenizer.spec, {"bos_token": {"content": first}})
    named.save(folder)
    export_gguf(folder, tmp_path / "out.gguf")
    fields = read((tmp_path / "out.gguf").read_bytes()).fields
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.bos_token_id"] == tokenizer.control_id(first)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of(vocab_size=300))
    with pytest.raises(InvalidRequest, match="320 ids"):
        export_gguf(folder, tmp_path / "out.gguf")


def test_a_tokenizer_of_no_known_format_is_refused(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of(), Tokenizer.train((), 320, ["<|only|>"]))
    with pytest.raises(FormatError):
        export_gguf(folder, tmp_path / "out.gguf")


def test_an_adapter_that_is_not_merged_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Transformer(tiny_config())
    add_lora(model, 2, 4.0)
    save_lora(model, tmp_path / "adapter")
    with pytest.raises(InvalidRequest, match="LoRA adapter: merge it"):
        export_gguf(tmp_path / "adapter", tmp_path / "out.gguf")
    assert ponder("export", tmp_path / "adapter", "--to", "gguf", "-o", tmp_path / "out.gguf") == 2
    assert "LoRA adapter" in capsys.readouterr().err


def test_two_tokens_of_one_name_are_refused(tmp_path: Path) -> None:
    """llama.cpp would end the process."""
    tokenizer = Tokenizer.train((), 352, [*CONTROL_TOKENS, "<|tool_call|>"])
    with pytest.raises(InvalidRequest, match=r"<\|tool_call\|>"):
        export_gguf(model_of(tmp_path / "model", config_of(vocab_size=352), tokenizer), tmp_path / "out.gguf")


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", config_of())
    model = load_model(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 3] = 1e6
    with atomic_folder(folder, replace=True) as temporary:
        write_model(model, temporary)
        ByteTokenizer().save(temporary)
    (tmp_path / "out.gguf").write_text("old")
    with pytest.raises(InvalidRequest, match=r"blk\.1\.ffn_up\.weight"):
        export_gguf(folder, tmp_path / "out.gguf", type=TensorType.F16, force=True)
    assert (tmp_path / "out.gguf").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out.gguf"]


def ponder(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_command_writes_and_replaces_only_with_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mini.gguf"
    assert ponder("export", "mini", "--to", "gguf", "--dtype", "q8_0", "-o", out) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 4,820,992 parameters, Q8_0, 5.")
    before = out.read_bytes()
    assert ponder("export", "mini", "--to", "gguf", "-o", out) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert ponder("export", "mini", "--to", "gguf", "--dtype", "bf16", "--force", "-o", out) == 0
    assert read(out.read_bytes()).fields["general.name"] == "mini"
    assert len(out.read_bytes()) > len(before)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--to", "gguf", "--out", "model.bin"], ".gguf"),
        (["--to", "hf", "--dtype", "q8_0", "--out", "folder"], "--to gguf"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ponder("export", "mini", *arguments) == 2
    message = capsys.readouterr().err
    assert named in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())
