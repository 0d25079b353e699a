"""Models out of GGUF files: what the exporter writes comes back, in every type, and what is not computed is refused."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import gguf_bytes, random_blocks, save

from ponder.engine.kernel import FusedRunner, covered, open_runner
from ponder.engine.pages import Chunk
from ponder.export import export_gguf
from ponder.gguf.blocks import dequantize
from ponder.gguf.layout import TensorType
from ponder.model.checkpoint import load_config, load_model, open_model, save_model
from ponder.model.config import Family, Llama3Scaling, ModelConfig, YarnScaling
from ponder.model.gguf import gguf_name, load_blocks
from ponder.model.transformer import Transformer, rotary_frequencies
from ponder.testing.tiny import ByteTokenizer, tiny_config
from ponder.types import CheckpointError

SIZES: dict[str, Any] = {"vocab_size": 320, "max_positions": 256, "rms_norm_eps": 1e-5, "rope_theta": 5e5}
LLAMA: dict[str, Any] = {"family": Family.LLAMA, "qk_norm": False}
QWEN2: dict[str, Any] = {"family": Family.QWEN2, "qk_norm": False, "attention_bias": True}
YARN = YarnScaling(factor=4.0, original_max_positions=64, attention_factor=1.3, beta_fast=16.0, beta_slow=2.0)
LLAMA3 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3_untied_yarn": {"tie_embeddings": False, "rope_scaling": YARN},
    "qwen2": QWEN2,
    "llama": LLAMA,
    "llama_bias_untied": LLAMA | {"attention_bias": True, "tie_embeddings": False},
    "llama_own_head_dim_yarn": LLAMA | {"head_dim": 24, "rope_scaling": YARN},
}


def config_of(**changes: Any) -> ModelConfig:
    return replace(tiny_config(), **(SIZES | changes))


def exported(tmp_path: Path, config: ModelConfig, type: TensorType | None = None) -> tuple[Transformer, Path]:
    """A model whose every parameter is random, and its file."""
    model = Transformer(config)
    for parameter in model.parameters():
        parameter.data = torch.empty(parameter.shape).normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    save_model(model, tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "m.gguf", type=type)
    return model, tmp_path / "m.gguf"


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_exported_comes_back(name: str, tmp_path: Path) -> None:
    config = config_of(**CONFIGS[name])
    model, file = exported(tmp_path, config)
    back = load_model(file)
    said = load_config(file)
    if config.rope_scaling is not None:  # single precision
        assert isinstance(said.rope_scaling, YarnScaling)
        assert said.rope_scaling.attention_factor == pytest.approx(1.3, rel=1e-6)
        said = replace(said, rope_scaling=config.rope_scaling)
    known = {"bos_token_id": said.bos_token_id, "eos_token_ids": said.eos_token_ids, "pad_token_id": said.pad_token_id}
    assert replace(config, **known) == said
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(back.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("type", "dtype"),
    [(TensorType.F32, torch.float32), (TensorType.F16, torch.bfloat16), (TensorType.Q8_0, torch.bfloat16)],
    ids=lambda value: str(value),
)
def test_only_a_file_of_float32_is_loaded_in_float32(type: TensorType, dtype: torch.dtype, tmp_path: Path) -> None:
    _, file = exported(tmp_path, config_of(), type)
    assert next(load_model(file).parameters()).dtype is dtype
    assert next(load_model(file, dtype=torch.float32).parameters()).dtype is torch.float32
    loaded = load_model(file).loaded_from
    assert loaded is not None
    assert (loaded.folder, loaded.dtype) == (str(file), dtype)


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("window", [64, 8192])
def test_llama3_scaling_is_found_from_its_factors(factor: float, window: int, tmp_path: Path) -> None:
    scaling = replace(LLAMA3, factor=factor, original_max_positions=window)
    config = config_of(**LLAMA, head_dim=64, rope_scaling=scaling, max_positions=8 * window)
    _, file = exported(tmp_path, config)
    found = load_config(file)
    torch.testing.assert_close(rotary_frequencies(found), rotary_frequencies(config), rtol=1e-5, atol=0)
    if window == 8192:  # what Llama 3.1 was made for is not in its files: it is known
        assert found.rope_scaling == scaling


MODEL = config_of(**LLAMA, hidden_size=256, head_dim=32, num_heads=8, num_kv_heads=4, intermediate_size=256)


def fields_of(config: ModelConfig = MODEL) -> dict[str, Any]:
    own = {
        "context_length": 256,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    return {"general.architecture": "llama", **{f"llama.{key}": value for key, value in own.items()}}


def tensors_of(type: TensorType, config: ModelConfig = MODEL) -> dict[str, Any]:
    made = {}
    for seed, (name, shape) in enumerate(config.parameter_shapes().items()):
        kept = type if len(shape) > 1 else TensorType.F32
        made[gguf_name(name)] = (shape, kept, random_blocks(shape, kept, seed))
    return made


@pytest.mark.parametrize("type", list(TensorType), ids=lambda type: type.name)
def test_every_type_of_block_is_loaded(type: TensorType, tmp_path: Path) -> None:
    tensors = tensors_of(type)
    state = load_model(save(tmp_path / "m.gguf", gguf_bytes(fields_of(), tensors)), dtype=torch.float32).state_dict()
    for name, shape in MODEL.parameter_shapes().items():
        _, kept, blocks = tensors[gguf_name(name)]
        values = torch.from_numpy(dequantize(np.frombuffer(blocks, np.uint8), kept).copy()).view(shape)
        heads = {"q_proj": 8, "k_proj": 4}.get(name.split(".")[-2])
        if heads:  # row i of a head's halves is row 2i, or 2i + 1, of the file
            order = [32 * head + 2 * i + j for head in range(heads) for j in range(2) for i in range(16)]
            values = values[order]
        assert torch.equal(state[name], values), name


BLOCKS = [type for type in TensorType if type.block > 1]


def run_of(model: Transformer, ids: list[int]) -> torch.Tensor:
    """Logits of a step over blocks, and of torch over floats."""
    if not model.block_types:
        with torch.no_grad():
            return model(torch.tensor([ids]))[0]
    runner = open_runner(model, 4, 16, kernel="fused", deterministic=False)
    assert isinstance(runner, FusedRunner)
    return runner.pages.run(ids, [Chunk(array("i", range(4)), 0, len(ids))], range(len(ids)))


@pytest.mark.parametrize("type", BLOCKS, ids=lambda type: type.name)
def test_blocks_stay_in_the_file_and_give_the_logits_of_their_values(type: TensorType, tmp_path: Path) -> None:
    file = save(tmp_path / "m.gguf", gguf_bytes(fields_of(), tensors_of(type)))
    stored = load_blocks(file)
    assert stored is not None
    if covered(stored).kernel == "torch":
        pytest.skip(covered(stored).reason)
    assert set(stored.block_types.values()) == {type}
    ids = list(range(3, 23))
    exact = run_of(load_model(file, dtype=torch.float32), ids)
    logits = run_of(stored, ids)
    assert float((logits - exact).norm() / exact.norm()) < 0.15, (
        "random blocks make large values, of which 8 bits lose more"
    )


def test_what_was_packed_is_not_kept_in_memory_a_second_time(tmp_path: Path) -> None:
    config = replace(MODEL, intermediate_size=16_384)
    file = save(tmp_path / "m.gguf", gguf_bytes(fields_of(config), tensors_of(TensorType.Q4_0, config)))
    stored = load_blocks(file)
    assert stored is not None
    if covered(stored).kernel == "torch":
        pytest.skip(covered(stored).reason)
    run_of(stored, [7] * 20)
    assert resident_of(file) < 0.2 * file.stat().st_size, "what the embedding looked up, in large pages"


def resident_of(file: Path) -> int:
    """Bytes of a mapped file that are in the memory of this process."""
    lines, found, inside = Path("/proc/self/smaps").read_text().splitlines(), 0, False
    for line in lines:
        if line.split()[0].count("-"):
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def refused(tmp_path: Path, why: str, fields: dict[str, Any], tensors: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=why), open_model(save(tmp_path / "m.gguf", gguf_bytes(fields, tensors))):
        pass


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"general.architecture": "gemma3"}, "architecture 'gemma3' is not supported; supported: llama, qwen2, qwen3"),
        ({"llama.attention.head_count": 0}, "num_attention_heads must be from 1 to 1024 .got 0"),
        ({"llama.block_count": 2_000_000_000}, "num_hidden_layers must be from 1 to 1024 .got 2000000000"),
        ({"llama.embedding_length": 272}, "shape .* the file's sizes ask for"),
        ({"llama.attention.head_count": [8, 8]}, "'llama.attention.head_count': must be an integer"),
        ({"llama.rope.dimension_count": 16}, "'llama.rope.dimension_count': 16 is not supported; only 32"),
        ({"llama.attention.value_length": 64}, "'llama.attention.value_length': 64 is not supported"),
        ({"llama.expert_count": 8}, "'llama.expert_count': 8 is not supported"),
        ({"llama.attention.sliding_window": 4096}, "'llama.attention.sliding_window': 4096 is not supported"),
        ({"llama.attention.causal": False}, "'llama.attention.causal': False is not supported"),
        ({"llama.logit_scale": 2.0}, "'llama.logit_scale': 2.0 is not supported"),
        ({"llama.new.idea": 1}, "'llama.new.idea': 1 is not supported with llama"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}, "'linear' is not supported"),
        ({"llama.rope.scaling.type": "longrope"}, "'longrope' is not supported; only yarn"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 0.0}, "must be above 0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon': must be finite"),
        ({"llama.attention.layer_norm_rms_epsilon": 0.0}, "rms_norm_eps must be above 0 .got 0.0"),
    ],
)
@pytest.mark.fault
def test_fields_that_are_not_computed_are_refused_by_name(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    refused(tmp_path, why, fields_of() | changes, tensors_of(TensorType.F16))


@pytest.mark.fault
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    fields, tensors = fields_of(), tensors_of(TensorType.F16)
    without = {name: each for name, each in tensors.items() if name != "blk.1.ffn_up.weight"}
    refused(tmp_path, "tensor 'blk.1.ffn_up.weight': missing", fields, without)
    refused(tmp_path, "tensor 'token_embd.weight': missing", fields, {})
    refused(
        tmp_path,
        "'blk.0.ffn_gate_exps.weight': llama has no such tensor",
        fields,
        tensors
        | {
            "blk.0.ffn_gate_exps.weight": ((4, 32), TensorType.F32, bytes(512)),
        },
    )
    refused(
        tmp_path,
        r"'blk.0.attn_q.weight': has shape \(4, 32\)",
        fields,
        tensors
        | {
            "blk.0.attn_q.weight": ((4, 32), TensorType.F32, bytes(512)),
        },
    )
    factors = np.linspace(1, 3, 16, dtype="<f4")
    refused(
        tmp_path,
        "'rope_freqs.weight': these factors are not Llama 3's scaling",
        fields,
        tensors
        | {
            "rope_freqs.weight": ((16,), TensorType.F32, factors.tobytes()),
        },
    )
