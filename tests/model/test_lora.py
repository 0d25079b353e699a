"""LoRA: a fresh adapter changes nothing, training touches it alone, merging is exact and undone to the bit."""

import json
from pathlib import Path

import pytest
import torch

from ponder.model.checkpoint import load_model, save_model
from ponder.model.config import ModelConfig
from ponder.model.lora import add_lora, load_lora, lora_state_dict, merge_lora, remove_lora, save_lora, unmerge_lora
from ponder.model.transformer import Transformer
from ponder.types import CheckpointError, InvalidRequest

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48
)
IDS_BT = torch.arange(40).view(2, 20)


def adapted(dtype: torch.dtype = torch.float32, **options) -> Transformer:
    """A model with an adapter that does something."""
    model = Transformer(CONFIG).to(dtype)
    add_lora(model, rank=4, alpha=8.0, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return model


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing() -> None:
    model = Transformer(CONFIG)
    before = model(IDS_BT)
    add_lora(model, rank=4, alpha=8.0)
    assert torch.equal(model(IDS_BT), before)


def test_only_the_adapter_is_trained() -> None:
    model = Transformer(CONFIG)
    trained = add_lora(model, rank=4, alpha=8.0, targets=["q_proj", "down_proj"])
    assert len(trained) == 2 * 2 * 2
    model(IDS_BT).square().sum().backward()
    with_gradient = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"lora_A", "lora_B"}


@torch.no_grad()
def test_merged_equals_unmerged() -> None:
    model = adapted()
    plain, apart = Transformer(CONFIG)(IDS_BT), model(IDS_BT)
    assert (apart - plain).abs().max() > 1e-3
    merge_lora(model)
    torch.testing.assert_close(model(IDS_BT), apart, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_returns_the_weights_to_the_bit(dtype: torch.dtype) -> None:
    model = adapted(dtype)
    before = {name: p.clone() for name, p in model.named_parameters()}
    merge_lora(model)
    merge_lora(model)  # a second merge does nothing
    assert not torch.equal(model.model.layers[0].mlp.up_proj.weight, before["model.layers.0.mlp.up_proj.weight"])
    unmerge_lora(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


@torch.no_grad()
def test_a_merged_model_saves_as_a_plain_one(tmp_path: Path) -> None:
    model = adapted()
    with pytest.raises(InvalidRequest, match="merge"):
        save_model(model, tmp_path / "m")
    merge_lora(model)
    save_model(model, tmp_path / "m")
    torch.testing.assert_close(load_model(tmp_path / "m")(IDS_BT), model(IDS_BT), atol=0, rtol=0)
    remove_lora(model)
    assert set(dict(model.named_parameters())) == set(CONFIG.parameter_shapes())
    assert all(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_an_adapter_saves_and_loads(tmp_path: Path) -> None:
    model = adapted(targets=["q_proj", "v_proj"])
    save_lora(model, tmp_path / "a")
    other = Transformer(CONFIG)
    load_lora(other, tmp_path / "a")
    assert torch.equal(other(IDS_BT), model(IDS_BT))


def test_files_are_laid_out_as_peft_does(tmp_path: Path) -> None:
    model = adapted(targets=["q_proj"])
    save_lora(model, tmp_path / "a")
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 8.0, ["q_proj"])
    shapes = {name: tuple(t.shape) for name, t in lora_state_dict(model).items()}
    assert shapes["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] == (4, 32)
    assert shapes["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"] == (32, 4)


def test_misuse_is_refused() -> None:
    model = Transformer(CONFIG)
    with pytest.raises(InvalidRequest, match="query"):
        add_lora(model, rank=4, alpha=8.0, targets=["query"])
    with pytest.raises(InvalidRequest, match="rank"):
        add_lora(model, rank=0, alpha=8.0)
    with pytest.raises(InvalidRequest, match="no LoRA"):
        save_lora(model, "unused")
    add_lora(model, rank=4, alpha=8.0)
    with pytest.raises(InvalidRequest, match="already"):
        add_lora(model, rank=4, alpha=8.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("r", 8), ("use_dora", True), ("bias", "all"), ("target_modules", ["fc1"]), ("peft_type", "IA3"), ("r", 1 << 40),
     ("rank_pattern", {"q_proj": 2}), ("target_modules", ["q_proj", "v_proj"]), ("lora_alpha", "8")],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused_by_file_and_key(key: str, value: object, tmp_path: Path) -> None:
    save_lora(adapted(targets=["q_proj"]), tmp_path / "a")
    path = tmp_path / "a/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    model = Transformer(CONFIG)
    with pytest.raises(CheckpointError, match=r"adapter_(config.json|model.safetensors): key '") as error:
        load_lora(model, tmp_path / "a")
    assert key in str(error.value) or "lora_" in str(error.value)
    assert set(dict(model.named_parameters())) == set(CONFIG.parameter_shapes())
