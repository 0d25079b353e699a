"""LoRA: a fresh adapter changes nothing, training touches it alone, merging is exact and undone to the bit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ponder.model.checkpoint import load_model, save_model
from ponder.model.config import ModelConfig
from ponder.model.lora import (
    LoraLinear,
    adapter_base,
    add_lora,
    load_lora,
    lora_state_dict,
    merge_lora,
    remove_lora,
    reread_base,
    save_lora,
    unmerge_lora,
)
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
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_merging_rounds_once_to_the_dtype_of_the_base(dtype: torch.dtype) -> None:
    model = adapted(dtype)
    projections = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    exact = {
        name: each.weight.double() + each.lora_B.double() @ each.lora_A.double() * (each.alpha / each.rank)
        for name, each in projections.items()
    }
    merge_lora(model)
    assert {p.dtype for name, p in model.named_parameters() if "lora_" not in name} == {dtype}
    for name, each in projections.items():
        step = torch.finfo(dtype).eps * exact[name].abs().max()
        assert (each.weight.double() - exact[name]).abs().max() <= step, name


@torch.no_grad()
def test_a_base_that_training_rounded_is_read_again_in_full(tmp_path: Path) -> None:
    save_model(Transformer(CONFIG), tmp_path / "base")
    model, exact = load_model(tmp_path / "base"), load_model(tmp_path / "base")
    add_lora(model, 4, 8.0, ["q_proj"])
    for block in model.model.layers:
        for module in (block.mlp.up_proj, block.self_attn.q_proj):
            module.weight.data = module.weight.data.bfloat16()
    reread_base(model)
    for name, parameter in exact.named_parameters():
        assert torch.equal(dict(model.named_parameters())[name], parameter), name
    model.model.layers[0].mlp.up_proj.weight.data = model.model.layers[0].mlp.up_proj.weight.data.bfloat16()
    save_model(Transformer(replace(CONFIG, vocab_size=96)), tmp_path / "base", replace=True)
    with pytest.raises(CheckpointError, match="base: holds another model"):
        reread_base(model)


def test_the_folder_of_the_model_is_named_as_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(Transformer(CONFIG), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    model = load_model("base")
    add_lora(model, 4, 8.0, ["q_proj"])
    save_lora(model, "adapter")
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tmp_path / "base"
    )
    assert adapter_base("adapter") == str(tmp_path / "base")
    save_lora(adapted(), "other")
    assert adapter_base("other") is None


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


# What PEFT 0.21.2 writes for a plain adapter, and the version's older and newer keys under neutral values.
PLAIN = json.loads("""{
 "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null, "bias": "none",
 "corda_config": null, "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null,
 "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "kasa_config": null,
 "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {},
 "lora_bias": false, "lora_dropout": 0.05, "lora_ga_config": null, "megatron_config": null,
 "megatron_core": "megatron.core", "modules_to_save": null, "monteclora_config": null, "peft_version": "0.21.2",
 "qalora_group_size": 16, "rank_pattern": {}, "revision": "main", "runtime_config": {"ephemeral_gpu_offload": false},
 "target_parameters": null, "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
 "use_qalora": false, "use_rslora": false, "velora_config": null, "what_comes_next": null
}""")
NOT_PLAIN: list[tuple[str, object]] = [
    *(("init_lora_weights", way) for way in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "new")),
    *((key, True) for key in ("use_dora", "use_rslora", "use_qalora", "fan_in_fan_out", "lora_bias", "use_bdlora")),
    *(("bias", which) for which in ("all", "lora_only")),
    *((key, ["lm_head"]) for key in ("modules_to_save", "target_parameters", "exclude_modules", "what_comes_next")),
    *((key, {"q_proj": 2}) for key in ("rank_pattern", "alpha_pattern", "arrow_config", "kasa_config")),
    *(("layers_to_transform", layers) for layers in (0, 1, [0])),
    ("layer_replication", [[0, 2], [1, 2]]),
    ("trainable_token_indices", {"embed_tokens": [0]}),
    ("alora_invocation_tokens", [5, 6]),
    *(("target_modules", which) for which in ("all-linear", ".*q_proj", ["fc1"], ["q_proj", "lm_head"], [], None)),
    *(("peft_type", kind) for kind in ("IA3", "ADALORA", None)),
    *(("r", rank) for rank in (0, -1, True, "4", 1 << 40)),
    *(("lora_alpha", alpha) for alpha in ("8", None, True)),
]


def edited(folder: Path, changes: dict[str, object]) -> Path:
    """The folder of a saved adapter, with changes in its adapter_config.json."""
    save_lora(adapted(targets=["q_proj"]), folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("way", [True, False, "gaussian", "eva", "orthogonal"])
def test_a_plain_adapter_of_peft_loads(way: object, tmp_path: Path) -> None:
    model = Transformer(CONFIG)
    load_lora(model, edited(tmp_path / "a", PLAIN | {"init_lora_weights": way}))
    assert torch.equal(model(IDS_BT), adapted(targets=["q_proj"])(IDS_BT))


@pytest.mark.parametrize(("key", "value"), NOT_PLAIN)
def test_what_is_not_plain_lora_is_refused_by_file_and_key(key: str, value: object, tmp_path: Path) -> None:
    model = Transformer(CONFIG)
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json: key '{key}'"):
        load_lora(model, edited(tmp_path / "a", PLAIN | {key: value}))
    assert set(dict(model.named_parameters())) == set(CONFIG.parameter_shapes())


@pytest.mark.parametrize(("key", "value"), [("r", 8), ("target_modules", ["q_proj", "v_proj"])])
def test_tensors_that_the_config_does_not_describe_are_refused(key: str, value: object, tmp_path: Path) -> None:
    model = Transformer(CONFIG)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: key '.*lora_"):
        load_lora(model, edited(tmp_path / "a", {key: value}))
    assert set(dict(model.named_parameters())) == set(CONFIG.parameter_shapes())


def test_an_adapter_in_a_pickle_is_named(tmp_path: Path) -> None:
    folder = edited(tmp_path / "a", {})
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: a pickle can run code"):
        load_lora(Transformer(CONFIG), folder)
