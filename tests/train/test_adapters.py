"""A stage that trains adapters: what it leaves names its base, holds the base's weights as they were, and can be read
by those whom umask lets read it."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch

from ponder.model.checkpoint import load_model, save_model
from ponder.model.lora import LoraLinear, load_lora
from ponder.testing.tiny import tiny_model
from ponder.train import run


def recipe(home: Path, start: Path, precision: str) -> Path:
    chat = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    (home / "m.jsonl").write_text(json.dumps(chat) + "\n")
    (home / "r.toml").write_text(
        f"""
[run]
folder = "{home}/run"
stages = ["sft"]
threads = 1
compile = false
precision = "{precision}"
[sft]
start = "{start}"
tokens = 512
sequence = 64
batch = 4
mix = [{{ messages = "m.jsonl" }}]
optim.lr = 0.01
[sft.lora]
rank = 2
targets = ["q_proj", "up_proj"]
"""
    )
    return home / "r.toml"


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_merging_keeps_the_base_as_it_is_stored(stored: torch.dtype, start: Path, tmp_path: Path) -> None:
    save_model(tiny_model(), start.with_name("other"), dtype=stored)
    for file in start.glob("tokenizer*"):
        file.rename(start.with_name("other") / file.name)
    start = start.with_name("other")
    mask = os.umask(0o027)
    try:
        run(recipe(tmp_path, start, "bf16"))
    finally:
        os.umask(mask)
    done = tmp_path / "run" / "sft"
    for adapter in (done / "adapter", *(done / "checkpoints").glob("step_*")):
        named = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert Path(named).samefile(start)
    exact = load_model(start, dtype=torch.float32)
    before = {name: parameter.detach().clone() for name, parameter in exact.named_parameters()}
    load_lora(exact, done / "adapter")
    merged, final = load_model(done / "model"), load_model(tmp_path / "run" / "model")
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    assert {p.dtype for p in final.parameters()} == {stored}
    for name, module in exact.named_modules():
        if isinstance(module, LoraLinear):
            change = module.lora_B.detach() @ module.lora_A.detach() * (module.alpha / module.rank)
            assert change.abs().max() > 0
            before[f"{name}.weight"] += change
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(dict(final.named_parameters())[name], parameter.to(stored), atol=0, rtol=0)
    weights = list((tmp_path / "run").rglob("*.safetensors"))
    assert len(weights) > 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in weights} == {0o640}
