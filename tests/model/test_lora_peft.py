"""LoRA adapters against PEFT: what one writes the other loads, to the same logits. Skipped without peft."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder.model.checkpoint import load_model, save_model
from ponder.model.config import PROJECTIONS, ModelConfig
from ponder.model.lora import add_lora, load_lora, save_lora
from ponder.model.transformer import Transformer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]
CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48
)
IDS_BT = torch.arange(40).view(2, 20)


@pytest.fixture
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("transformers")
        return pytest.importorskip("peft")


def base(folder: Path) -> Any:
    """Ponder's model, saved, as transformers loads it."""
    from transformers import AutoModelForCausalLM

    save_model(Transformer(CONFIG), folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def test_peft_loads_what_ponder_trained(peft: Any, tmp_path: Path) -> None:
    theirs = base(tmp_path / "base")
    ours = load_model(tmp_path / "base")
    for parameter in add_lora(ours, 4, 8.0, ["q_proj", "down_proj"]):
        parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    save_lora(ours, tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    plain = load_model(tmp_path / "base")(IDS_BT)
    assert (ours(IDS_BT) - plain).abs().max() > 1e-2
    torch.testing.assert_close(adapted(IDS_BT).logits, ours(IDS_BT), atol=1e-4, rtol=0)


@torch.no_grad()
def test_ponder_loads_what_peft_wrote(peft: Any, tmp_path: Path) -> None:
    theirs = base(tmp_path / "base")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(theirs, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.normal_(0, 0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    ours = load_model(tmp_path / "base")
    load_lora(ours, tmp_path / "adapter")
    torch.testing.assert_close(ours(IDS_BT), adapted(IDS_BT).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_peft_finds_the_base_of_an_adapter_by_its_name(peft: Any, tmp_path: Path) -> None:
    base(tmp_path / "base")
    ours = load_model(tmp_path / "base")
    for parameter in add_lora(ours, 4, 8.0, ["q_proj"]):
        parameter.normal_(0, 0.3)
    save_lora(ours, tmp_path / "adapter")
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    torch.testing.assert_close(theirs(IDS_BT).logits, ours(IDS_BT), atol=1e-4, rtol=0)
