"""The transformer against Hugging Face's: same config.json, same weights, same logits, for each family and option."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder.model.checkpoint import load_config, load_model, save_model
from ponder.model.config import YarnScaling
from ponder.model.hf_config import config_from_hf
from ponder.model.transformer import Transformer, rotary_frequencies
from ponder.types import CheckpointError

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
    "rope_theta": 500000.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 10000.0}

CASES = {
    "llama": ("llama", {}),
    "llama_tied_with_bias": ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "llama_own_head_dim": ("llama", {"head_dim": 20}),
    "llama_multi_head": ("llama", {"num_key_value_heads": None}),
    "llama3_scaling": ("llama", {"rope_parameters": LLAMA3}),
    "llama_yarn": ("llama", {"rope_parameters": YARN}),
    "qwen2": ("qwen2", {}),
    "qwen2_tied_yarn": ("qwen2", {"tie_word_embeddings": True, "rope_parameters": YARN}),
    "qwen2_sliding_window_off": ("qwen2", {"use_sliding_window": False, "sliding_window": 16}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3_tied_single_kv_head": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen3_bias": ("qwen3", {"head_dim": 16, "attention_bias": True}),
    "qwen3_yarn": ("qwen3", {"head_dim": 16, "rope_parameters": YARN}),
    "qwen3_yarn_own_attention_factor": (
        "qwen3",
        {"head_dim": 16, "rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0}},
    ),
    "qwen3_yarn_mscale": ("qwen3", {"head_dim": 16, "rope_parameters": YARN | {"mscale": 0.8, "mscale_all_dim": 0.5}}),
    "qwen3_yarn_no_truncation": ("qwen3", {"head_dim": 16, "rope_parameters": YARN | {"truncate": False}}),
    "qwen3_theta": ("qwen3", {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
}


def reference_model(case: str):
    kind, options = CASES[case]
    config = transformers.AutoConfig.for_model(kind, **(SIZES | json.loads(json.dumps(options))))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too must differ from their first values
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_ids(length: int = 300) -> torch.Tensor:
    return torch.randint(0, SIZES["vocab_size"], (2, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers(case: str, tmp_path: Path) -> None:
    reference = reference_model(case)
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    ids_BT = random_ids()
    expected = reference(ids_BT).logits
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(model(ids_BT), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("case", ["llama3_scaling", "qwen2_tied_yarn", "qwen3", "qwen3_bias", "qwen3_yarn_mscale"])
def test_a_saved_folder_loads_in_transformers_to_the_same_logits(case: str, tmp_path: Path) -> None:
    reference_model(case).save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    save_model(model, tmp_path / "ours", max_shard_bytes=50_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 1
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids_BT = random_ids()
    torch.testing.assert_close(model(ids_BT), theirs.eval()(ids_BT).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_shards_written_by_transformers_load(tmp_path: Path) -> None:
    reference = reference_model("qwen3")
    reference.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    ids_BT = random_ids(40)
    torch.testing.assert_close(load_model(tmp_path)(ids_BT), reference(ids_BT).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_bfloat16_save_is_read_as_bfloat16_by_both(tmp_path: Path) -> None:
    reference_model("qwen3").save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours", dtype=torch.bfloat16)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    ours = load_model(tmp_path / "ours")
    assert theirs.dtype == torch.bfloat16
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    ids_BT = random_ids(40)
    difference = (ours(ids_BT).float() - theirs(ids_BT).logits.float()).abs().max()
    assert difference < 0.05 * theirs(ids_BT).logits.float().abs().max()


@torch.no_grad()
@pytest.mark.parametrize("case", ["llama3_scaling", "qwen3_yarn"])
def test_config_json_of_transformers_4_is_read_alike(case: str) -> None:
    """Version 4 writes rope_theta beside rope_scaling, version 5 everything into rope_parameters."""
    new = reference_model(case).config.to_dict() | {"architectures": None}
    old = {k: v for k, v in new.items() if k != "rope_parameters"}
    rope = dict(new["rope_parameters"])
    old |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope | {"type": rope.pop("rope_type")}}
    assert config_from_hf(old) == config_from_hf(new)


SPELLINGS: dict[str, dict[str, Any]] = {
    "type": {"rope_theta": 5e5, "rope_scaling": {"type": "yarn", "factor": 4.0}},
    "both_types": {"rope_theta": 5e5, "rope_scaling": LLAMA3 | {"type": "linear"}},
    "scaling_with_theta": {"rope_scaling": YARN},
    "scaling_over_parameters": {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5, "rope_scaling": YARN},
    "scaling_over_another_scaling": {"rope_parameters": LLAMA3, "rope_scaling": YARN | {"rope_theta": 500000.0}},
    "empty_scaling": {"rope_parameters": YARN, "rope_scaling": {}},
    "no_scaling": {"rope_parameters": YARN, "rope_scaling": None},
    "theta_beside_parameters": {"rope_parameters": {"type": "yarn", "factor": 2.0}, "rope_theta": 5e5},
    "theta_in_both": {"rope_parameters": YARN, "rope_theta": 5e5},
    "default": {"rope_scaling": {"type": "default"}},
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_each_spelling_of_rope_scaling_is_read_as_transformers_reads_it(name: str, tmp_path: Path) -> None:
    raw = json.loads(json.dumps(SIZES | {"model_type": "llama", "head_dim": 16} | SPELLINGS[name]))
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    ours = load_config(tmp_path)
    torch.testing.assert_close(rotary_frequencies(ours), theirs.inv_freq, atol=0, rtol=1e-6)
    scaling = ours.rope_scaling
    assert (scaling.attention_factor if isinstance(scaling, YarnScaling) else 1.0) == theirs.attention_scaling


def test_frequencies_that_transformers_would_lose_are_refused() -> None:
    raw = SIZES | {"model_type": "llama", "rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {"type": "default"}}
    with pytest.raises(CheckpointError, match=r"key 'rope_scaling': replaces .* 1000000\.0 is lost"):
        config_from_hf(raw)


def test_the_end_tokens_of_both_files_are_the_models(tmp_path: Path) -> None:
    reference_model("qwen3").save_pretrained(tmp_path)
    for file, ends in (("config.json", 7), ("generation_config.json", [9, 7, 8])):
        raw = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps(raw | {"eos_token_id": ends}))
    assert load_config(tmp_path).eos_token_ids == (7, 9, 8)
    save_model(load_model(tmp_path), tmp_path / "ours")
    assert load_config(tmp_path / "ours").eos_token_ids == (7, 9, 8)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(CheckpointError, match=r"generation_config\.json: key 'eos_token_id': must be a token id"):
        load_config(tmp_path)


def test_packed_documents_equal_transformers_on_each_alone(tmp_path: Path) -> None:
    reference = reference_model("qwen3_yarn")
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    ids_BT = random_ids(200)[:1]
    lengths = [70, 1, 99, 30]
    documents_BT = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    with torch.no_grad():
        packed = model(ids_BT, documents_BT=documents_BT)[0].split(lengths)
        for document, logits in zip(ids_BT[0].split(lengths), packed, strict=True):
            torch.testing.assert_close(logits, reference(document[None]).logits[0], atol=1e-4, rtol=0)


def test_gradients_equal_those_of_transformers(tmp_path: Path) -> None:
    reference = reference_model("qwen3")
    reference.save_pretrained(tmp_path)
    model: Transformer = load_model(tmp_path)
    ids_BT = random_ids(60)
    model(ids_BT).logsumexp(-1).sum().backward()
    reference(ids_BT).logits.logsumexp(-1).sum().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-3, rtol=1e-3, msg=name)
