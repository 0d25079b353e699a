"""The recipes for Qwen3-0.6B resolve, and the memory that their README states follows from the shapes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ponder.train.algorithms.grpo import GrpoRecipe
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.pipeline import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "qwen3"


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qwen3_memory", FOLDER / "memory.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["1_sft", "2_grpo", "lora"])
def test_the_recipes_resolve_and_are_those_of_the_table(name: str, memory: ModuleType) -> None:
    recipe = load_recipe(FOLDER / f"{name}.toml")
    sft, grpo = recipe.section(SftRecipe), recipe.section(GrpoRecipe)
    sft.check_data()
    assert sft.batch * sft.sequence == memory.MICRO_BATCH
    if name != "1_sft":
        assert grpo.batch * grpo.sequence == memory.MICRO_BATCH
        assert grpo.prompts * grpo.samples == memory.ROLLOUTS
        assert grpo.sequence == memory.LENGTH
    ranks = {sft.lora.rank, grpo.lora.rank}
    assert ranks == ({memory.RANK} if name == "lora" else {0})


def test_the_readmes_numbers_follow_from_the_shapes(memory: ModuleType) -> None:
    text = (FOLDER / "README.md").read_text()
    assert memory.table() in text
    config = memory.QWEN3_0_6B
    trained = sum(p.numel() for p in memory.adapted_on_meta(config, memory.RANK).parameters() if p.requires_grad)
    assert f"{config.num_parameters:,} weights" in text
    assert f"{trained:,} trained" in text
    for rank, said in ((0, "92,328 bytes a position"), (memory.RANK, "72,072 with LoRA")):
        short, long = (memory.kept_by_blocks(config, rank, tokens) for tokens in (512, 1024))
        assert f"{(long - short) // (512 * config.num_layers):,}" in said
        assert said in text
    page = 2 * config.num_layers * config.num_kv_heads * config.head_dim * torch.bfloat16.itemsize
    assert f"{page:,} bytes" in text
